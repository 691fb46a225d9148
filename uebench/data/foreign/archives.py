"""Zip archives from strangers: checked against the limits first, unpacked in memory only."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.spec import shorten
from ...store.arrays import zeros
from ..poison import PoisonError
from .limits import Limits

READ_AT_ONCE = 2**24
"""Bytes of a large member that are read at a time."""


class _Guarded(io.FileIO):
    """A file that refuses a read longer than `most`, since zipfile reads a directory in one go."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self.limits = limits
        # an entry has a fixed part of 46 bytes, a name and extra fields
        self.most: int | None = limits.members * (46 + 512)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `FileIO` does, unless more is asked for than is allowed."""
        size = -1 if size is None else size
        if self.most is not None and size > self.most:
            raise PoisonError(
                f"{self.name} has a directory of more than {self.most:,} bytes, too large for the "
                f"{self.limits.members} files that a poison of {self.limits.name} may have; give "
                "an archive of that poison alone"
            )
        return super().read(size) or b""


class Archive:
    """An open zip archive whose members were checked against the limits."""

    def __init__(self, file: zipfile.ZipFile, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self._zip = file
        members = [info for info in file.infolist() if not info.is_dir()]
        self.sizes = {info.filename: info.file_size for info in members}
        """Bytes of each member once unpacked; zipfile stops there, whatever the data says."""
        if len(members) > limits.members:
            raise PoisonError(
                f"{path} has {len(members)} files, a poison of {limits.name} at most "
                f"{limits.members}; give an archive of that poison alone"
            )
        limits.check_bytes(sum(info.file_size for info in members), f"{path}")
        if len(self.sizes) < len(members):
            raise PoisonError(f"{path} has two files of the same name; pack it again")
        for info in members:
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise PoisonError(
                    f"{path}: {shorten(info.filename)} is packed in an unusual way; pack it as "
                    "plain zip"
                )
            parts = PurePosixPath(info.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
                raise PoisonError(
                    f"{path} names a file outside itself ({shorten(info.filename)}); such an "
                    "archive is not read"
                )

    def read(self, name: str) -> bytes:
        """Return all of a member.

        Raises:
            PoisonError: it is damaged or encrypted.
        """
        with self.open(name) as file:
            # zipfile asked for "all" would unpack first and cut off afterwards
            return file.read(self.sizes[name])

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member, and report in one sentence what goes wrong while it is read.

        Raises:
            PoisonError: it is damaged or encrypted.
        """
        try:
            with self._zip.open(name) as file:
                yield file
        except UserError:
            raise
        # zipfile's word for an encrypted member is RuntimeError
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as e:
            reason = shorten(str(e))
            raise PoisonError(
                f"{self.path}: {shorten(name)} cannot be unpacked ({reason})"
            ) from None


@contextlib.contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """Open a zip archive and check its directory before anything is unpacked.

    Raises:
        PoisonError: it cannot be read, is larger than the limits, or names files outside itself.
    """
    with _Guarded(path, limits) as file, contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(zipfile.ZipFile(file))
        except PoisonError:
            raise
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise PoisonError(f"{path} is not a readable zip archive ({error})") from None
        file.most = None
        yield Archive(opened, path, limits)


def read_bytes(file: IO[bytes], n_bytes: int) -> NDArray[np.uint8]:
    """Return the next `n_bytes` of a file; a large array lies in a file of its own.

    Raises:
        EOFError: there are fewer.
    """
    data: NDArray[np.uint8] = zeros((n_bytes,), torch.uint8).numpy()
    done = 0
    while done < n_bytes:
        part = file.read(min(READ_AT_ONCE, n_bytes - done))
        if not part:
            raise EOFError(f"it ends after {done:,} of {n_bytes:,} bytes")
        data[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    return data
