"""Readers of .npy, .npz and .safetensors; headers are checked before anything is allocated."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ...common.errors import UserError
from ...common.spec import shorten
from ..poison import PoisonError
from .archives import Archive, read_bytes
from .contents import Foreign, Numbers
from .limits import Limits

HEADER_BYTES = 2**14
"""More bytes than the header of an .npy file may have."""


class Header(NamedTuple):
    """What an .npy header claims."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def read_npy(path: Path, limits: Limits) -> Foreign:
    """Return the array of an .npy file.

    Raises:
        PoisonError: its header does not fit the file or the data set, or it holds objects.
    """
    with path.open("rb") as file:
        return Foreign("npy", {"array": _array(file, path.stat().st_size, limits, f"{path}")})


def read_npz(path: Path, limits: Limits) -> Foreign:
    """Return the arrays of numbers of an .npz file; text, such as class names, is left out.

    Raises:
        PoisonError: as for `read_npy`, of each array, or the archive is not as it should be.
    """
    arrays = {}
    with Archive(path, limits) as archive:
        for name in archive.names():
            if not name.endswith(".npy"):
                raise PoisonError(
                    f"{path} holds {shorten(name)}, which is not an array; an .npz file has "
                    ".npy arrays alone"
                )
            who = f"{path}: {shorten(name)}"
            start = io.BytesIO(archive.read(name, HEADER_BYTES))
            if _header(start, who).dtype.kind in "US":
                continue
            _checked_header(start, archive.size(name), limits, who)
            data = archive.read_array(name)
            start = io.BytesIO(data[:HEADER_BYTES].tobytes())
            header = _checked_header(start, len(data), limits, who)
            arrays[name.removesuffix(".npy")] = _shaped(data[start.tell() :], header)
    return Foreign("npz", arrays)


def read_safetensors(path: Path, limits: Limits) -> Foreign:
    """Return the tensors of a .safetensors file.

    Raises:
        PoisonError: its header does not fit the file or the data set.
    """
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
    """Return a dense real tensor as an array; bfloat16 becomes float32.

    Raises:
        PoisonError: it is sparse, quantised, complex, or not on the CPU.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise PoisonError(f"{who} is not a dense tensor; save tensor.detach().cpu().to_dense()")
    if tensor.is_complex():
        raise PoisonError(f"{who} holds {tensor.dtype} values; real numbers are needed")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float64, torch.float16):
        tensor = tensor.float()
    array: Numbers = tensor.numpy()
    return array


def _header(file: IO[bytes], who: str) -> Header:
    """Return what the header of an .npy file claims."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(file)
        if version not in read:
            raise UserError(f"version {version}")
        shape, fortran, dtype = read[version](file)
    except Exception as error:  # its parser raises whatever Python's tokenizer does
        reason = shorten(str(error))
        raise PoisonError(f"{who} is not a readable .npy array ({reason})") from None
    return Header(tuple(shape), fortran, dtype)


def _array(file: IO[bytes], n_bytes: int, limits: Limits, who: str) -> Numbers:
    """Return the array of an open .npy file of `n_bytes` bytes."""
    header = _checked_header(file, n_bytes, limits, who)
    return _shaped(read_bytes(file, n_bytes - file.tell()), header)


def _shaped(data: NDArray[np.uint8], header: Header) -> Numbers:
    """Return bytes as the array that a header describes."""
    shape, fortran, dtype = header
    return data.view(dtype).reshape(shape, order="F" if fortran else "C")


def _checked_header(file: IO[bytes], n_bytes: int, limits: Limits, who: str) -> Header:
    """Return the header of an .npy file of `n_bytes` bytes, and go past it.

    Raises:
        PoisonError: it does not fit the file or the data set, or is none of plain numbers.
    """
    file.seek(0)
    shape, fortran, dtype = _header(file, who)
    check_dtype(dtype, who)
    limits.check_shape(shape, who)
    there, needed = n_bytes - file.tell(), math.prod(shape) * dtype.itemsize
    if there != needed:
        raise PoisonError(
            f"{who} says that it holds {needed:,} bytes of numbers but has {there:,}; it is cut "
            "short or forged"
        )
    return Header(shape, fortran, dtype)


def check_dtype(dtype: np.dtype[Any], who: str) -> None:
    """Raise PoisonError where an array does not hold plain numbers of at most 8 bytes."""
    if dtype.hasobject:
        raise PoisonError(f"{who} holds Python objects, which are not read; save plain numbers")
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype.subdtype is not None:
        raise PoisonError(
            f"{who} holds {shorten(str(dtype))} values; whole numbers or floats of at most 8 "
            "bytes are needed"
        )
