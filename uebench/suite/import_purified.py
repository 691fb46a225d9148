"""Register a training set that somebody else purified as a defense: `import_purified`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..cells.cell import PoisonRef
from ..common.spec import PURIFIED, printable
from ..data import Dataset
from ..data.foreign import Reading
from ..data.load import as_dataset
from ..data.poison import Poison, PoisonError, measure, tensors_sha256
from ..execute.devices import usable_devices
from ..methods.imported import poison_name
from ..methods.purified import remember_purified
from ..methods.registry import build_attack
from ..store.arrays import gathered
from ..store.store import Store
from .import_poison import read_usable
from .single import crafted_ref

_MISPLACED = 0.05
"""Largest share of purified images that may resemble another poisoned image more than their own."""


def import_purified(
    path: Path | str,
    dataset: Dataset | str,
    name: str,
    *,
    of: str,
    by: str,
    poison_seed: int = 0,
    protocol: str = "quick",
    set: Mapping[str, Any] | None = None,
    device: str = "auto",
    reading: Reading | None = None,
    replace: bool = False,
    store: Store | None = None,
) -> dict[str, Any]:
    """Register a purified training set as the defense `purified:NAME`, and return its record.

    Nothing in the file is run. Labels are those of the clean set.

    Args:
        path: a folder or zip of `<index>.png`, .npy, .npz, .safetensors, .pt, a pickle of arrays.
        dataset: the clean data set, or its name.
        name: its name from now on, without `purified:`. A name may be given again for a set that
            was made from another poison.
        of: the attack whose poison was purified, such as `em` or `imported:em_authors`. The poison
            must be in the store.
        by: the method that purified it, such as `avatar`.
        poison_seed: seed of the attack.
        protocol: the protocol whose surrogate network is the attack's default.
        set: options of the attack or of the protocol that it was crafted with; see `craft`.
        device: the device for which the poison's precision is resolved.
        reading: how to read the file where that is not obvious.
        replace: replace the images that the name already has for this poison.
        store: where it is stored; by default `$UEBENCH_HOME` or the platform's cache folder.

    Raises:
        ValueError: the file cannot be read or trusted, does not fit the poison, or is the poison or
            the clean set itself; or the poison is unknown; or the name is taken.
    """
    name, by = poison_name(name.removeprefix(PURIFIED)), by.strip()
    if not by or by != printable(by):
        raise PoisonError("--by must name the method that purified the set, such as avatar")
    store, loaded = store or Store(), as_dataset(dataset)
    ref = crafted_ref(
        of, loaded, poison_seed, protocol, set or {}, usable_devices(device)[0], store
    )
    poison = _stored(ref, of, store)
    released, how_read, _ = read_usable(path, loaded, reading or Reading())
    purified = _in_order(released, poison, f"{path}", of)
    record = {
        **how_read,
        "by": by,
        "of": str(build_attack(of)),
        "poison_seed": poison_seed,
        "poison_key": ref.key,
        "poison_sha256": tensors_sha256(poison),
        "sha256": tensors_sha256(purified),
        "images": len(purified),
        **_likeness(purified, poison, loaded, path),
        "file": printable(Path(path).name),
        "dataset": loaded.name,
    }
    remember_purified(store, name, ref.key, purified, record, replace)
    return {"name": f"{PURIFIED}{name}", **record}


def _likeness(
    purified: Poison, poison: Poison, dataset: Dataset, path: Path | str
) -> dict[str, float]:
    """Return how much purified images resemble the clean and the poisoned ones.

    Raises:
        PoisonError: they are one of the two.
    """
    likeness = {}
    for name, measured in (
        ("clean", measure(dataset.train.images, purified.images, poison.index)),
        ("poison", measure(poison.images, purified.images)),
    ):
        if not measured.linf.max():
            raise PoisonError(f"{path} is the {name} set itself; give the purified images")
        for quantity in ("psnr", "ssim"):
            likeness[f"{quantity}_to_{name}"] = measured.record()[f"{quantity}_mean"]
    return likeness


def _stored(ref: PoisonRef, attack: str, store: Store) -> Poison:
    """Return a poison from the store.

    Raises:
        PoisonError: it is clean data, or not in the store.
    """
    if ref.is_clean:
        raise PoisonError("--of none is clean data; name the attack whose poison was purified")
    entry = store.read("poison", ref.key)
    if entry is None:
        raise PoisonError(
            f"the poison of {attack} on {ref.dataset.name}, seed {ref.seed}, precision "
            f"{ref.precision}, is not in the store; give the --protocol, --set and --poison-seed "
            "that it was crafted with, or, if the file that "
            "was purified came from elsewhere, import that with `uebench import FILE --name NAME` "
            "and give --of imported:NAME"
        )
    tensors = entry[0]
    return Poison(tensors["images"], tensors["labels"], tensors["index"])


def _in_order(purified: Poison, poison: Poison, path: str, attack: str) -> Poison:
    """Return the purified images in the order of their poison.

    Raises:
        PoisonError: the file does not cover the same images, or has them in another order.
    """
    ours, theirs = poison.index.argsort(), purified.index.argsort()
    if not torch.equal(poison.index[ours], purified.index[theirs]):
        raise PoisonError(
            f"{path} has {len(purified)} images, but the poison of {attack} has {len(poison)} at "
            "other positions; give one purified image for each image of the poison"
        )
    images = gathered(purified.images, theirs[ours.argsort()], purified.images.device)
    own, other = (
        measure(poison.images, images, index).l2
        for index in (None, torch.arange(len(poison)).roll(1))
    )
    misplaced = int((own > other).sum())
    if misplaced > _MISPLACED * len(poison):
        raise PoisonError(
            f"{misplaced} of {len(poison)} images of {path} do not resemble those of the poison of "
            f"{attack} at the same positions as much as the ones next to them; bring them into the "
            "order of the training set, or name the right poison"
        )
    return Poison(images, poison.labels, poison.index)
