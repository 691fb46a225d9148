"""Poison files: an .npz, a .safetensors or a folder of `<index>.png`, each with a `meta.json`.

`audit_poison` measures any poison against its clean data set, whoever made it.
"""

from __future__ import annotations

import csv
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .data import Dataset
from .poison import Budget, Poison, measure


class PoisonError(ValueError):
    """A poison file cannot be read, or does not fit its data set."""


def check_target(path: Path) -> None:
    """See that a poison can be written to `path`.

    Raises:
        PoisonError: it is there already, or its folder cannot be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise PoisonError(f"--out {path} is there already; choose another name or remove it")
    parent = path.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise PoisonError(f"--out {path}: {parent} cannot be written; choose another folder")


def write_poison(poison: Poison, path: Path, dataset: Dataset) -> None:
    """Write a poison as .npz, .safetensors or, under any other name, as a folder of PNG files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {**poison.meta, "dataset": dataset.name, "fingerprint": dataset.fingerprint}
    images = poison.images.permute(0, 2, 3, 1).contiguous()
    arrays = {"images": images, "labels": poison.labels, "index": poison.index}
    text = json.dumps(meta, indent=1) + "\n"
    if path.suffix not in (".npz", ".safetensors"):
        path.mkdir(parents=True, exist_ok=True)
        for picture, index in zip(images.numpy(), poison.index.tolist(), strict=True):
            flat = picture.squeeze(-1) if picture.shape[-1] == 1 else picture
            Image.fromarray(flat).save(path / f"{index}.png")
        with (path / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["index", "label"])
            writer.writerows(zip(poison.index.tolist(), poison.labels.tolist(), strict=True))
        _meta_path(path).write_text(text)
        return
    draft = path.with_name(f".{path.name}.part{path.suffix}")
    if path.suffix == ".npz":
        np.savez(draft, images=images, labels=poison.labels, index=poison.index)
    else:
        save_file(arrays, draft)
    draft.replace(path)
    _meta_path(path).write_text(text)


def read_poison(path: Path) -> Poison:
    """Return the poison of a file that `write_poison` made.

    Raises:
        PoisonError: no such file, or it is not one.
    """
    if not path.exists():
        raise PoisonError(f"{path}: no such file; give an .npz, a .safetensors or a PNG folder")
    try:
        arrays = _read_arrays(path)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        EOFError,
        SafetensorError,
    ) as error:
        raise PoisonError(f"{path} is not a readable poison file ({error})") from None
    images, labels, index = (arrays.get(key) for key in ("images", "labels", "index"))
    if images is None or labels is None:
        raise PoisonError(f"{path} lacks images or labels; a poison has images, labels and index")
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] not in (1, 3):
        raise PoisonError(
            f"{path}: images must be uint8 [n, h, w, 3], got {images.dtype} {list(images.shape)}"
        )
    index = torch.arange(len(images)) if index is None else index.long()
    if not len(images) or labels.dim() != 1 or index.dim() != 1:
        raise PoisonError(f"{path}: images, labels [n] and index [n] are needed with n > 0")
    if not len(images) == len(labels) == len(index):
        raise PoisonError(
            f"{path}: {len(images)} images, {len(labels)} labels and {len(index)} indices; "
            "they must be equally many"
        )
    return Poison(
        images.permute(0, 3, 1, 2).contiguous(), labels.long(), index, _read_meta(_meta_path(path))
    )


def _meta_path(path: Path) -> Path:
    """Return where a poison's record lies: in its folder, or beside its file."""
    return path / "meta.json" if path.is_dir() else path.with_name(f"{path.name}.meta.json")


def _read_meta(path: Path) -> dict[str, Any]:
    """Return a poison's record, or nothing where there is none.

    Raises:
        PoisonError: it is not JSON of names and values.
    """
    try:
        meta = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        meta = None
    if not isinstance(meta, dict):
        raise PoisonError(f"{path} is not JSON of names and values; mend or remove it")
    return meta


def _read_arrays(path: Path) -> dict[str, torch.Tensor]:
    """Return the arrays of any of the three forms."""
    if path.is_dir():
        with (path / "labels.csv").open(newline="") as file:
            pairs = [(int(row["index"]), int(row["label"])) for row in csv.DictReader(file)]
        try:
            pictures = [np.asarray(Image.open(path / f"{index}.png")) for index, _ in pairs]
        except UnidentifiedImageError as error:
            raise ValueError(str(error)) from None
        stacked = np.stack(pictures)
        images = stacked if stacked.ndim == 4 else stacked[..., None]
        index, labels = np.array(pairs, dtype=np.int64).T
        arrays = {"images": images, "labels": labels.copy(), "index": index.copy()}
        return {key: torch.from_numpy(value) for key, value in arrays.items()}
    if path.suffix == ".safetensors":
        return load_file(path)
    with np.load(path, allow_pickle=False) as file:
        known = [key for key in ("images", "labels", "index") if key in file.files]
        return {key: torch.from_numpy(file[key]) for key in known}


def audit_poison(poison: Poison, dataset: Dataset) -> dict[str, Any]:
    """Return what a poison changed: norms, visibility, which budgets it keeps, labels that differ.

    Raises:
        PoisonError: its images have another size, or its indices do not fit the data set.
    """
    train = dataset.train
    if poison.images.shape[1:] != train.images.shape[1:]:
        raise PoisonError(
            f"the poison's images are {list(poison.images.shape[1:])}, those of {dataset.name} "
            f"{list(train.images.shape[1:])}; give the data set that it was made from"
        )
    if int(poison.index.min()) < 0 or int(poison.index.max()) >= len(train):
        raise PoisonError(
            f"the poison's index reaches {int(poison.index.max())}, {dataset.name} has "
            f"{len(train)} training images; give the data set that it was made from"
        )
    measured = measure(train.images[poison.index], poison.images)
    differing = (train.labels[poison.index] != poison.labels).nonzero().squeeze(1)
    unique = len(torch.unique(poison.index))
    budgets = {
        f"linf {levels}/255": bool(
            measured.linf.max() <= Budget("linf", levels / 255).allowed(dataset.shape)
        )
        for levels in (4, 8, 16, 24)
    }
    budgets |= {
        f"l2 {eps}": bool(measured.l2.max() <= Budget("l2", eps).allowed(dataset.shape))
        for eps in (0.5, 1.0, 1.304)
    }
    return {
        "images": len(poison),
        "training_images": len(train),
        **measured.record(),
        "budgets_kept": budgets,
        "labels_differ": len(differing),
        "labels_differ_at": poison.index[differing][:10].tolist(),
        "order_kept": bool((poison.index == torch.arange(len(poison))).all()),
        "repeated_indices": len(poison) - unique,
    }


def print_audit(found: dict[str, Any]) -> None:
    """Print an audit as a table to stdout."""
    table = Table("measured", "value", box=None, pad_edge=False)
    for key, value in found.items():
        if key == "budgets_kept":
            kept = [name for name, ok in value.items() if ok]
            table.add_row("budgets kept", ", ".join(kept) or "none of the usual ones")
        else:
            table.add_row(key.replace("_", " "), f"{value}")
    Console(highlight=False).print(table)
