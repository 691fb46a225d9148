"""Readers of .npy, .npz and .safetensors; headers are checked before anything is allocated.

Every reader raises PoisonError if a header does not fit the file or the data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ...common.spec import shorten
from ..packed import Header, read_header
from ..poison import PoisonError
from .archives import Archive, read_bytes
from .contents import Foreign, Numbers
from .limits import Limits


def read_npy(path: Path, limits: Limits) -> Foreign:
    """Return the array of an .npy file."""
    with path.open("rb") as file:
        array = _read_array(file, path.stat().st_size, limits, f"{path}")
    return Foreign("npy", {"array": array})


def read_npz(archive: Archive) -> Foreign:
    """Return the arrays of numbers of an .npz file; text, objects and other files are left out."""
    arrays, unread = {}, {}
    for name, n_bytes in archive.sizes.items():
        who = f"{archive.path}: {shorten(name)}"
        if not name.endswith(".npy"):
            unread[name] = "not an array"
            continue
        with archive.open(name) as file:
            dtype = read_header(file, who).dtype
            if is_plain(dtype):
                file.seek(0)
                array = _read_array(file, n_bytes, archive.limits, who)
                arrays[name.removesuffix(".npy")] = array
            else:
                kind = "Python objects" if dtype.hasobject else f"{dtype}"[:40]
                unread[name.removesuffix(".npy")] = kind
    return Foreign("npz", arrays, unread=unread)


def read_safetensors(path: Path, limits: Limits) -> Foreign:
    """Return the tensors of a .safetensors file."""
    arrays = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                who = f"{path}: {shorten(name)}"
                limits.check_shape(tuple(file.get_slice(name).get_shape()), who)
                arrays[name] = numbers_of(file.get_tensor(name), who)
    except SafetensorError as error:
        raise PoisonError(f"{path} is not a readable .safetensors file ({error})") from None
    return Foreign("safetensors", arrays)


def numbers_of(tensor: torch.Tensor, who: str) -> Numbers:
    """Return a tensor as an array; numpy has no bfloat16 and no float8, which become float32."""
    if tensor.is_complex():
        raise PoisonError(f"{who} holds {tensor.dtype} values; real numbers are needed")
    if tensor.is_floating_point() and tensor.dtype not in (torch.float64, torch.float16):
        tensor = tensor.float()
    array: Numbers = tensor.numpy()
    return array


def _read_array(file: IO[bytes], n_bytes: int, limits: Limits, who: str) -> Numbers:
    """Return the array of an open .npy file of `n_bytes`, or of such a member of an archive."""
    header = read_header(file, who)
    check_header(header, n_bytes - file.tell(), limits, who)
    return header.array(read_bytes(file, n_bytes - file.tell()))


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether values are whole numbers, floats or booleans of at most 8 bytes."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.subdtype is None


def check_header(header: Header, n_bytes: int, limits: Limits, who: str) -> None:
    """Raise UserError unless a header describes `n_bytes` of plain numbers within the limits."""
    header.check_objects(who)
    if not is_plain(header.dtype):
        raise PoisonError(
            f"{who} holds {shorten(str(header.dtype))} values; whole numbers or floats of at most "
            "8 bytes are needed"
        )
    limits.check_shape(header.shape, who)
    header.check_size(n_bytes, who)
