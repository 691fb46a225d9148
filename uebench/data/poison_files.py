"""Measure a poison against its clean data set, whoever made it.

Files are read by `uebench.data.foreign` and written by `uebench.data.poison_writing`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..common.spec import printable
from ..store.arrays import chunks
from .dataset import Dataset
from .poison import Budget, Measured, Poison, check_fits, measure, tensors_sha256

_POSITIONS = "by an array `index`, or by file names <index>.png"
_MISPLACED = 0.1
"""Largest share of images that may resemble another original more than their own."""


def audit_poison(poison: Poison, dataset: Dataset, own_labels: bool = True) -> dict[str, Any]:
    """Return what a poison changed: norms, visibility, which budgets it keeps, labels that differ.

    Where a sha256 was recorded with it, `as_recorded` says whether its content still has it, and
    `made_from` is the data set that it was made from, if its record names another one. It is not
    `usable` if its labels or its images are those of the clean set in another order.

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
    fault = _order_fault(labels, poison.labels, dataset) or _place_fault(poison, dataset)
    worst = {norm: int(getattr(measured, norm).argmax()) for norm in ("linf", "l2")}
    return {
        "images": len(poison),
        "training_images": len(train),
        "made_from": _other_dataset(poison, dataset),
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


def _other_dataset(poison: Poison, dataset: Dataset) -> str | None:
    """Return the data set that a poison's record names, or None if it is the given one or unknown.

    Names are not compared, since one data set may have several.
    """
    fingerprint = poison.meta.get("fingerprint")
    if not isinstance(fingerprint, str) or fingerprint == dataset.fingerprint:
        return None
    return printable(str(poison.meta.get("dataset", "an unnamed data set")))


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
        "bring it into the order of the training set, or give the positions in it " + _POSITIONS
    )


def _place_fault(poison: Poison, dataset: Dataset) -> str | None:
    """Return in words that images are those of the clean set in another order, or None.

    This is all that can be said of the order of a file without labels.
    """
    misplaced = _n_misplaced(dataset.train.images, poison)
    if misplaced <= _MISPLACED * len(poison):
        return None
    return (
        f"{misplaced} of {len(poison)} images resemble the one before their own in {dataset.name} "
        "more than their own: the file is in another order, or was not made from this data set; "
        "bring it into the order of the training set, give the positions in it "
        f"{_POSITIONS}, or name the right data set"
    )


def _n_misplaced(clean: UInt8[Tensor, "m c h w"], poison: Poison) -> int:
    """Return how many changed images resemble another original more than their own.

    The other is the original of the image before, and the last one's for the first. An image
    resembles it more if it is both nearer to it in l2 and correlated more with it: class-wise noise
    can mislead the correlation, and a change of contrast the distance. In a random order of
    CIFAR-10 that is a third of the images, and in its poisons hardly one.
    """
    count = 0
    for part in chunks(poison.images):
        changed = poison.images[part].flatten(1).float()
        (near, alike), (other_near, other_alike) = (
            _resemblance(changed, clean[rows[part]].to(changed.device).flatten(1).float())
            for rows in (poison.index, poison.index.roll(1))
        )
        count += int(((other_near > near) & (other_alike > alike)).sum())
    return count


def _resemblance(
    x: Float[Tensor, "b p"], y: Float[Tensor, "b p"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return the negative l2 distance and the correlation of pairs; 0 for images of one colour."""
    standard = (F.normalize(z - z.mean(1, keepdim=True)) for z in (x, y))
    return -(x - y).norm(dim=1), torch.mul(*standard).sum(1)
