"""The arrays of a foreign file by name, and which of them holds the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.spec import shorten
from ..poison import PoisonError
from .limits import Limits, shown_shape

LABEL_NAMES = ("labels", "label", "targets", "target", "train_labels", "y")
INDEX_NAMES = ("index", "indices", "idx")
Numbers = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Foreign:
    """A file's arrays of numbers.

    Attributes:
        form: the kind of file, such as `npz`.
        arrays: by name; the lone array of a file without names is called `array`.
        record: the content of the `meta.json` next to it, or nothing.
    """

    form: str
    arrays: dict[str, Numbers]
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The array of images or perturbations, with the labels and index of the file, if any."""

    name: str
    values: Numbers
    labels: Numbers | None
    index: Numbers | None


def choose(foreign: Foreign, key: str | None, limits: Limits, who: str) -> Chosen:
    """Return the array named by `key`, or the only one that may hold images of this data set.

    Raises:
        PoisonError: there is no such array, or there are several and no `key` says which.
    """
    arrays = {name: _with_channel(array, limits) for name, array in foreign.arrays.items()}
    if key is not None:
        if key not in arrays:
            raise PoisonError(f"--key {shorten(key)}: {who} has {described(foreign)}")
        name = key
    else:
        fitting = [name for name, array in arrays.items() if layout_of(array.shape, limits)]
        if not fitting:
            c, h, w = limits.shape
            raise PoisonError(
                f"{who} has no array of images of {limits.name}, [n, {h}, {w}, {c}] or "
                f"[n, {c}, {h}, {w}]; it has {described(foreign)}"
            )
        if len(fitting) > 1:
            names = ", ".join(shorten(name) for name in fitting[:8])
            raise PoisonError(f"{who} has several arrays of images; say which by --key: {names}")
        name = fitting[0]
    values = arrays[name]
    if not layout_of(values.shape, limits):
        c, h, w = limits.shape
        raise PoisonError(
            f"{who}: {shorten(name)} has the shape {shown_shape(values.shape)}; images of "
            f"{limits.name} are [n, {h}, {w}, {c}] or [n, {c}, {h}, {w}]"
        )
    if not len(values):
        raise PoisonError(f"{who}: {shorten(name)} holds no images; at least 1 is needed")
    labels = _numbered(foreign.arrays, LABEL_NAMES, len(values), who)
    index = _numbered(foreign.arrays, INDEX_NAMES, len(values), who)
    return Chosen(name, values, labels, index)


def layout_of(shape: tuple[int, ...], limits: Limits) -> str:
    """Return `nchw`, `nhwc`, or an empty text; images have more pixels than channels on a side."""
    if len(shape) != 4:
        return ""
    c, h, w = limits.shape
    return "nchw" if shape[1:] == (c, h, w) else "nhwc" if shape[1:] == (h, w, c) else ""


def described(foreign: Foreign) -> str:
    """Return a file's arrays in words: `images uint8 [5, 8, 8, 3], y int64 [5]`."""
    arrays = [
        f"{shorten(name)} {array.dtype} {shown_shape(array.shape)}"
        for name, array in list(foreign.arrays.items())[:8]
    ]
    more = len(foreign.arrays) - len(arrays)
    return (", ".join(arrays) or "no arrays of numbers") + (f" and {more} more" if more else "")


def _with_channel(array: Numbers, limits: Limits) -> Numbers:
    """Return grey images [n, h, w] as [n, h, w, 1]."""
    grey = limits.shape[0] == 1 and array.ndim == 3 and array.shape[1:] == limits.shape[1:]
    return array[..., None] if grey else array


def _numbered(
    arrays: dict[str, Numbers], names: tuple[str, ...], n: int, who: str
) -> Numbers | None:
    """Return labels or an index as int64 [n], or None if the file has none."""
    name = next((name for name in names if name in arrays), None)
    if name is None:
        return None
    array = arrays[name]
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) != n:
        raise PoisonError(
            f"{who}: {name} must be whole numbers [{n}], one per image, got {array.dtype} "
            f"{shown_shape(array.shape)}"
        )
    if array.dtype == np.uint64 and array.max() >= 2**63:
        raise PoisonError(f"{who}: {name} reaches {array.max()}; positions are below 2^63")
    return array.astype(np.int64)
