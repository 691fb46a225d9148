"""A small data set, a poison of it, and how it is written in every form."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.conftest import random_dataset
from uebench.data import Dataset
from uebench.data.foreign import Reading, read_poison

DATA = random_dataset([6, 6], (8, 10))
GREY = random_dataset([3, 3], (8, 8), channels=1)
N = len(DATA.train)


def deltas_of(dataset: Dataset, levels: int = 8, seed: int = 0) -> torch.Tensor:
    """Whole levels that no clean image clips, so that images and perturbations say the same."""
    rng = torch.Generator().manual_seed(seed)
    clean = dataset.train.images.int()
    made = torch.randint(-levels, levels + 1, clean.shape, generator=rng)
    return (clean + made).clamp(0, 255) - clean


DELTAS = deltas_of(DATA)
IMAGES = (DATA.train.images.int() + DELTAS).to(torch.uint8)


def save_any(path: Path, array: np.ndarray) -> None:
    """Write an array as the ending says; `.2.pkl` is a pickle of protocol 2."""
    tensor = torch.from_numpy(array) if path.suffix in (".pt", ".pth", ".safetensors") else None
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, noise=array)
    elif path.suffix == ".safetensors":
        save_file({"noise": tensor}, path)
    elif path.suffix == ".pt":
        torch.save(tensor, path)
    elif path.suffix == ".pth":
        content = {"noise": tensor, "epoch": 3}
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(array, protocol=int(path.stem[-1])))


def reread(
    path: Path, dataset: Dataset = DATA, **reading: Any
) -> tuple[torch.Tensor, dict[str, Any]]:
    poison, read = read_poison(path, dataset, Reading(**reading))
    return poison.images, read


FORMS = [".npy", ".npz", ".safetensors", ".pt", ".pth", ".0.pkl", ".2.pkl", ".4.pkl", ".5.pkl"]


def write_pngs(folder: Path, classes: bool = False, prefix: str = "") -> None:
    for i, image in enumerate(IMAGES.permute(0, 2, 3, 1).numpy()):
        place = folder / str(int(DATA.train.labels[i])) if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{prefix}{i}.png")
