"""Check an .npz file before numpy reads it: headers lie, and archives explode."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..common.spec import shorten
from ..store.arrays import total_memory

MAX_MEMBERS = 1000


class Header(NamedTuple):
    """The shape, memory order and type that the header of an .npy array claims."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    def check_objects(self, who: str) -> None:
        """Raise UserError if the array holds Python objects; to unpickle these may run code."""
        if self.dtype.hasobject:
            raise UserError(
                f"{who} holds Python objects, which are not read, since that may run code; save "
                "an array of numbers or of text instead"
            )

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
        UserError: it cannot be parsed.
    """
    try:
        if np.lib.format.read_magic(file) == (1, 0):
            header = Header(*np.lib.format.read_array_header_1_0(file))
        else:  # numpy refuses a later version's header here unless it reads like one of 2.0
            header = Header(*np.lib.format.read_array_header_2_0(file))
    except Exception as error:  # numpy's parser raises whatever Python's tokenizer does
        raise UserError(f"{who} is not a readable .npy array ({shorten(str(error))})") from None
    return header


def check_npz(path: Path, needed: Sequence[str]) -> dict[str, Header]:
    """Check those of an archive's arrays that are needed, and return their headers.

    The others are not read, so they may be anything.

    Raises:
        UserError: an array is not what its header claims, or they do not fit into memory.
        Exception: zipfile cannot read the archive.
    """
    memory = total_memory()
    with zipfile.ZipFile(path) as archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise UserError(
                f"it has {len(archive.infolist())} members; at most {MAX_MEMBERS} are read"
            )
        members = {info.filename: info for info in archive.infolist()}
        chosen = {name: members[f"{name}.npy"] for name in needed if f"{name}.npy" in members}
        total = sum(member.file_size for member in chosen.values())
        if total > memory:
            raise UserError(
                f"unpacked it takes {total:,} bytes, and there are {memory:,} of memory; a tree of "
                "images, folder:PATH, need not fit"
            )
        headers = {}
        for name, member in chosen.items():
            who = shorten(name)
            with archive.open(member) as file:
                headers[name] = read_header(file, who)
                headers[name].check_objects(who)
                headers[name].check_size(member.file_size - file.tell(), who)
    return headers
