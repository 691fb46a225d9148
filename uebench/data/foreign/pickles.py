"""Pickles of arrays, read without running what they say.

A pickle is a small program that may call anything. Here the few names that arrays need stand for
functions of this file, which make arrays of plain numbers and nothing else; any other name is
refused before something is called. What the program may allocate is checked while it is scanned.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...common.errors import UserError
from ...common.spec import shorten
from ..poison import PoisonError
from .arrays import check_dtype
from .contents import Foreign, Numbers
from .limits import Limits

MAX_STEPS = 200_000
"""Most instructions of a pickle; arrays take a few dozen each, lists of numbers one a number."""
_PLAIN = re.compile(r"[<>=|]?(?:[iu][1248]|f[248]|b1|\?)")
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def read_pickle(path: Path, limits: Limits) -> Foreign:
    """Return the arrays of a pickle: one, or a dict, list or tuple of them.

    Raises:
        PoisonError: it names anything but numpy's arrays, or is no such pickle.
    """
    who = f"{path}"
    stream = io.BytesIO(path.read_bytes())
    scan(stream, limits, who)
    stream.seek(0)
    return Foreign("pickle", named_arrays(load(ArrayUnpickler(stream, limits, who), who), who))


def named_arrays(content: Any, who: str) -> dict[str, Numbers]:
    """Return the arrays directly in a pickle's content by name, or by position in a list."""
    if isinstance(content, (Standin, np.ndarray)):
        content = {"array": content}
    elif isinstance(content, (list, tuple)):
        content = {str(i): value for i, value in enumerate(content)}
    if not isinstance(content, dict):
        raise PoisonError(f"{who} holds a {type(content).__name__}; an array or a dict is needed")
    arrays = {}
    for name, value in content.items():
        value = value.array if isinstance(value, Standin) else value
        if isinstance(value, list) and value and all(type(x) is int for x in value):
            value = np.array(value)  # such as a list of labels
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            arrays[str(name)] = value
    return arrays


def scan(stream: io.BytesIO, limits: Limits, who: str) -> None:
    """Go through one pickle's instructions, from the stream's position on, and run none.

    Raises:
        PoisonError: it is cut short, or too long, or asks for a huge memo.
    """
    steps = 0
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            steps += 1
            if steps > MAX_STEPS:
                raise PoisonError(
                    f"{who} has more than {MAX_STEPS:,} instructions, so it holds lists of numbers "
                    "or more than a poison; save one array with numpy.save"
                )
            if "PUT" in opcode.name and int(argument or 0) > MAX_STEPS:
                raise PoisonError(f"{who} asks for a memo of {argument} entries; it is forged")
            if opcode.name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
                raise PoisonError(f"{who} needs {opcode.name}, which is not read; save an array")
    except PoisonError:
        raise
    except Exception as error:  # genops raises whatever its parsers do
        raise PoisonError(f"{who} is not a readable pickle ({shorten(str(error))})") from None


def load(unpickler: pickle.Unpickler, who: str) -> Any:
    """Return what a restricted unpickler makes of a scanned pickle."""
    try:
        return unpickler.load()
    except PoisonError:
        raise
    except Exception as error:  # a forged program may fail in any way
        reason = shorten(f"{type(error).__name__}: {error}")
        raise PoisonError(f"{who} is not a readable pickle of arrays ({reason})") from None


class Standin:
    """An array while it is being unpickled: empty first, then given its state."""

    __slots__ = ("_limits", "_who", "array")

    def __init__(self, limits: Limits, who: str) -> None:
        self._limits = limits
        self._who = who
        self.array: Numbers | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take in numpy's state: version, shape, dtype, whether Fortran's order, bytes."""
        _, shape, dtype, fortran, raw = state
        order = "F" if fortran else "C"
        self.array = numbers(raw, dtype, shape, order, self._limits, self._who)


class Dtype:
    """A dtype while it is being unpickled; only plain numbers come out."""

    __slots__ = ("_who", "dtype")

    def __init__(self, code: str, who: str) -> None:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise PoisonError(
                f"{who} holds {shorten(str(code))} values, which are not read; save plain numbers"
            )
        self._who = who
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take in numpy's state, of which the byte order alone may say something."""
        _, order, subdtype, names, fields, *_ = state
        if (subdtype, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise PoisonError(f"{self._who} holds structured values; save plain numbers")
        self.dtype = self.dtype.newbyteorder(order)


class Name:
    """What a name in a pickle stands for; it can be called, and nothing can be set on it."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(name)

    def __call__(self, *arguments: Any) -> Any:
        """Return what our function makes of the arguments."""
        return self._call(*arguments)


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows numpy's arrays of plain numbers, and nothing else."""

    def __init__(self, stream: io.BytesIO, limits: Limits, who: str) -> None:
        super().__init__(stream, encoding="latin1")
        self.limits = limits
        self.who = who
        self.known: dict[tuple[str, str], Name] = {
            ("numpy", "ndarray"): Name(_not_called),
            ("numpy", "dtype"): Name(lambda code, *_: Dtype(code, who)),
            ("collections", "OrderedDict"): Name(dict),
            ("_codecs", "encode"): Name(_latin1),
        }
        for module in _NUMPY:
            self.known[module, "_reconstruct"] = Name(lambda *_: Standin(limits, who))
            self.known[module, "scalar"] = Name(lambda *_: None)  # such as an accuracy beside it
        for module in _NUMERIC:
            self.known[module, "_frombuffer"] = Name(self._from_buffer)

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for.

        Raises:
            PoisonError: the pickle asks for anything but arrays.
        """
        if (module, name) not in self.known:
            raise PoisonError(
                f"{self.who} asks for {shorten(f'{module}.{name}')}, which is no part of an array; "
                "it was not run. Save the array alone, with numpy.save or torch.save"
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to things outside the pickle."""
        raise PoisonError(f"{self.who} refers to things outside itself; save the array alone")

    def _from_buffer(self, raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Any:
        """Return the array that protocol 5 describes; order K has axes that were swapped."""
        made = Standin(self.limits, self.who)
        plain = "C" if order == "K" else order
        made.array = numbers(raw, dtype, shape, plain, self.limits, self.who)
        if order == "K":
            made.array = made.array.transpose(axes)
        return made


def numbers(raw: Any, dtype: Any, shape: Any, order: Any, limits: Limits, who: str) -> Numbers:
    """Return bytes as an array of a checked shape and plain dtype."""
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    shape = (shape,) if isinstance(shape, int) else shape
    if (
        not isinstance(dtype, Dtype)
        or not isinstance(raw, (bytes, bytearray))
        or not isinstance(shape, (tuple, list))
        or not all(type(side) is int for side in shape)
        or order not in ("C", "F")
    ):
        raise PoisonError(f"{who} does not describe an array of plain numbers; save one")
    limits.check_shape(tuple(shape), who)
    check_dtype(dtype.dtype, who)
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise PoisonError(
            f"{who} claims {list(shape)} {dtype.dtype} values in {len(raw):,} bytes; it is cut "
            "short or forged"
        )
    return np.frombuffer(raw, dtype.dtype).reshape(tuple(shape), order=order)


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Return the bytes that old protocols write as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UserError("text that is not latin1")
    return text.encode("latin1")


def _not_called(*_: Any) -> NoReturn:
    """Refuse to call what is only named."""
    raise UserError("an array made by hand")
