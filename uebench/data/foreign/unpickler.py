"""The restricted unpickler: it makes arrays of plain numbers, and runs nothing that a pickle says.

A pickle is a small program that may call anything. Here the few names that arrays need stand for
functions of this file, which make arrays of plain numbers and nothing else; any other name is
refused before something is called. What the program may allocate is checked while it is scanned.

Files of torch.save are read by the same unpickler and not by `torch.load(weights_only=True)`,
which runs nothing either but believes sizes: it makes a bytearray as long as a pickle asks for, and
lets a storage grow until a tensor of any claimed size fits.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...common.errors import UserError
from ...common.spec import shorten
from ..packed import Header
from ..poison import PoisonError
from .arrays import check_header, numbers_of
from .contents import Numbers
from .limits import Limits

MIN_STEPS, STEPS_PER_IMAGE = 200_000, 64
"""Most instructions of a pickle: an array takes a few dozen, a label in a list one if it is
Python's number, eight if it is numpy's, and forty if it is torch's."""

_PLAIN = re.compile(r"[<>=|]?(?:[iu][1248]|f[248]|b1|\?)")
_STORAGES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16},
    **{"BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32},
    **{"Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool},
}
_RECORDS = ("torch.utils.data.dataset.TensorDataset", "argparse.Namespace")
"""Classes of objects that only hold values, such as arrays."""
_LEFT_OUT = (
    *("torch.Size", "torch.device", "pathlib.PosixPath", "datetime.datetime"),
    *("builtins.set", "builtins.frozenset", "builtins.slice", "builtins.complex"),
    *("__builtin__.set", "__builtin__.frozenset", "__builtin__.slice", "__builtin__.complex"),
    *("builtins.list", "__builtin__.list"),
)
"""What often lies next to arrays and is not needed to read them."""
_DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64"),
)

ReadStorage = Callable[[str, int], NDArray[np.uint8]]


def unpickled(
    stream: io.BytesIO,
    limits: Limits,
    who: str,
    read_storage: ReadStorage | None = None,
    nested: bool = False,
) -> Any:
    """Return what the restricted unpickler makes of the next pickle, and go past it.

    Args:
        stream: where it begins.
        limits: how large it may be.
        who: the file, for messages.
        read_storage: reads a storage of torch by its key; a pickle alone has none.
        nested: whether it lies within another pickle, and so may not hold a third one.
    """
    start = stream.tell()
    _scan(stream, max(MIN_STEPS, STEPS_PER_IMAGE * limits.n), who)
    end = stream.tell()
    stream.seek(start)
    try:
        content = _Unpickler(stream, limits, who, read_storage, nested).load()
    except UserError:
        raise
    except Exception as error:  # a forged program may fail in any way
        reason = shorten(f"{type(error).__name__}: {error}")
        raise PoisonError(f"{who} is not a readable pickle of arrays ({reason})") from None
    stream.seek(end)
    return content


def _scan(stream: io.BytesIO, max_steps: int, who: str) -> None:
    """Go through one pickle's instructions, from the stream's position on, and run none."""
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step >= max_steps:
                raise PoisonError(
                    f"{who} has more than {max_steps:,} instructions, which pixels in lists would "
                    "need, but no arrays; save one array with numpy.save"
                )
            # the unpickler allocates a memo as long as the highest entry
            if "PUT" in opcode.name and int(argument or 0) > max_steps:
                raise PoisonError(f"{who} asks for a memo of {argument} entries; it is forged")
            if opcode.name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
                raise PoisonError(f"{who} needs {opcode.name}, which is not read; save an array")
    except PoisonError:
        raise
    except Exception as error:  # genops raises whatever its parsers do
        raise PoisonError(f"{who} is not a readable pickle ({shorten(str(error))})") from None


class PickledArray:
    """An array while it is being unpickled; numpy's are empty first, then given their state."""

    __slots__ = ("_build", "array")

    def __init__(
        self, build: Callable[..., Numbers], array: Numbers | Tensor | None = None
    ) -> None:
        self._build = build
        self.array = array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's state: version, shape, dtype, whether in Fortran's order, bytes."""
        _, shape, dtype, fortran, raw = state
        self.array = self._build(raw, dtype, shape, fortran)

    def numbers(self, who: str) -> Numbers:
        """Return the array, which may be of torch."""
        if self.array is None:
            raise PoisonError(f"{who} has an array without content; it is cut short or forged")
        return numbers_of(self.array, who) if isinstance(self.array, Tensor) else self.array


class _Dict(dict[Any, Any]):
    """A dict whose attributes, such as `_metadata` of a network's weights, are left out."""

    def __setstate__(self, _: Any) -> None:
        """Take no attribute."""


class PickledRecord:
    """An object that only holds values, of which no method exists here and none is called."""

    state: Mapping[Any, Any] = MappingProxyType({})

    def __init__(self, *_: Any) -> None:
        """Take no part in how the object was made."""

    def __setstate__(self, state: Any) -> None:
        """Take the values."""
        self.state = state if isinstance(state, dict) else {}


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


class PickledStorage(_Inert):
    """A storage of torch: its key in the file, the type and the number of its values."""

    __slots__ = ()
    value: tuple[str, torch.dtype, int]


class _Name(_Inert):
    """A name that a pickle may use, which stands for a function of this file."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        """Return what our function makes of the arguments."""
        return self.value(*arguments)


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows arrays and dense tensors of plain numbers, and nothing else."""

    def __init__(
        self,
        stream: io.BytesIO,
        limits: Limits,
        who: str,
        read_storage: ReadStorage | None,
        nested: bool,
    ) -> None:
        super().__init__(stream, encoding="latin1")
        # what lies within the pickle lies there once, however often it is asked for
        self.bytes_within = 0 if nested else len(stream.getbuffer())
        self.limits = limits
        self.who = who
        self.read_storage = read_storage
        self.claimed: dict[str, int] = {}
        self.storages: dict[str, NDArray[np.uint8]] = {}
        self.known: dict[str, Any] = {
            **dict.fromkeys(_RECORDS, PickledRecord),
            **dict.fromkeys(_LEFT_OUT, _Name(lambda *_: None)),
            **dict.fromkeys([f"torch.{name}" for name in _DTYPES], _Inert(None)),
            "numpy.ndarray": _Name(_refuse_call),
            "numpy.dtype": _Name(lambda code, *_: _Dtype(code, who)),
            "collections.OrderedDict": _Name(_Dict),
            "collections.defaultdict": _Name(lambda *_: _Dict()),
            "torch.storage._load_from_bytes": _Name(self._storage_in_bytes),
            "_codecs.encode": _Name(_encode_latin1),
            "torch._utils._rebuild_tensor_v2": _Name(self._tensor),
            "torch._utils._rebuild_tensor": _Name(self._tensor),
            "torch._utils._rebuild_parameter": _Name(lambda tensor, *_: tensor),
        }
        for core in ("numpy.core", "numpy._core"):  # until numpy 2.0, and since
            self.known[f"{core}.multiarray._reconstruct"] = _Name(
                lambda *_: PickledArray(self._build)
            )
            self.known[f"{core}.multiarray.scalar"] = _Name(self._number)
            self.known[f"{core}.numeric._frombuffer"] = _Name(self._from_buffer)
        for kind, dtype in _STORAGES.items():
            self.known[f"torch.{kind}Storage"] = _Inert(dtype)

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        if f"{module}.{name}" not in self.known:
            if module.startswith("torch") and ("_rebuild" in name or name.endswith("Storage")):
                raise PoisonError(
                    f"{self.who} holds a tensor of a kind that is not read ({shorten(name)}): a "
                    "complex, sparse, quantised, float8 or wide unsigned one, for example; save "
                    "it as a dense tensor of float32 or uint8"
                )
            raise PoisonError(
                f"{self.who} asks for {shorten(f'{module}.{name}')}, and only arrays, numbers, "
                "dicts and lists are read; it was not run. Save the arrays alone, with numpy.savez "
                "or torch.save"
            )
        return self.known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> PickledStorage:
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
        return PickledStorage((str(key), dtype, n))

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> PickledArray:
        """Return a tensor, which must lie within its storage and within the limits."""
        numbers = (offset, *size, *stride)
        if type(storage) is not PickledStorage or not all(type(x) is int for x in numbers):
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
        return PickledArray(self._build, values.as_strided(size, stride, offset))

    def _storage_in_bytes(self, raw: Any) -> PickledStorage:
        """Return the storage that pickle, unlike torch.save, wrote as a file within the file."""
        if not isinstance(raw, (bytes, bytearray)):
            raise PoisonError(f"{self.who} does not describe a tensor of plain numbers")
        self.bytes_within -= len(raw)
        if self.bytes_within < 0:
            raise PoisonError(f"{self.who} holds pickles within pickles; it is forged")
        storage, storages = load_old_torch(io.BytesIO(raw), self.limits, self.who, nested=True)
        if not isinstance(storage, PickledStorage):
            raise PoisonError(f"{self.who} does not describe a tensor of plain numbers")
        key = f"{len(self.storages)} in bytes"
        own_key, dtype, n = storage.value
        self.storages[key] = storages[own_key]
        return PickledStorage((key, dtype, n))

    def _number(self, dtype: Any, raw: Any = b"") -> Any:
        """Return a number of numpy as Python's."""
        return self._build(raw, dtype, (), False).item()

    def _from_buffer(
        self, raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
    ) -> PickledArray:
        """Return the array that protocol 5 describes; order K has axes that were swapped."""
        array = self._build(raw, dtype, shape, order == "F")
        return PickledArray(self._build, array.transpose(axes) if order == "K" else array)

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


def load_old_torch(
    stream: io.BytesIO, limits: Limits, who: str, nested: bool = False
) -> tuple[Any, dict[str, NDArray[np.uint8]]]:
    """Return the content of such a file, and its storages by their keys."""
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
        unpickled(stream, limits, who, nested=nested)
    content = unpickled(stream, limits, who, make_storage, nested)
    if isinstance(content, PickledStorage):  # a storage alone, which no tensor has asked for
        key, dtype, n = content.value
        make_storage(key, n * dtype.itemsize)
    keys = unpickled(stream, limits, who, nested=nested)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise PoisonError(f"{who} does not list its storages; it is forged")
    for key in map(str, keys):
        stream.seek(8, io.SEEK_CUR)  # the number of values, which the pickle gave too
        if stream.readinto(storages[key].data) < len(storages[key]):
            raise PoisonError(f"{who} ends before its last value; it is cut short")
    return content, storages
