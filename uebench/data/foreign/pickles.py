"""Pickles of arrays and files of torch.save: what lies in their dicts, lists and pairs.

Every reader raises PoisonError if a file names anything but arrays, numbers and what holds them, or
claims more than it holds; see `unpickler.py`.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.spec import shorten
from ..poison import PoisonError
from .archives import Archive, read_bytes
from .contents import Foreign, Numbers, is_image
from .limits import Limits
from .unpickler import PickledArray, PickledRecord, load_old_torch, unpickled

_MOST_NESTED = 100
"""A container inside another one is opened if it holds no more than this."""
_OPENED = (PickledArray, PickledRecord, dict, list, tuple)
"""Types of values that are arrays or may hold some."""
TORCH_PICKLE = re.compile(r"[^/]*/data\.pkl")
"""The member of a zipped file of torch.save that says what it holds."""
OLD_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""What the first of the five pickles of a file before torch 1.6 holds."""


def read_pickle(path: Path, limits: Limits) -> Foreign:
    """Return the arrays of a pickle: one, or a dict, list or tuple of them."""
    stream = io.BytesIO(path.read_bytes())
    return _foreign("pickle", unpickled(stream, limits, f"{path}"), limits, f"{path}")


def read_torch(archive: Archive) -> Foreign:
    """Return the arrays of a .pt file: one, or a dict, list or tuple of them."""
    who = f"{archive.path}"
    (name,) = filter(TORCH_PICKLE.fullmatch, archive.sizes)
    folder = name.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.sizes and archive.read(f"{folder}byteorder") != b"little":
        raise PoisonError(f"{who} was written by a big-endian machine; save it with numpy.save")

    def read_storage(key: str, n_bytes: int) -> NDArray[np.uint8]:
        member = f"{folder}data/{key}"
        if archive.sizes.get(member) != n_bytes:
            size = archive.sizes.get(member, 0)
            raise PoisonError(
                f"{who}: {shorten(member)} has {size:,} bytes where {n_bytes:,} are claimed; it is "
                "cut short or forged"
            )
        with archive.open(member) as file:
            return read_bytes(file, n_bytes)

    stream = io.BytesIO(archive.read(name))
    content = unpickled(stream, archive.limits, who, read_storage)
    return _foreign("torch", content, archive.limits, who)


def read_old_torch(path: Path, limits: Limits) -> Foreign:
    """Return the arrays of a file of torch.save before 1.6: five pickles, then the values."""
    stream = io.BytesIO(path.read_bytes())
    return _foreign("torch", load_old_torch(stream, limits, f"{path}")[0], limits, f"{path}")


def is_old_torch(path: Path) -> bool:
    """Return whether a pickle is the first of a file that torch.save wrote before 1.6."""
    with path.open("rb") as file:
        return pickle.encode_long(OLD_TORCH_MAGIC) in file.read(32)


def _foreign(form: str, content: Any, limits: Limits, who: str) -> Foreign:
    """Return the arrays in a pickle's content by name, or by position in a list."""
    arrays: dict[str, Numbers] = {}
    unread: dict[str, str] = {}

    def add(name: str, value: Any, depth: int) -> None:
        value = dict(value.state) if isinstance(value, PickledRecord) else value
        array = _as_array(value, limits, who)
        if array is not None:
            arrays[name or "array"] = array
        elif _is_pairs(value, limits, who):
            add(f"{name}0", [pair[0] for pair in value], 2)
            add(f"{name}1", [pair[1] for pair in value], 2)
        elif isinstance(value, (dict, list, tuple)) and (depth == 0 or _holds_parts(value, depth)):
            deeper = depth + 1 if len(value) <= _MOST_NESTED else 2
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in pairs:
                key = key.decode("latin1") if isinstance(key, bytes) else key  # Python 2 wrote it
                add(f"{name}.{key}" if name else str(key), part, deeper)
        elif isinstance(value, (dict, list, tuple, set)) and len(value):
            unread[name] = f"{type(value).__name__} of {len(value)}"

    if not isinstance(content, _OPENED):
        raise PoisonError(
            f"{who} holds a {type(content).__name__}; an array, a tensor or a dict or list of "
            "these is needed"
        )
    add("", content, 0)
    return Foreign(form, arrays, unread=unread)


def _as_array(value: Any, limits: Limits, who: str) -> Numbers | None:
    """Return an array, or a list of numbers or of equal images as one; None if it is neither."""
    if isinstance(value, PickledArray):
        return value.numbers(who)
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if all(type(each) is int for each in value):
        with contextlib.suppress(OverflowError):
            return np.array(value, np.int64)
    if not all(isinstance(each, PickledArray) for each in value):
        return None
    parts = [each.numbers(who) for each in value]
    shape = parts[0].shape
    if any((part.shape, part.dtype) != (shape, parts[0].dtype) for part in parts):
        return None
    if shape and not is_image(shape, limits):
        return None
    limits.check_shape((len(value), *shape), who)
    return np.stack(parts)


def _holds_parts(value: Any, depth: int) -> bool:
    """Return whether a container inside another one is worth opening, and small enough."""
    parts = value.values() if isinstance(value, dict) else value
    return depth == 1 and len(value) <= _MOST_NESTED and any(isinstance(p, _OPENED) for p in parts)


def _is_pairs(value: Any, limits: Limits, who: str) -> bool:
    """Return whether a value is a list of (image, label), such as a data set that was listed."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(each, (list, tuple)) and len(each) == 2 for each in value)
        and all(
            isinstance(image, PickledArray) and is_image(image.numbers(who).shape, limits)
            for image, _ in value
        )
    )
