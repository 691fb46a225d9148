"""Pickles of arrays and of torch's tensors, read without running what they say.

A pickle is a small program that may call anything. Here the few names that arrays need stand for
functions of this file, which make arrays of plain numbers and nothing else; any other name is
refused before something is called. What the program may allocate is checked while it is scanned.
Every reader raises PoisonError if a file names anything else, or claims more than it holds.

Files of torch.save are read by the same unpickler and not by `torch.load(weights_only=True)`,
which runs nothing either but believes sizes: it makes a bytearray as long as a pickle asks for, and
lets a storage grow until a tensor of any claimed size fits.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.spec import shorten
from ..packed import Header
from ..poison import PoisonError
from .archives import Archive, read_bytes
from .arrays import check_header, numbers_of
from .contents import Foreign, Numbers
from .limits import Limits

MAX_STEPS = 200_000
"""Most instructions of a pickle. An array takes a few dozen, a list of numbers one per number."""
TORCH_PICKLE = re.compile(r"[^/]*/data\.pkl")
"""The member of a zipped file of torch.save that says what it holds."""
OLD_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""What the first of the five pickles of a file before torch 1.6 holds."""
_PLAIN = re.compile(r"[<>=|]?(?:[iu][1248]|f[248]|b1|\?)")
_STORAGES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16},
    **{"BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32},
    **{"Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool},
}
ReadStorage = Callable[[str, int], NDArray[np.uint8]]


def read_pickle(path: Path, limits: Limits) -> Foreign:
    """Return the arrays of a pickle: one, or a dict, list or tuple of them."""
    stream = io.BytesIO(path.read_bytes())
    return Foreign("pickle", _named_arrays(_unpickle(stream, limits, f"{path}"), f"{path}"))


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
    return Foreign(
        "torch", _named_arrays(_unpickle(stream, archive.limits, who, read_storage), who)
    )


def read_old_torch(path: Path, limits: Limits) -> Foreign:
    """Return the arrays of a file of torch.save before 1.6: five pickles, then the values."""
    who = f"{path}"
    stream = io.BytesIO(path.read_bytes())
    size = len(stream.getbuffer())
    storages: dict[str, NDArray[np.uint8]] = {}

    def make_storage(key: str, n_bytes: int) -> NDArray[np.uint8]:
        if n_bytes > size:
            raise PoisonError(
                f"{who} claims {n_bytes:,} bytes of values; it is cut short or forged"
            )
        storages[key] = np.zeros(n_bytes, np.uint8)  # its values come after all pickles
        return storages[key]

    for _ in range(3):  # the magic number, a version, the sizes of C's numbers
        _unpickle(stream, limits, who)
    content = _unpickle(stream, limits, who, make_storage)
    keys = _unpickle(stream, limits, who)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise PoisonError(f"{who} does not list its storages; it is forged")
    for key in map(str, keys):
        stream.seek(8, io.SEEK_CUR)  # the number of values, which the pickle gave too
        if stream.readinto(storages[key].data) < len(storages[key]):
            raise PoisonError(f"{who} ends before its last value; it is cut short")
    return Foreign("torch", _named_arrays(content, who))


def is_old_torch(path: Path) -> bool:
    """Return whether a pickle is the first of a file that torch.save wrote before 1.6."""
    with path.open("rb") as file:
        return pickle.encode_long(OLD_TORCH_MAGIC) in file.read(32)


def _named_arrays(content: Any, who: str) -> dict[str, Numbers]:
    """Return the arrays directly in a pickle's content by name, or by position in a list."""
    if isinstance(content, _Array):
        content = {"array": content}
    elif isinstance(content, (list, tuple)):
        content = {str(i): value for i, value in enumerate(content)}
    if not isinstance(content, dict):
        raise PoisonError(
            f"{who} holds a {type(content).__name__}; an array, a tensor or a dict is needed"
        )
    arrays = {}
    for name, value in content.items():
        value = value.array if isinstance(value, _Array) else value
        if isinstance(value, torch.Tensor):
            value = numbers_of(value, f"{who}: {shorten(str(name))}")
        elif isinstance(value, list) and value and all(type(x) is int for x in value):
            value = np.array(value)  # such as a list of labels
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            arrays[str(name)] = value
    return arrays


def _unpickle(
    stream: io.BytesIO, limits: Limits, who: str, read_storage: ReadStorage | None = None
) -> Any:
    """Return what the restricted unpickler makes of the next pickle, and go past it."""
    start = stream.tell()
    _scan(stream, who)
    end = stream.tell()
    stream.seek(start)
    try:
        content = _Unpickler(stream, limits, who, read_storage).load()
    except UserError:
        raise
    except Exception as error:  # a forged program may fail in any way
        reason = shorten(f"{type(error).__name__}: {error}")
        raise PoisonError(f"{who} is not a readable pickle of arrays ({reason})") from None
    stream.seek(end)
    return content


def _scan(stream: io.BytesIO, who: str) -> None:
    """Go through one pickle's instructions, from the stream's position on, and run none."""
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step >= MAX_STEPS:
                raise PoisonError(
                    f"{who} has more than {MAX_STEPS:,} instructions, so it holds lists of numbers "
                    "or more than a poison; save one array with numpy.save"
                )
            # the unpickler allocates a memo as long as the highest entry
            if "PUT" in opcode.name and int(argument or 0) > MAX_STEPS:
                raise PoisonError(f"{who} asks for a memo of {argument} entries; it is forged")
            if opcode.name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
                raise PoisonError(f"{who} needs {opcode.name}, which is not read; save an array")
    except PoisonError:
        raise
    except Exception as error:  # genops raises whatever its parsers do
        raise PoisonError(f"{who} is not a readable pickle ({shorten(str(error))})") from None


class _Array:
    """An array while it is being unpickled; numpy's are empty first, then given their state."""

    __slots__ = ("_build", "array")

    def __init__(
        self, build: Callable[..., Numbers], array: Numbers | torch.Tensor | None = None
    ) -> None:
        self._build = build
        self.array = array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's state: version, shape, dtype, whether in Fortran's order, bytes."""
        _, shape, dtype, fortran, raw = state
        self.array = self._build(raw, dtype, shape, fortran)


class _Dtype:
    """A dtype while it is being unpickled; only plain numbers are accepted."""

    __slots__ = ("_who", "dtype")

    def __init__(self, code: Any, who: str) -> None:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise PoisonError(
                f"{who} holds {shorten(str(code))} values, which are not read; save plain numbers"
            )
        self._who = who
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's state, of which only the byte order may differ from a plain number's."""
        _, order, subdtype, names, fields, *_ = state
        if (subdtype, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise PoisonError(f"{self._who} holds structured values; save plain numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Inert:
    """A value that a pickle may pass on, but neither look into nor change.

    A bare function or tensor on the unpickler's stack would obey its BUILD instruction, which sets
    attributes and calls `__setstate__`.
    """

    __slots__ = ("value",)
    value: Any

    def __init__(self, value: Any) -> None:
        object.__setattr__(self, "value", value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(name)


class _Name(_Inert):
    """A name that a pickle may use, which stands for a function of this file."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        """Return what our function makes of the arguments."""
        return self.value(*arguments)


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows arrays and dense tensors of plain numbers, and nothing else."""

    def __init__(
        self, stream: io.BytesIO, limits: Limits, who: str, read_storage: ReadStorage | None
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self.limits = limits
        self.who = who
        self.read_storage = read_storage
        self.claimed: dict[str, int] = {}
        self.storages: dict[str, NDArray[np.uint8]] = {}
        self.known: dict[str, _Inert] = {
            "numpy.ndarray": _Name(_refuse_call),
            "numpy.dtype": _Name(lambda code, *_: _Dtype(code, who)),
            "collections.OrderedDict": _Name(dict),
            "_codecs.encode": _Name(_encode_latin1),
            "torch._utils._rebuild_tensor_v2": _Name(self._tensor),
            "torch._utils._rebuild_tensor": _Name(self._tensor),
            "torch._utils._rebuild_parameter": _Name(lambda tensor, *_: tensor),
        }
        for core in ("numpy.core", "numpy._core"):  # until numpy 2.0, and since
            self.known[f"{core}.multiarray._reconstruct"] = _Name(lambda *_: _Array(self._build))
            # a number stored with the arrays, such as an accuracy, is left out
            self.known[f"{core}.multiarray.scalar"] = _Name(lambda *_: None)
            self.known[f"{core}.numeric._frombuffer"] = _Name(self._from_buffer)
        for kind, dtype in _STORAGES.items():
            self.known[f"torch.{kind}Storage"] = _Inert(dtype)

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        if f"{module}.{name}" not in self.known:
            raise PoisonError(
                f"{self.who} asks for {shorten(f'{module}.{name}')}, which is no part of an array; "
                "it was not run. Save the array alone, with numpy.save or torch.save"
            )
        return self.known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Inert:
        """Return the key, type and length of a storage, which is not read before a tensor is."""
        if self.read_storage is None:
            raise PoisonError(f"{self.who} refers to things outside itself; save the array alone")
        what, kind, key, _, n, *view = pid
        dtype = kind.value
        if what != "storage" or not isinstance(dtype, torch.dtype) or type(n) is not int or n < 0:
            raise PoisonError(f"{self.who} refers to something that is no tensor's storage")
        n_bytes = n * dtype.itemsize
        same = self.claimed.setdefault(str(key), n_bytes) == n_bytes
        if not same or any(part is not None for part in view):
            raise PoisonError(f"{self.who} shares storages; save tensor.clone()")
        self.limits.check_bytes(sum(self.claimed.values()), self.who)
        return _Inert((str(key), dtype, n))

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Array:
        """Return a tensor, which must lie within its storage and within the limits."""
        numbers = (offset, *size, *stride)
        if type(storage) is not _Inert or not all(type(x) is int for x in numbers):
            raise PoisonError(f"{self.who} does not describe a tensor of plain numbers")
        key, dtype, n = storage.value
        self.limits.check_shape(tuple(size), self.who)
        last = offset + sum((a - 1) * b for a, b in zip(size, stride, strict=True))
        if min(numbers) < 0 or (0 not in size and last >= n):
            raise PoisonError(f"{self.who} describes a tensor outside its storage; it is forged")
        if self.read_storage is not None and key not in self.storages:
            self.storages[key] = self.read_storage(key, self.claimed[key])
        # an empty array has no stride that torch would reinterpret
        raw = torch.from_numpy(self.storages[key])
        values = raw.view(dtype) if n else torch.empty(0, dtype=dtype)
        return _Array(self._build, values.as_strided(size, stride, offset))

    def _from_buffer(
        self, raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
    ) -> _Array:
        """Return the array that protocol 5 describes; order K has axes that were swapped."""
        array = self._build(raw, dtype, shape, order == "F")
        return _Array(self._build, array.transpose(axes) if order == "K" else array)

    def _build(self, raw: Any, dtype: Any, shape: Any, fortran: Any) -> Numbers:
        """Return bytes as an array of a checked shape and plain dtype."""
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        shape = (shape,) if isinstance(shape, int) else shape
        if (
            not isinstance(dtype, _Dtype)
            or not isinstance(raw, (bytes, bytearray))
            or not isinstance(shape, (tuple, list))
            or not all(type(side) is int for side in shape)
        ):
            raise PoisonError(f"{self.who} does not describe an array of plain numbers; save one")
        header = Header(tuple(shape), bool(fortran), dtype.dtype)
        check_header(header, len(raw), self.limits, self.who)
        return header.array(np.frombuffer(raw, np.uint8))


def _encode_latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Return the bytes that old protocols write as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("text that is not latin1")
    return text.encode("latin1")


def _refuse_call(*_: Any) -> NoReturn:
    """Refuse to call what may only be named."""
    raise ValueError("an array is built in an unusual way")
