"""A data set: a training and a test split, and the fingerprint that identifies their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.errors import UserError
from ..common.notebook import pictures_html, png_bytes
from ..common.spec import printable
from ..common.text import counted
from ..store.arrays import add_bytes
from ..store.store import Store
from .conversion import CHANNELS, in_levels
from .pictures import samples
from .split import Split

MOST_CLASSES = 100_000


class DatasetError(UserError):
    """A data set cannot be used; the message says what is wrong and what to do."""


def error_text(error: Exception) -> str:
    """Return the text of an error on one printable line."""
    return printable(" ".join(str(error).split())) or type(error).__name__


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training and test images of the same classes and size.

    Attributes:
        name: its name in tables, such as `cifar10`.
        train: the clean training set.
        test: the clean test set.
        fingerprint: sha256 of images and labels of both, and of the number of classes.
        train_files: the name CLASS/NAME of each training image in the folder that it was read
            from, or nothing if the set was not read from a folder.
    """

    name: str
    train: Split
    test: Split
    fingerprint: str
    train_files: tuple[str, ...] = ()

    def __repr__(self) -> str:
        c, h, w = self.shape
        return (
            f"Dataset {self.name}: {len(self.train):,} training and {len(self.test):,} test images "
            f"[{c}, {h}, {w}] of {self.n_classes} classes"
        )

    def _repr_html_(self) -> str:
        """Return a summary with training images of the first classes, which notebooks display."""
        picture = png_bytes(samples(self.train))
        return pictures_html(f"{self}", [(f"training images of {self.name}", picture)])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.train.n_classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, in order of the labels."""
        return self.train.class_names

    @property
    def chance(self) -> float:
        """Test accuracy of a model that predicts the largest class for every image."""
        return self.test.labels.bincount().max().item() / len(self.test)


def from_arrays(
    name: str, train: tuple[Any, Any], test: tuple[Any, Any], class_names: Sequence[str] | None
) -> Dataset:
    """Return a data set from pairs of images uint8 [n, h, w, c] and labels, whole numbers [n].

    They may be numpy arrays, tensors or lists. Without class names, the largest label gives the
    number of classes.

    Raises:
        DatasetError: wrong types or shapes, labels out of range, or a class without an image.
    """
    train, test = [(np.asarray(images), np.asarray(labels)) for images, labels in (train, test)]
    top = 0
    for part, (_, labels) in (("train", train), ("test", test)):
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
            raise DatasetError(
                f"{name}: {part}_labels must be whole numbers [n] with n > 0, got "
                f"{labels.dtype} {list(labels.shape)}"
                + ("; give labels.argmax(1) if these are one-hot" if labels.ndim == 2 else "")
            )
        top = max(top, int(labels.max()))
    k = len(class_names) if class_names is not None else top + 1
    if k > MOST_CLASSES:
        raise DatasetError(f"{name}: claims {k} classes; at most {MOST_CLASSES} are read")
    texts = map(str, range(k) if class_names is None else class_names)
    names = tuple(map(printable, texts))  # they are printed in terminals and tables
    return from_splits(
        name, _split(name, "train", *train, names), _split(name, "test", *test, names)
    )


def from_splits(name: str, train_split: Split, test_split: Split) -> Dataset:
    """Return a data set from two splits of the same classes, whose images may be mapped.

    Raises:
        DatasetError: sizes differ, there are fewer than two classes, or a class has no image.
    """
    names, k = train_split.class_names, train_split.n_classes
    if train_split.shape != test_split.shape:
        raise DatasetError(
            f"{name}: training images are {_size(train_split)} and test images "
            f"{_size(test_split)}; they must have one size"
        )
    h, w = train_split.shape[1:]
    if min(h, w) < 4:
        raise DatasetError(f"{name}: images of {h}x{w} px are too small; 4 px is least")
    if k < 2:
        raise DatasetError(f"{name}: has {k} class; a data set needs at least 2")
    empty = [label for label, size in enumerate(train_split.class_sizes) if not size]
    if empty:
        tested = sum(test_split.class_sizes[label] for label in empty)
        but = f", but {counted(tested, 'test image')}" if tested else ""
        raise DatasetError(
            f"{name}: no training image of class {', '.join(names[label] for label in empty[:5])}"
            f"{but}; every class needs one, so check the labels of both parts"
        )
    return Dataset(name, train_split, test_split, _fingerprint(train_split, test_split))


def keep_dataset(store: Store, dataset: Dataset) -> None:
    """Write a data set into the store, from which the worker processes read it."""
    if store.read("dataset", dataset.fingerprint) is None:
        tensors = {
            "train_images": dataset.train.images,
            "train_labels": dataset.train.labels,
            "test_images": dataset.test.images,
            "test_labels": dataset.test.labels,
        }
        record = {"name": dataset.name, "class_names": list(dataset.class_names)}
        store.write("dataset", dataset.fingerprint, record, tensors)


def stored_dataset(store: Store, name: str, fingerprint: str) -> Dataset | None:
    """Return a data set from the store, or None if it is missing or spoiled.

    A large one is memory-mapped, so that all processes on a machine share one copy.
    """
    entry = store.read("dataset", fingerprint)
    if entry is None:
        return None
    tensors, record = entry
    names = tuple(record["class_names"])
    return Dataset(
        name,
        Split(tensors["train_images"], tensors["train_labels"], names),
        Split(tensors["test_images"], tensors["test_labels"], names),
        fingerprint,
    )


def _split(name: str, part: str, images: Any, labels: Any, names: tuple[str, ...]) -> Split:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in CHANNELS:
        got, turn = f"got uint8 {list(images.shape)}", ""
        if images.ndim == 4 and images.shape[3] not in CHANNELS and images.shape[1] in CHANNELS:
            turn = ".transpose(0, 2, 3, 1)"
        if images.dtype != np.uint8:
            got = in_levels(images, "images", turn)
        elif turn:
            got += f"; give images{turn}"
        raise DatasetError(f"{name}: {part}_images must be uint8 [n, h, w, 3], {got}")
    if len(images) != len(labels):
        raise DatasetError(
            f"{name}: {len(images)} {part}_images but {len(labels)} {part}_labels; "
            "each image needs one label"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(names):
        wrong = low if low < 0 else high
        raise DatasetError(
            f"{name}: {part}_labels holds {wrong}; with {len(names)} classes labels must lie in "
            f"0..{len(names) - 1}"
        )
    return Split(
        torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        torch.from_numpy(labels.astype(np.int64)),
        names,
    )


def first_of_each_class(labels: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return n sorted indices: the first image of each class, then each second one, and so on."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        rank[mine] = np.arange(len(mine))
    return np.sort(np.argsort(rank, kind="stable")[:n])


def _size(split: Split) -> str:
    c, h, w = split.shape
    return f"{h}x{w}x{c}"


def _fingerprint(train: Split, test: Split) -> str:
    """Return the sha256 of all images, labels and the number of classes."""
    digest = hashlib.sha256(f"{train.n_classes}".encode())
    for split in (train, test):
        digest.update(f"{tuple(split.images.shape)}".encode())
        add_bytes(digest, split.images)
        add_bytes(digest, split.labels)
    return digest.hexdigest()
