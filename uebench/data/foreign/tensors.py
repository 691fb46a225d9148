"""Files of torch.save: gone through by the restricted unpickler first, then loaded as weights."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from ...common.spec import shorten
from ..poison import PoisonError
from .archives import Archive
from .arrays import numbers_of
from .contents import Foreign
from .limits import Limits
from .pickles import ArrayUnpickler, Name, load, scan

MAGIC = 0x1950A86A20F9469CFC6C
"""What the first of the five pickles of a file before torch 1.6 holds."""
TORCH_PICKLE = re.compile(r"[^/]*/data\.pkl")
"""The member of a zipped file that says what it holds."""
MAX_PICKLE = 2**22
"""Most bytes of that member, and of others that hold no values."""
STORAGES = {
    **dict.fromkeys(("Double", "Long"), 8),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Byte", "Char", "Bool"), 1),
}
"""Bytes of a value of each kind of storage."""


def read_torch(path: Path, limits: Limits, zipped: bool) -> Foreign:
    """Return the tensors of a .pt file: one, or a dict, list or tuple of them.

    Raises:
        PoisonError: it names anything but dense tensors, or claims more than it holds.
    """
    who = f"{path}"
    if zipped:
        with Archive(path, limits) as archive:
            (name,) = (n for n in archive.names() if TORCH_PICKLE.fullmatch(n))
            if archive.size(name) > MAX_PICKLE:
                raise PoisonError(f"{who} has no small data.pkl, so torch.save did not write it")
            claimed = _look_through(io.BytesIO(archive.read(name)), limits, who)
            stream = _copied(archive, claimed, who)
    else:
        stream = io.BytesIO(path.read_bytes())
        for _ in range(5):  # magic number, version, sizes, content, keys of the storages
            _look_through(stream, limits, who)
        stream.seek(0)
    try:
        content = torch.load(stream, map_location="cpu", weights_only=True)
    except (MemoryError, Exception) as error:
        reason = shorten(str(error).split("\n")[0])
        raise PoisonError(f"{who} is not a readable file of tensors ({reason})") from None
    if isinstance(content, torch.Tensor):
        content = {"array": content}
    elif isinstance(content, (list, tuple)):
        content = {str(i): value for i, value in enumerate(content)}
    if not isinstance(content, dict):
        raise PoisonError(f"{who} holds a {type(content).__name__}; a tensor or a dict is needed")
    arrays = {
        str(name): numbers_of(value, f"{who}: {shorten(str(name))}")
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    return Foreign("torch", arrays)


def _copied(archive: Archive, claimed: dict[str, int], who: str) -> io.BytesIO:
    """Return a rewritten archive, so that torch reads the members that were looked through.

    Two readers may find different directories in one forged file.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as made:
        for name in archive.names():
            _, slash, key = name.partition("/data/")
            expected = claimed.get(key, 0) if slash else MAX_PICKLE
            if archive.size(name) > expected:
                raise PoisonError(f"{who}: {shorten(name)} is larger than what it holds; forged")
            made.writestr(name, archive.read(name))
    stream.seek(0)
    return stream


def is_old_torch(path: Path) -> bool:
    """Return whether a pickle is the first of a file that torch.save wrote before 1.6."""
    with path.open("rb") as file:
        return pickle.encode_long(MAGIC) in file.read(32)


def _look_through(stream: io.BytesIO, limits: Limits, who: str) -> dict[str, int]:
    """Check one pickle, from the stream's position on, and go past it; return storages' bytes."""
    start = stream.tell()
    scan(stream, limits, who)
    end = stream.tell()
    stream.seek(start)
    unpickler = TensorUnpickler(io.BytesIO(stream.read(end - start)), limits, who)
    load(unpickler, who)
    return unpickler.claimed


class Storage:
    """What a tensor's values lie in: how many there are."""

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n


class TensorUnpickler(ArrayUnpickler):
    """An unpickler that measures torch's dense tensors and makes none."""

    def __init__(self, stream: io.BytesIO, limits: Limits, who: str) -> None:
        super().__init__(stream, limits, who)
        self.claimed: dict[str, int] = {}
        self.known = {
            ("collections", "OrderedDict"): Name(dict),
            ("torch._utils", "_rebuild_tensor_v2"): Name(self._measure),
            ("torch._utils", "_rebuild_tensor"): Name(self._measure),
            ("torch._utils", "_rebuild_parameter"): Name(lambda tensor, *_: tensor),
        }
        for kind in STORAGES:
            self.known["torch", f"{kind}Storage"] = Name(lambda kind=kind: kind)

    def persistent_load(self, pid: Any) -> Storage:
        """Return a storage of the size that is claimed, which is checked."""
        what, kind, key, _, n, *view = pid
        if what != "storage" or not isinstance(kind, Name) or type(n) is not int or n < 0:
            raise PoisonError(f"{self.who} refers to something that is no tensor's storage")
        if any(part is not None for part in view):
            raise PoisonError(f"{self.who} shares storages; save tensor.clone()")
        self.claimed[str(key)] = n * STORAGES[kind()]
        self.limits.check_bytes(sum(self.claimed.values()), self.who)
        return Storage(n)

    def _measure(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        """Check that a tensor lies within its storage and within the limits."""
        numbers = (offset, *size, *stride)
        if not isinstance(storage, Storage) or not all(type(x) is int for x in numbers):
            raise PoisonError(f"{self.who} does not describe a tensor of plain numbers")
        self.limits.check_shape(tuple(size), self.who)
        last = offset + sum((a - 1) * b for a, b in zip(size, stride, strict=True))
        if min(numbers) < 0 or (0 not in size and last >= storage.n):
            raise PoisonError(f"{self.who} describes a tensor outside its storage; it is forged")
