"""Poison files: an .npz, a .safetensors or a folder of `<index>.png`, each with a `meta.json`.

`audit_poison` measures any poison against its clean data set, whoever made it; files are read by
`uebench.data.foreign`.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors.torch import save_file
from torch import Tensor

from ..common.drafts import new_folder, replaced_file
from ..common.text import write_text
from ..store.arrays import chunks, zeros
from .dataset import Dataset
from .poison import Budget, Poison, PoisonError, check_fits, measure, tensors_sha256

NOT_WRITTEN = (".npy", ".pt", ".pth", ".pkl", ".pickle", ".zip", ".tar", ".gz", ".png", ".h5")
"""Endings that nobody means a folder by."""


def check_target(path: Path, option: str = "--out") -> None:
    """Check that a file, or for a poison a folder, can be written at `path`.

    Raises:
        PoisonError: it is there already, its folder cannot be written, or its ending promises a
            format that is not written.
    """
    if option == "--out" and path.suffix.lower() in NOT_WRITTEN:
        raise PoisonError(
            f"--out {path}: {path.suffix} is not written; give FILE.npz, FILE.safetensors or a "
            "folder for PNG files"
        )
    if path.exists() and not (path.is_dir() and not any(path.iterdir()) and option == "--out"):
        raise PoisonError(f"{option} {path} is there already; choose another name or remove it")
    parent = path.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise PoisonError(f"{option} {path}: {parent} cannot be written; choose another folder")


def write_poison(poison: Poison, path: Path, dataset: Dataset) -> None:
    """Write a poison as .npz, .safetensors or, under any other name, as a folder of PNG files.

    Its record, `meta.json`, lies in the folder or next to the file. There it comes first, since a
    file without its budget would look complete.
    """
    meta = {**poison.meta, "dataset": dataset.name, "fingerprint": dataset.fingerprint}
    meta |= {"seed": poison.meta.get("recipe", {}).get("seed")}
    text = json.dumps(meta, indent=1) + "\n"
    if path.suffix not in (".npz", ".safetensors"):
        with new_folder(path) as draft:
            _write_folder(poison, draft)
            (draft / "meta.json").write_text(text)
        return
    with replaced_file(path) as draft:
        if path.suffix == ".npz":
            images, labels, index = _arrays(poison).values()
            np.savez(draft, images=images, labels=labels, index=index)
        else:
            save_file(_arrays(poison), draft)
        write_text(_meta_path(path), text)


def _arrays(poison: Poison) -> dict[str, Tensor]:
    """Return what a file holds: images uint8 [n, h, w, c], labels and index."""
    n, c, h, w = poison.images.shape
    images = zeros((n, h, w, c), torch.uint8)
    for part in chunks(images):
        images[part] = poison.images[part].permute(0, 2, 3, 1)
    return {"images": images, "labels": poison.labels, "index": poison.index}


def _write_folder(poison: Poison, folder: Path) -> None:
    """Write images as `<index>.png`, and their labels."""
    for image, index in zip(poison.images, poison.index.tolist(), strict=True):
        flat = image[0] if len(image) == 1 else image.permute(1, 2, 0).contiguous()
        Image.fromarray(flat.numpy()).save(folder / f"{index}.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label"])
        writer.writerows(zip(poison.index.tolist(), poison.labels.tolist(), strict=True))


def _meta_path(path: Path) -> Path:
    """Return where the record of a poison's file lies."""
    return path.with_name(f"{path.name}.meta.json")


def audit_poison(poison: Poison, dataset: Dataset) -> dict[str, Any]:
    """Return what a poison changed: norms, visibility, which budgets it keeps, labels that differ.

    Where a sha256 was recorded with it, `as_recorded` says whether its content still has it.

    Raises:
        PoisonError: its images have another size, or its indices do not fit the data set.
    """
    train = dataset.train
    check_fits(poison, train, dataset.name)
    measured = measure(train.images, poison.images, poison.index)
    differing = (train.labels[poison.index] != poison.labels).nonzero().squeeze(1)
    recorded, sha256 = poison.meta.get("sha256"), tensors_sha256(poison)
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
    budgets |= {f"l0 {pixels}": bool(measured.l0.max() <= pixels) for pixels in (1, 2, 4)}
    return {
        "images": len(poison),
        "training_images": len(train),
        **measured.record(),
        "budgets_kept": budgets,
        "labels_differ": len(differing),
        "labels_differ_at": poison.index[differing][:10].tolist(),
        "order_kept": bool((poison.index[1:] > poison.index[:-1]).all()),
        "sha256": sha256,
        "as_recorded": None if recorded is None else recorded == sha256,
    }


def print_audit(audit: dict[str, Any]) -> None:
    """Print an audit as a table to stdout."""
    table = Table("measured", "value", box=None, pad_edge=False)
    for key, value in audit.items():
        if key == "budgets_kept":
            holding = [name for name, ok in value.items() if ok]
            table.add_row("budgets kept", ", ".join(holding) or "none of the usual ones")
        else:
            table.add_row(
                key.replace("_", " "), Text(f"{value}")
            )  # a name must not be read as markup
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
