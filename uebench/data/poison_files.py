"""Poison files: an .npz, a .safetensors or a folder of `<index>.png`, each with a `meta.json`.

`audit_poison` measures any poison against its clean data set, whoever made it; files are read by
`uebench.data.foreign`.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ..common.drafts import new_folder, replaced_file
from ..common.spec import split_path
from ..common.text import write_text
from ..store.arrays import chunks, zeros
from .dataset import Dataset
from .poison import Budget, Measured, Poison, PoisonError, check_fits, measure, tensors_sha256

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


def write_poison(poison: Poison, path: Path, dataset: Dataset, spec: str = "") -> None:
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


def _arrays(poison: Poison) -> dict[str, Tensor]:
    """Return what a file holds: images uint8 [n, h, w, c], labels and index."""
    n, c, h, w = poison.images.shape
    images = zeros((n, h, w, c), torch.uint8)
    for part in chunks(images):
        images[part] = poison.images[part].permute(0, 2, 3, 1)
    return {"images": images, "labels": poison.labels, "index": poison.index}


def _write_folder(poison: Poison, folder: Path) -> None:
    for image, index in zip(poison.images, poison.index.tolist(), strict=True):
        flat = image[0] if len(image) == 1 else image.permute(1, 2, 0).contiguous()
        Image.fromarray(flat.numpy()).save(folder / f"{index}.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label"])
        writer.writerows(zip(poison.index.tolist(), poison.labels.tolist(), strict=True))


def audit_poison(poison: Poison, dataset: Dataset, own_labels: bool = True) -> dict[str, Any]:
    """Return what a poison changed: norms, visibility, which budgets it keeps, labels that differ.

    Where a sha256 was recorded with it, `as_recorded` says whether its content still has it. It is
    not `usable` if its labels are those of the clean set in another order.

    Args:
        poison: the poison.
        dataset: the clean data set that it was made from.
        own_labels: whether the poison came with labels; without, none can be said to agree.

    Raises:
        PoisonError: its images have another size, or its indices do not fit the data set.
    """
    train = dataset.train
    check_fits(poison, train, dataset.name)
    measured = measure(train.images, poison.images, poison.index)
    budgets = _budgets(measured, dataset.shape)
    labels = train.labels[poison.index]
    differing = (labels != poison.labels).nonzero().squeeze(1)
    recorded, sha256 = poison.meta.get("sha256"), tensors_sha256(poison)
    fault = _order_fault(labels, poison.labels, dataset)
    worst = {norm: int(getattr(measured, norm).argmax()) for norm in ("linf", "l2")}
    return {
        "images": len(poison),
        "training_images": len(train),
        **measured.record(),
        **{f"{norm}_worst_index": int(poison.index[row]) for norm, row in worst.items()},
        "budgets": budgets,
        "budgets_kept": {name: budget["images"] == len(poison) for name, budget in budgets.items()},
        "labels_differ": len(differing) if own_labels else None,
        "labels_differ_at": poison.index[differing][:10].tolist(),
        "order_kept": bool((poison.index[1:] > poison.index[:-1]).all()),
        "sha256": sha256,
        "as_recorded": None if recorded is None else recorded == sha256,
        "usable": fault is None,
        "why_not_usable": fault,
    }


def _budgets(measured: Measured, shape: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """Return for each usual budget how many images keep it, and the limit on 8-bit images.

    `rounding` is the part of the limit that allows for rounding to 8 bits; see `Budget.allowed`.
    """
    usual = {f"linf {levels}/255": Budget("linf", levels / 255) for levels in (4, 8, 16, 24)}
    usual |= {f"l2 {eps}": Budget("l2", eps) for eps in (0.5, 1.0, 1.304)}
    usual |= {f"l0 {pixels}": Budget("l0", pixels) for pixels in (1, 2, 4)}
    units = {"linf": "levels of 255", "l0": "pixels", "l2": "pixel range"}
    budgets = {}
    for name, budget in usual.items():
        values, allowed = getattr(measured, budget.norm), budget.allowed(shape)
        kept = int((values <= allowed).sum())
        budgets[name] = {
            "images": kept,
            "share": kept / len(values),
            "limit": allowed,
            "unit": units[budget.norm],
            "rounding": allowed - (budget.eps or 0) if budget.norm == "l2" else 0.0,
        }
    return budgets


def _order_fault(clean: Tensor, given: Tensor, dataset: Dataset) -> str | None:
    """Return in words that labels are the clean ones in another order, or None.

    Labels that an attack changed seldom have each class exactly as often as before. A random order
    of two equal classes leaves half of the labels as they were, so most is less there.
    """
    sizes = clean.bincount(minlength=dataset.n_classes)
    if not torch.equal(sizes, given.bincount(minlength=dataset.n_classes)):
        return None
    in_random_order = 1 - (sizes.double() / len(clean)).square().sum().item()
    differing = int((clean != given).sum())
    if differing <= len(clean) * min(0.5, 0.8 * in_random_order):
        return None
    return (
        f"{differing} of {len(clean)} labels differ, but each class is as frequent as in "
        f"{dataset.name}: the file is in another order, or numbers its classes in another way; "
        "bring it into the order of the training set, or add an array `index` of positions in it"
    )
