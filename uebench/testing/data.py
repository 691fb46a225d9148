"""Small random data sets of every shape that a method may meet, and runs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..data import Dataset, from_arrays
from ..methods.base import Facts
from ..methods.run import Run

SURROGATE = "resnet8[width=8]"
"""The network that attacks craft with in these tests."""


def random_dataset(
    sizes: list[int], side: tuple[int, int] = (16, 16), seed: int = 0, channels: int = 3
) -> Dataset:
    """Return random images, `sizes[label]` training images of each class and one test image."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = rng.integers(0, 256, (len(labels), *side, channels), dtype=np.uint8)
    test = rng.integers(0, 256, (len(sizes), *side, channels), dtype=np.uint8)
    return from_arrays("random", (images, labels), (test, np.arange(len(sizes))), None)


def _one_class_of_two() -> Dataset:
    """Return two classes of which one has no images, as with `--craft-on subset`."""
    dataset = random_dataset([6, 6])
    rows = (dataset.train.labels == 1).nonzero().squeeze(1)
    return replace(dataset, train=dataset.train.subset(rows))


_MAKERS: dict[str, Callable[[], Dataset]] = {
    "two classes": lambda: random_dataset([6, 6]),
    "unequal classes": lambda: random_dataset([1, 9, 3]),
    "a hundred classes": lambda: random_dataset([2] * 100),
    "odd and oblong": lambda: random_dataset([4, 4], (19, 13)),
    "small": lambda: random_dataset([4, 4], (8, 8)),
    "64 px": lambda: random_dataset([3, 3], (64, 64)),
    "grey": lambda: random_dataset([4, 4], channels=1),
    "a class without images": _one_class_of_two,
    "224 px": lambda: random_dataset([2, 2], (224, 224)),
}
CASES = tuple(_MAKERS)
"""The names of the data sets, the large one last."""
LARGE = ("224 px",)
"""Those that take long."""


def case(name: str) -> Dataset:
    """Return a new copy of a data set, since a faulty method may change images in place."""
    return _MAKERS[name]()


def facts_of(dataset: Dataset, epochs: int = 4) -> Facts:
    """Return what a method may know about a cell on a data set."""
    return Facts("test", dataset.n_classes, dataset.shape, epochs, SURROGATE)


def make_run(dataset: Dataset, seed: int = 0, **options: object) -> Run:
    """Return a run on the CPU for a data set."""
    return Run(shape=dataset.shape, n_classes=dataset.n_classes, seed=int(seed), **options)  # type: ignore[arg-type]
