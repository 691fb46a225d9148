"""Check an .npz file before numpy reads it: headers lie, and archives explode."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..common.spec import shorten
from ..store.arrays import total_memory

MAX_MEMBERS = 1000
DENSE_BYTES = 64 * 2**20
"""A member that unpacks to more than this must not be packed more tightly than `MAX_RATIO`."""
MAX_RATIO = 100
"""Images that differ from each other never compress this well."""


class Header(NamedTuple):
    """The shape, memory order and type that the header of an .npy array claims."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    def check_size(self, n_bytes: int, who: str) -> None:
        """Raise UserError if the array does not take exactly the `n_bytes` that follow."""
        claimed = math.prod(self.shape) * self.dtype.itemsize
        if min(self.shape, default=0) < 0 or claimed != n_bytes:
            raise UserError(
                f"{who} says that it holds {claimed:,} bytes of numbers but has {n_bytes:,}; it is "
                "cut short or forged"
            )

    def array(self, data: NDArray[np.uint8]) -> NDArray[Any]:
        """Return bytes, of which there must be as many as claimed, as the array described."""
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        return data.view(self.dtype).reshape(self.shape, order=order)


def read_header(file: IO[bytes], who: str) -> Header:
    """Read the header of an .npy array, so that the file is left where the numbers begin.

    Raises:
        UserError: it cannot be parsed, or the array holds Python objects, which may run code.
    """
    try:
        if np.lib.format.read_magic(file) == (1, 0):
            header = Header(*np.lib.format.read_array_header_1_0(file))
        else:  # numpy refuses a later version's header here unless it reads like one of 2.0
            header = Header(*np.lib.format.read_array_header_2_0(file))
    except Exception as error:  # numpy's parser raises whatever Python's tokenizer does
        raise UserError(f"{who} is not a readable .npy array ({shorten(str(error))})") from None
    if header.dtype.hasobject:
        raise UserError(f"{who} holds Python objects, which are not read; save plain numbers")
    return header


def check_npz(path: Path) -> None:
    """Check that an archive's arrays are what their headers claim and fit into memory.

    Raises:
        UserError: they are not; the sentence says which.
        Exception: zipfile cannot read the archive.
    """
    memory = total_memory()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise UserError(f"it has {len(members)} members; at most {MAX_MEMBERS} are read")
        total = sum(member.file_size for member in members)
        if total > memory:
            raise UserError(
                f"unpacked it takes {total:,} bytes, and there are {memory:,} of memory; a tree of "
                "images, folder:PATH, need not fit"
            )
        for member in members:
            who = shorten(member.filename)
            ratio = member.file_size / max(1, member.compress_size)
            if member.file_size > DENSE_BYTES and ratio > MAX_RATIO:
                raise UserError(f"{who} is compressed {ratio:.0f} to 1, which no images are")
            if not member.filename.endswith(".npy"):
                raise UserError(f"{who} is not an array; only .npy members are read")
            with archive.open(member) as file:
                read_header(file, who).check_size(member.file_size - file.tell(), who)
