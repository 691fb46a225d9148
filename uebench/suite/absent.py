"""What is known of a named data set whose files are not on this machine.

Enough to lay out a table of which nothing was computed here: cells that are planned on a stand-in
have keys of their own, which no store holds.
"""

from __future__ import annotations

from typing import NamedTuple

from ..cells.cell import DatasetRef
from ..common.spec import parse_spec


class Known(NamedTuple):
    """Classes and shape of a named data set, and how many training images it has."""

    n_classes: int
    shape: tuple[int, int, int]
    n_train: int
    class_names: tuple[str, ...] = ()


_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

KNOWN = {
    "cifar10": Known(10, (3, 32, 32), 50_000, tuple(_CIFAR10.split())),
    "cifar100": Known(100, (3, 32, 32), 50_000),
    "svhn": Known(10, (3, 32, 32), 73_257),
    "imagenet_subset": Known(100, (3, 224, 224), 0),
}
"""The data sets that papers' tables are about. ImageNet-subset has no one size."""


def stand_in(spec: str) -> DatasetRef | None:
    """Return a reference to a data set that is not here, or None where nothing is known of it."""
    if ":" in spec:
        return None
    known = KNOWN.get(parse_spec(spec).name)
    if known is None:
        return None
    names = known.class_names or tuple(map(str, range(known.n_classes)))
    return DatasetRef(spec.strip(), f"absent: {spec}", known.n_classes, known.shape, names)
