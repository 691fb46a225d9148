"""Zip archives that nobody trusts: members are read in memory, and counted before they are."""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.spec import shorten
from ...store.arrays import zeros
from ..poison import PoisonError
from .limits import Limits

READ_AT_ONCE = 2**24
"""Bytes of a large member that are read at a time."""
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_TAIL = 22 + 65535 + 20 + 56
"""Bytes in which the end records lie: the record, its comment, and the two zip64 records."""


class Archive:
    """A zip archive whose directory was checked against the limits; use it as a context."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        longest = limits.members * (46 + 512)  # an entry's fixed part, its name and extra fields
        if directory_bytes(path) > longest:
            raise PoisonError(
                f"{path} has a directory of more than {longest:,} bytes, too large for the "
                f"{limits.members} files that a poison of {limits.name} may have; give an archive "
                "of that poison alone"
            )
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise PoisonError(f"{path} is not a readable zip archive ({error})") from None
        self.members = [info for info in self.zip.infolist() if not info.is_dir()]
        try:
            self._check()
        except PoisonError:
            self.zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.zip.close()

    def _check(self) -> None:
        """Check the number of members, their names and their sizes unpacked."""
        if len(self.members) > self.limits.members:
            raise PoisonError(
                f"{self.path} has {len(self.members)} files, a poison of {self.limits.name} at "
                f"most {self.limits.members}; give an archive of that poison alone"
            )
        self.limits.check_bytes(sum(info.file_size for info in self.members), f"{self.path}")
        if len(set(self.names())) < len(self.members):
            raise PoisonError(f"{self.path} has two files of the same name; pack it again")
        for info in self.members:
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise PoisonError(
                    f"{self.path}: {shorten(info.filename)} is packed in an unusual way; pack it "
                    "as plain zip"
                )
            parts = PurePosixPath(info.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
                raise PoisonError(
                    f"{self.path} names a file outside itself ({shorten(info.filename)}); such an "
                    "archive is not read"
                )

    def names(self) -> list[str]:
        """Return the names of its files."""
        return [info.filename for info in self.members]

    def size(self, name: str) -> int:
        """Return how many bytes a member says that it has, unpacked."""
        return self.zip.getinfo(name).file_size

    def read(self, name: str, most: int | None = None) -> bytes:
        """Return a member; without `most` all of it, which is no more than what was checked.

        Raises:
            PoisonError: it is damaged, encrypted, or packed in an unknown way.
        """
        with self._opened(name) as file:
            # asked for all, zipfile would unpack first and cut off afterwards
            return file.read(self.size(name) if most is None else most)

    def read_array(self, name: str) -> NDArray[np.uint8]:
        """Return a member's bytes; where they are many they lie in a file.

        Raises:
            PoisonError: as for `read`.
        """
        with self._opened(name) as file:
            return read_bytes(file, self.size(name))

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """Give a member to read, and say in a sentence what is wrong with it."""
        try:
            with self.zip.open(name) as file:
                yield file
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            RuntimeError,  # encrypted, or an unknown method
            ValueError,
            KeyError,
        ) as error:
            reason = shorten(str(error))
            raise PoisonError(
                f"{self.path}: {shorten(name)} cannot be unpacked ({reason})"
            ) from None


def read_bytes(file: IO[bytes], n_bytes: int) -> NDArray[np.uint8]:
    """Return the next bytes of a file, at most `n_bytes`; where they are many they lie in a file.

    Raises:
        EOFError: there are fewer.
    """
    found: NDArray[np.uint8] = zeros((n_bytes,), torch.uint8).numpy()
    done = 0
    while done < n_bytes:
        part = file.read(min(READ_AT_ONCE, n_bytes - done))
        if not part:
            raise EOFError(f"it ends after {done:,} of {n_bytes:,} bytes")
        found[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    return found


def directory_bytes(path: Path) -> int:
    """Return the size of an archive's directory, which zipfile would read whole; 0: none found."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    where = tail.rfind(_END)
    if where < 0 or len(tail) < where + 22:
        return 0
    found: int = struct.unpack_from("<I", tail, where + 12)[0]
    where64 = tail.rfind(_END64, 0, where)
    if where64 >= 0 and len(tail) >= where64 + 56:
        found = max(found, struct.unpack_from("<Q", tail, where64 + 40)[0])
    return min(found, size)
