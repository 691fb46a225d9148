"""What the numbers of a foreign file mean: images or perturbations, in which layout and scale.

What the user does not specify is detected if only one reading makes sense; if two do, the error
names the option to give. The result is 8-bit images, as a data user would have received them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.spec import printable
from ...store.arrays import chunks, zeros
from .. import Dataset
from ..poison import Poison, PoisonError
from .contents import Chosen, Foreign, Numbers, choose, layout_of
from .limits import Limits

log = logging.getLogger(__name__)

ContentKind = Literal["auto", "images", "deltas"]
Scale = Literal["auto", "unit", "levels"]
Rounding = Literal["round", "truncate"]

_READ_TOGETHER = 1024
"""Images that are checked at a time, which bounds the memory."""
_COMPARED = 512
"""Images that are compared with clean ones, to tell images from perturbations."""
_NEAR = 40.0
"""Largest mean difference, in levels of 255, between poisoned and clean images, or between
perturbations and 0. Usual poisons have 3 to 15, unrelated images of a natural data set about 70."""
_SLACK = 0.13
"""How far an image that was not clipped may reach beyond its range: 32/255."""
_WHOLE = 1e-3
"""A number this close to a whole level counts as whole, since k/255 in float32 is not exact."""


@dataclass(frozen=True)
class Reading:
    """How to read a file; `auto` means to detect it.

    Attributes:
        kind: poisoned images, or perturbations that are added to the clean ones.
        scale: `unit` is the pixel range [0, 1], `levels` is 0..255.
        rounding: how levels that are not whole become 8-bit: to the nearest, or truncated as a
            cast to uint8 does.
        key: the name of the array, if the file has several.
    """

    kind: ContentKind = "auto"
    scale: Scale = "auto"
    rounding: Rounding = "round"
    key: str | None = None


def interpret(
    foreign: Foreign, dataset: Dataset, reading: Reading, who: str
) -> tuple[Poison, dict[str, Any]]:
    """Return a file's poison in the file's order, and how it was read.

    Its labels are those of the file, or of the clean set if the file has none.

    Raises:
        PoisonError: it does not fit the data set, or could be read in two ways.
    """
    limits = Limits.of(dataset)
    chosen = choose(foreign, reading.key, limits, who)
    layout = layout_of(chosen.values.shape, limits)
    _check_finite(chosen.values, who)
    rows, index = _placed(chosen, dataset, who)
    sample = np.unique(np.linspace(0, len(index) - 1, min(_COMPARED, len(index))).astype(np.int64))
    channels = chosen.values.transpose(0, 3, 1, 2) if layout == "nhwc" else chosen.values
    clean = dataset.train.images.numpy()
    scale = _scale(channels, reading.scale, who)
    asked = _kind_asked(foreign, reading)
    kind = _kind(channels[rows[sample]], clean[index[sample]], scale, asked, who)
    classwise = len(channels) != len(index)
    if classwise and kind == "images":
        raise PoisonError(
            f"{who} has one image per class, which cannot replace training images; only "
            "perturbations can be class-wise: give --kind deltas if it holds these"
        )
    wrapped = kind == "deltas" and _wraps(channels, who)
    poisoned = zeros((len(index), *dataset.shape), torch.uint8)
    images = poisoned.numpy()
    counts = {"clipped": 0, "fractional": 0}
    for part in chunks(poisoned):
        values = _levels(channels[rows[part]], scale, wrapped)
        if kind == "deltas":
            values += clean[index[part]]
        images[part] = _eight_bit(values, reading.rounding, counts)
    positions = torch.from_numpy(index)
    labels = dataset.train.labels[positions]
    if chosen.labels is not None:
        labels = torch.from_numpy(chosen.labels[rows])
    reading_used = {
        "form": foreign.form,
        "array": printable(chosen.name),
        "kind": kind,
        "layout": layout,
        "dtype": str(chosen.values.dtype),
        "scale": scale,
        "rounding": reading.rounding,
        "class_wise": classwise,
        "wrapped_negatives": wrapped,
        "fractional_share": counts["fractional"] / images.size,
        "clipped_share": counts["clipped"] / images.size,
        "labels_from": "the clean set" if chosen.labels is None else "the file",
        "not_used": [printable(each) for each in chosen.unused],
    }
    if foreign.form not in ("folder", "zip"):  # their reader has warned already
        _warn_of_unused(chosen, who)
    return Poison(poisoned, labels, positions, dict(foreign.record)), reading_used


def _kind_asked(foreign: Foreign, reading: Reading) -> ContentKind:
    """Return what the file is to be read as; `auto` means that its numbers decide."""
    match foreign.record:
        # images of our own that nothing keeps near the clean ones, so their numbers cannot tell
        case {"budget": {"norm": "none"}} if reading.kind == "auto":
            return "images"
    return reading.kind


def _warn_of_unused(chosen: Chosen, who: str) -> None:
    """Log which arrays of a file are ignored, if any are."""
    if chosen.unused:
        log.warning(
            "%s: not used are %s; labels are read from `labels`, positions from `index`",
            who,
            ", ".join(chosen.unused[:8]),
        )


def _check_finite(values: Numbers, who: str) -> None:
    """Raise PoisonError if a number is NaN or infinite."""
    for i, part in enumerate(_parts(values) if values.dtype.kind == "f" else ()):
        finite = np.isfinite(part)
        if not finite.all():
            bad = i * _READ_TOGETHER + int((~finite).reshape(len(part), -1).any(1).argmax())
            raise PoisonError(
                f"{who} has NaN or infinite values, first in image {bad}; fix the file"
            )


def _placed(
    chosen: Chosen, dataset: Dataset, who: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which row of the file goes to which training image: two arrays of one length.

    Raises:
        PoisonError: neither an index nor the length says so, or the index is wrong.
    """
    n, m, k = len(dataset.train), len(chosen.values), dataset.n_classes
    if chosen.index is None:
        if m == n:
            return np.arange(n), np.arange(n)
        if m == k:
            return dataset.train.labels.numpy(), np.arange(n)
        raise PoisonError(
            f"{who} has {m} images, {dataset.name} has {n} training images and {k} classes; give "
            "the data set that it was made from, or add an array `index` of positions in it"
        )
    low, high = int(chosen.index.min()), int(chosen.index.max())
    if low < 0 or high >= n:
        raise PoisonError(
            f"{who}: its index reaches {low if low < 0 else high}, {dataset.name} has {n} training "
            "images; give the data set that it was made from"
        )
    positions, counts = np.unique(chosen.index, return_counts=True)
    if len(positions) < m:
        twice = int(positions[counts > 1][0])
        raise PoisonError(f"{who}: its index names training image {twice} twice; name each once")
    return np.arange(m), chosen.index


def _scale(values: Numbers, asked: Scale, who: str) -> Literal["unit", "levels"]:
    """Return whether 1 or 255 is white."""
    low, high = float(values.min()), float(values.max())
    reach = max(-low, high)
    if asked != "auto":
        if reach > (2 if asked == "unit" else 510):
            raise PoisonError(
                f"{who}: with --scale {asked} values lie within 0..{1 if asked == 'unit' else 255}"
                f", these reach from {low:.4g} to {high:.4g}; give the other scale"
            )
        return asked
    integers = values.dtype.kind in "iu"
    if reach > 255 * (1 + _SLACK) or (reach <= 2 and not integers and reach > 1 + _SLACK):
        raise PoisonError(
            f"{who} has values from {low:.4g} to {high:.4g}, neither in the range 0..1 nor in "
            "0..255; undo a normalisation, or say which is meant by --scale unit or levels"
        )
    if reach > 2 or (integers and reach > 1) or reach == 0:
        return "levels"
    if integers or (reach == 1 and all((part == np.rint(part)).all() for part in _parts(values))):
        raise PoisonError(
            f"{who} has only values -1, 0 and 1, which may be levels or black and white; say which "
            "by --scale levels or unit"
        )
    return "unit"


def _parts(values: Numbers) -> list[Numbers]:
    """Return views of an array, each of a bounded number of images."""
    return [
        values[start : start + _READ_TOGETHER] for start in range(0, len(values), _READ_TOGETHER)
    ]


def _kind(
    values: Numbers, clean: NDArray[np.uint8], scale: str, asked: ContentKind, who: str
) -> Literal["images", "deltas"]:
    """Return whether values are images near the clean ones or perturbations near 0."""
    if asked != "auto":
        return asked
    # uint8 cannot hold a negative perturbation, so it may have been stored as 256 - v
    as_images = float(np.abs(_levels(values, scale, False) - clean).mean())
    may_wrap = values.dtype == np.uint8
    as_deltas = float(np.abs(_levels(values, scale, may_wrap)).mean())
    if as_images <= _NEAR and 2 * as_images < as_deltas:
        return "images"
    likeness = _likeness(values, clean)
    if likeness > 0.5 and as_images > _NEAR:
        raise PoisonError(
            f"{who} follows the clean images (correlation {likeness:.2f}) but not in their range; "
            "undo a normalisation, or say which is meant by --kind and --scale"
        )
    if as_deltas <= _NEAR and 2 * as_deltas < as_images:
        return "deltas"
    raise PoisonError(
        f"{who} may hold images or perturbations: its values differ from the clean images by "
        f"{as_images:.0f} levels on average and from 0 by {as_deltas:.0f}; say which by --kind "
        "images or deltas, and check that it belongs to this data set in this order"
    )


def _likeness(values: Numbers, clean: NDArray[np.uint8]) -> float:
    """Return the correlation of values and clean pixels; 0 if either is constant."""
    x, y = values.astype(np.float64).ravel(), clean.astype(np.float64).ravel()
    x, y = x - x.mean(), y - y.mean()
    norms = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norms if norms > 0 else 0.0


def _wraps(values: Numbers, who: str) -> bool:
    """Return whether uint8 perturbations hold negative ones as 256 - v.

    Raises:
        PoisonError: a value is too large to be either.
    """
    if values.dtype != np.uint8:
        return False
    middle = values[(values > 85) & (values < 170)]
    if middle.size:
        raise PoisonError(
            f"{who} holds perturbations as uint8 up to {int(middle.max())}, which may be positive "
            "or a wrapped negative one; save them as int16"
        )
    return bool(values.max() >= 170)


def _levels(values: Numbers, scale: str, wrapped: bool) -> NDArray[np.float32]:
    """Return values in levels of 255, as float32."""
    signed = values.view(np.int8) if wrapped else values
    # float64 is scaled before it is rounded to float32, so that k/255 comes out as k
    levels = signed.astype(np.float64 if values.dtype == np.float64 else np.float32)
    if scale == "unit":
        levels = levels * 255
    return levels.astype(np.float32, copy=False)


def _eight_bit(
    values: NDArray[np.float32], rounding: Rounding, counts: dict[str, int]
) -> NDArray[np.uint8]:
    """Return levels as uint8; count the values that were clipped and those that were not whole."""
    inside = np.clip(values, 0, 255)
    nearest = np.rint(inside)
    whole = np.abs(inside - nearest) <= _WHOLE
    counts["clipped"] += int((np.abs(values - inside) > _WHOLE).sum())
    counts["fractional"] += int((~whole).sum())
    if rounding == "truncate":
        nearest = np.where(whole, nearest, np.floor(inside))
    return nearest.astype(np.uint8)
