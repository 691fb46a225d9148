"""Looks into an .npz file before anything of it is unpacked: headers lie, and archives explode."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..common.spec import shorten
from ..store.arrays import total_memory

MOST_MEMBERS = 1000
DENSE_BYTES = 64 * 2**20
"""Unpacked bytes from which on a member must not be packed more tightly than `MOST_RATIO`."""
MOST_RATIO = 100
"""Images that differ from each other are never packed so tightly."""


def check_npz(path: Path) -> None:
    """Check that an archive's arrays are what their headers say and fit into the memory.

    Raises:
        ValueError: they are not; the sentence says which.
        Exception: what the readers of zip files and headers raise.
    """
    room = total_memory()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise UserError(f"it has {len(members)} members, more than any array file")
        total = sum(member.file_size for member in members)
        if total > room:
            raise UserError(
                f"unpacked it takes {total:,} bytes, and there are {room:,} of memory; a tree of "
                "images, folder:PATH, need not fit"
            )
        for member in members:
            _check_member(archive, member)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compare one array's header with the size of its data."""
    who = shorten(member.filename)
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > DENSE_BYTES and ratio > MOST_RATIO:
        raise UserError(f"{who} is packed {ratio:.0f} to 1; no images are, so it is not unpacked")
    if not member.filename.endswith(".npy"):
        raise UserError(f"{who} is not an array")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise UserError(f"{who} has an .npy header of version {version}")
        shape, _, dtype = read(file)
        header = file.tell()
    if dtype.hasobject:
        raise UserError(f"{who} holds Python objects, which could run code")
    claimed = math.prod(shape) * dtype.itemsize
    if any(side < 0 for side in shape) or claimed != member.file_size - header:
        there = member.file_size - header
        raise UserError(f"{who} claims {claimed:,} bytes and has {there:,}")
