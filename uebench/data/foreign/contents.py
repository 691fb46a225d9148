"""The arrays of a foreign file by name, and which of them holds the images."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.spec import shorten
from ..poison import PoisonError
from .limits import Limits, shown_shape

Numbers = NDArray[Any]

_LABEL_WORDS = frozenset({"label", "labels", "target", "targets", "y", "fine"})
_INDEX_WORDS = frozenset({"index", "indices", "indexes", "idx"})
_OF_THE_TRAINING_SET = frozenset({"train", "training"})
_OF_SOMETHING_ELSE = frozenset({"test", "val", "valid", "validation", "coarse", "names"})


@dataclass(frozen=True, eq=False)
class Foreign:
    """A file's arrays of numbers.

    Attributes:
        form: the kind of file, such as `npz`.
        arrays: by name; the lone array of a file without names is called `array`.
        record: the content of the `meta.json` next to it, or nothing.
        unread: what the file has besides arrays of numbers: names, and what they are.
    """

    form: str
    arrays: dict[str, Numbers]
    record: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The array of images or perturbations, with the labels and index of the file, if any.

    `unused` describes what else in the file has numbers or names, and may have been meant.
    """

    name: str
    values: Numbers
    labels: Numbers | None
    index: Numbers | None
    unused: list[str]


def choose(foreign: Foreign, key: str | None, limits: Limits, who: str) -> Chosen:
    """Return the array named by `key`, or the only one that may hold images of this data set.

    Raises:
        PoisonError: there is no such array, or there are several and no `key` says which.
    """
    arrays = {name: _unfolded(array, limits) for name, array in foreign.arrays.items()}
    c, h, w = limits.shape
    layouts = f"[n, {h}, {w}, {c}] or [n, {c}, {h}, {w}]"
    if key is not None:
        if key not in arrays:
            raise PoisonError(f"--key {shorten(key)}: {who} has {described(foreign)}")
        name = key
    else:
        fitting = [name for name, array in arrays.items() if layout_of(array.shape, limits)]
        if not fitting:
            raise PoisonError(
                f"{who} has no array of images of {limits.name}, {layouts}; it has "
                f"{described(foreign)}"
            )
        if len(fitting) > 1:
            names = ", ".join(shorten(name) for name in fitting[:8])
            raise PoisonError(f"{who} has several arrays of images; say which by --key: {names}")
        name = fitting[0]
    values = arrays[name]
    if not layout_of(values.shape, limits):
        raise PoisonError(
            f"{who}: {shorten(name)} has the shape {shown_shape(values.shape)}; images of "
            f"{limits.name} are {layouts}"
        )
    if not len(values):
        raise PoisonError(f"{who}: {shorten(name)} holds no images; at least 1 is needed")
    others = {each: array for each, array in foreign.arrays.items() if each != name}
    label_name, labels = _numbered(others, _LABEL_WORDS, len(values), who)
    index_name, index = _numbered(others, _INDEX_WORDS, len(values), who)
    if labels is None:
        label_name, labels = _only_numbers(others, len(values))
    if labels is not None and not 0 <= labels.min() <= labels.max() < limits.n_classes:
        raise PoisonError(
            f"{who}: {shorten(label_name)} holds classes {labels.min()}..{labels.max()}; those of "
            f"{limits.name} are 0..{limits.n_classes - 1}"
        )
    unused = {
        each: array
        for each, array in others.items()
        if each not in (label_name, index_name) and array.size > 1
    }
    return Chosen(name, values, labels, index, _named(unused) + _unread(foreign))


def layout_of(shape: tuple[int, ...], limits: Limits) -> str:
    """Return `nchw`, `nhwc`, or an empty text; images have more pixels than channels on a side."""
    if len(shape) != 4:
        return ""
    c, h, w = limits.shape
    return "nchw" if shape[1:] == (c, h, w) else "nhwc" if shape[1:] == (h, w, c) else ""


def described(foreign: Foreign) -> str:
    """Return a file's arrays in words: `images uint8 [5, 8, 8, 3], y int64 [5]`."""
    arrays = _named(foreign.arrays)
    more = f" and {len(arrays) - 8} more" if len(arrays) > 8 else ""
    unread = f"; not read: {', '.join(_unread(foreign)[:8])}" if foreign.unread else ""
    return (", ".join(arrays[:8]) or "no arrays of numbers") + more + unread


def _named(arrays: Mapping[str, Numbers]) -> list[str]:
    return [
        f"{shorten(name)} {array.dtype} {shown_shape(array.shape)}"
        for name, array in arrays.items()
    ]


def _unread(foreign: Foreign) -> list[str]:
    return [f"{shorten(name)} ({what})" for name, what in foreign.unread.items()]


def is_image(shape: tuple[int, ...], limits: Limits) -> bool:
    """Return whether one image of the data set may have this shape."""
    grey = limits.shape[0] == 1 and shape == limits.shape[1:]
    return grey or layout_of((1, *shape), limits) != ""


def _unfolded(array: Numbers, limits: Limits) -> Numbers:
    """Return grey images [n, h, w] with a channel, and rows of 8-bit pixels as images."""
    if array.ndim == 3 and is_image(array.shape[1:], limits):
        return array[..., None]
    if array.ndim == 2 and array.shape[1] == math.prod(limits.shape) and array.dtype == np.uint8:
        return _from_rows(array, limits.shape)
    return array


def _from_rows(rows: Numbers, shape: tuple[int, int, int]) -> Numbers:
    """Return rows of pixels as images, [n, c, h, w] as in CIFAR's files or else [n, h, w, c].

    The right reading has the smaller differences between pixels that lie one above the other; on
    CIFAR-10 a third of those of the wrong one. Without such a difference CIFAR's order is assumed.
    """
    c, h, w = shape
    planes, pixels = rows.reshape(-1, c, h, w), rows.reshape(-1, h, w, c)
    sample = slice(0, 256)
    of_planes = np.abs(np.diff(planes[sample].astype(np.int16), axis=2)).mean()
    of_pixels = np.abs(np.diff(pixels[sample].astype(np.int16), axis=1)).mean()
    return pixels if of_pixels < 0.8 * of_planes else planes


def _numbered(
    arrays: Mapping[str, Numbers], words: frozenset[str], n: int, who: str
) -> tuple[str, Numbers | None]:
    """Return labels or an index as int64 [n] with their name, or None if the file has none.

    The name is one of `words`, perhaps with `train`, as in `train_labels` or `y_train`. A longer
    one, as in `noisy_labels`, counts if nothing has a plain name and the numbers fit.

    Raises:
        PoisonError: an array with a plain name is not one whole number per image.
    """
    candidates = []
    for name, array in arrays.items():
        parts = _words(name.rpartition(".")[2])  # a dot leads into a dict
        if parts & words and not _words(name) & _OF_SOMETHING_ELSE:
            is_plain = not parts - words - _OF_THE_TRAINING_SET
            candidates.append((not is_plain, name, array))
    for is_longer, name, array in sorted(candidates, key=lambda each: each[0]):
        numbers = _one_per_image(array, n)
        if numbers is not None:
            return name, numbers
        if not is_longer:
            raise PoisonError(
                f"{who}: {shorten(name)} must be whole numbers [{n}], one per image, got "
                f"{array.dtype} {shown_shape(array.shape)}"
                + (f" up to {array.max()}" if array.dtype == np.uint64 and array.size else "")
            )
    return "", None


def _words(name: str) -> set[str]:
    return set(re.split("[^a-z]+", name.lower())) - {""}


def _only_numbers(arrays: Mapping[str, Numbers], n: int) -> tuple[str, Numbers | None]:
    """Return the labels of a file without names, such as a pair of images and labels."""
    unnamed = {name: array for name, array in arrays.items() if name.rpartition(".")[2].isdecimal()}
    fitting = {
        name: numbers
        for name, array in unnamed.items()
        if (numbers := _one_per_image(array, n)) is not None
    }
    return next(iter(fitting.items())) if len(fitting) == 1 else ("", None)


def _one_per_image(array: Numbers, n: int) -> Numbers | None:
    """Return whole numbers [n], also from [n, 1] or one-hot rows; None if it is not that."""
    if array.ndim == 2 and len(array) == n and array.shape[1] > 1:
        is_one_hot = (np.isin(array, (0, 1)).all(1) & (array.sum(1) == 1)).all()
        return array.argmax(1) if is_one_hot else None
    if array.shape not in ((n,), (n, 1)) or array.dtype.kind not in "iu":
        return None
    if array.dtype == np.uint64 and array.max() >= 2**63:
        return None
    return array.reshape(n).astype(np.int64)
