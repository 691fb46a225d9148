"""Convert a caller's arrays to tensors of the range and layout that the suite computes with.

An array in another range or layout trains without an error, on images that are nearly black or
that another image's label belongs to. So what has one meaning is converted, such as a numpy array
or a list, and everything else is refused with the conversion that its owner may choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from ..common.errors import UserError
from ..store.arrays import copied

CHANNELS = (1, 3)
"""Numbers of channels that images may have."""


class PoisonError(UserError):
    """A poison or its file cannot be used, or does not fit its data set."""


def as_images(values: Any) -> UInt8[Tensor, "n c h w"]:
    """Return 8-bit images as a contiguous tensor.

    Contiguous, because convolutions take other kernels for other strides, and a model's accuracy
    would then depend on how its images lie in memory.

    Args:
        values: uint8 [n, c, h, w], as a tensor, a numpy array or a list.

    Raises:
        ValueError: they have another type or shape.
    """
    images = _as_tensor(values, "images")
    shape, turn = list(images.shape), ""
    misplaced = images.ndim != 4 or shape[1] not in CHANNELS
    if misplaced and shape[3:] in ([1], [3]):
        turn = f".{'permute' if isinstance(values, Tensor) else 'transpose'}(0, 3, 1, 2)"
    if images.dtype != torch.uint8:
        which = " [n, c, h, w]" if misplaced else ""
        advice = in_levels(values, "images", turn)
        raise ValueError(f"images must be uint8{which} in 0..255; {advice}")
    if misplaced:
        hint = f"; give images{turn}" if turn else ""
        raise ValueError(
            f"images must be [n, c, h, w] with 1 or 3 channels, got the shape {shape}{hint}"
        )
    return images if images.is_contiguous() else copied(images)


def in_levels(values: Any, what: str, turn: str = "") -> str:
    """Return type, shape and range of images that are not uint8, and how to convert them.

    `turn` is what also has to be done with them, such as `.transpose(0, 2, 3, 1)`.
    """
    array = _as_tensor(values, what)
    is_tensor = isinstance(values, Tensor)
    cast, view = (
        (".to(torch.uint8)", ".view(torch.uint8)")
        if is_tensor
        else (".astype(np.uint8)", ".view(np.uint8)")
    )
    got = f"got {str(array.dtype).removeprefix('torch.')} {list(array.shape)}"
    if array.dtype == torch.bool or array.is_complex() or not array.numel():
        return got
    low, high = array.min().item(), array.max().item()
    got += f" from {low:.4g} to {high:.4g}"
    if not low >= 0 or not high <= 255:  # NaN is in no range
        if array.dtype == torch.int8:
            return f"{got}; if levels above 127 were wrapped, give {what}{view}{turn}"
        if not torch.isfinite(array.sum()):
            return f"{got}; there are NaN or infinite values: fix them first"
        return f"{got}; values lie outside 0..255: undo the normalisation or find the mistake"
    if not array.is_floating_point():
        return f"{got}; give {what}{cast}{turn}"
    scaled = f"(255 * {what})" if high <= 1 else what
    return f"{got}; give {scaled}.round(){cast}{turn}"


def as_whole_numbers(values: Any, n: int, what: str) -> Int[Tensor, " n"]:
    """Return one whole number per image as int64 [n].

    Args:
        values: a tensor, a numpy array or a list.
        n: number of images.
        what: what they are called in a message.

    Raises:
        ValueError: they are not whole numbers, or there are more or fewer.
    """
    numbers = _as_tensor(values, what)
    shape, dtype = list(numbers.shape), numbers.dtype
    is_whole = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    if shape != [n] or not (is_whole or n == 0):
        hint = ""
        if shape in ([n, 1], [1, n]):
            hint = f"; give {what}.flatten()"
        elif numbers.ndim == 2:
            hint = f"; give {what}.argmax(1) if these are one-hot"
        raise ValueError(
            f"{what} must be {n} whole numbers, one per image, got "
            f"{str(dtype).removeprefix('torch.')} {shape}{hint}"
        )
    return numbers.to(torch.int64).contiguous()


def _as_tensor(values: Any, what: str) -> Tensor:
    """Return a tensor, an array or nested lists of numbers as a tensor, without a copy if possible.

    Raises:
        ValueError: they are not numbers, or lists of unequal lengths.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{what} must be one array, got lists of unequal lengths") from None
    if array.dtype.kind not in "biuf" or array.itemsize > 8:
        raise ValueError(f"{what} must be an array, got {array.dtype} values; numbers are needed")
    # torch takes neither the other byte order, nor negative strides, nor read-only memory
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
