"""Write a poison: an .npz, a .safetensors or a folder of `<index>.png`, each with a `meta.json`."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ..common.drafts import FILE_ENDINGS, new_folder, replaced_file
from ..common.spec import split_path
from ..common.text import write_text
from ..store.arrays import chunks, zeros
from .conversion import PoisonError
from .dataset import Dataset
from .pictures import PoisonLike


def check_target(path: Path, option: str = "--out") -> None:
    """Check that a file, or for a poison a folder, can be written at `path`.

    Raises:
        PoisonError: it is there already, its folder cannot be written, or its ending promises a
            format that is not written.
    """
    is_poison = option != "--picture"
    if is_poison and path.suffix in FILE_ENDINGS and path.suffix not in (".npz", ".safetensors"):
        raise PoisonError(
            f"{option} {path}: {path.suffix} is not written; give FILE.npz, FILE.safetensors or a "
            "folder for PNG files"
        )
    if path.exists() and not (path.is_dir() and not any(path.iterdir()) and is_poison):
        raise PoisonError(f"{option} {path} is there already; choose another name or remove it")
    parent = path.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise PoisonError(f"{option} {path}: {parent} cannot be written; choose another folder")


def write_poison(poison: PoisonLike, path: Path, dataset: Dataset, spec: str = "") -> None:
    """Write a poison as .npz, .safetensors or, under any other name, as a folder of PNG files.

    Its record, `meta.json`, lies in the folder or next to the file. There it comes first, since a
    file without its budget would look complete. `spec` is how the user named the data set, which
    is recorded without the folders of a path, since these are private.
    """
    meta = {**poison.meta, "dataset": dataset.name, "fingerprint": dataset.fingerprint}
    if spec:
        kind, colon, rest = spec.rpartition(":")
        typed, options = split_path(rest)
        meta["dataset_spec"] = f"{kind}{colon}{Path(typed).name}{options}"
    meta |= {"seed": poison.meta.get("recipe", {}).get("seed")}
    text = json.dumps(meta, indent=1) + "\n"
    if path.suffix not in (".npz", ".safetensors"):
        with new_folder(path) as draft:
            _write_folder(poison, draft)
            (draft / "meta.json").write_text(text)
        return
    with replaced_file(path) as draft:
        arrays = _arrays(poison)
        if path.suffix == ".npz":
            np.savez(draft, images=arrays["images"], labels=arrays["labels"], index=arrays["index"])
        else:
            save_file(arrays, draft)
        write_text(path.with_name(f"{path.name}.meta.json"), text)


def _arrays(poison: PoisonLike) -> dict[str, Tensor]:
    """Return what a file holds: images uint8 [n, h, w, c], labels and index."""
    n, c, h, w = poison.images.shape
    images = zeros((n, h, w, c), torch.uint8)
    for part in chunks(images):
        images[part] = poison.images[part].permute(0, 2, 3, 1)
    return {"images": images, "labels": poison.labels, "index": poison.index}


def _write_folder(poison: PoisonLike, folder: Path) -> None:
    for image, index in zip(poison.images, poison.index.tolist(), strict=True):
        flat = image[0] if len(image) == 1 else image.permute(1, 2, 0).contiguous()
        Image.fromarray(flat.numpy()).save(folder / f"{index}.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label"])
        writer.writerows(zip(poison.index.tolist(), poison.labels.tolist(), strict=True))
