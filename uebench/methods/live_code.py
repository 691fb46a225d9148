"""The code of a class as it is in memory: what it computes with, followed from value to value.

A class that was typed into a notebook has no file to hash, and a module that is loaded may differ
from its file. So this hashes the code objects, constants, defaults, closures and attributes of a
class, the globals that its functions name, and everything that these refer to in turn. The walk
ends at libraries and at the suite, whose versions stand for their code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import functools
import hashlib
import importlib.util
import logging
import sys
import threading
import types
from copyreg import dispatch_table
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel

from .code_files import code_hashes, data_hashes, is_library

SCALARS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(...),
    type(NotImplemented),
    range,
)
NAMED = (
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
"""Types of C functions, which are what their names say."""

NEUTRAL = (logging.Logger, type(threading.Lock()), type(threading.RLock()))
"""Types of values that change no number, whatever their state is."""

INDIRECT = {"getattr", "vars", "globals", "locals", "eval", "exec"}
"""Functions that look up a name which is given as a text."""

DERIVED = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__signature__"),
    *("__abstractmethods__", "_abc_impl", "__firstlineno__", "__static_attributes__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__class_vars__", "info"),
    "__private_attributes__",  # hashed by their defaults: pydantic changes them on first use
}
"""Attributes of a class that change no number, or that Python derives from other attributes."""


class UnidentifiedError(Exception):
    """Code refers to a value whose content cannot be known; the message says to which."""


def live_hash(code: Any, strict: bool = True) -> str:
    """Return the hash of everything in memory that a class or function computes with.

    Args:
        code: the class or function, or a list of them.
        strict: whether a value of unknown content is an error; otherwise its type stands for it.

    Raises:
        UnidentifiedError: there is a value of unknown content.
    """
    walk = _Walk(strict)
    try:
        walk.add(code, getattr(code, "__name__", "the code"))
    except RecursionError:
        if strict:
            raise UnidentifiedError("it refers to data that are nested too deeply") from None
        return "nested too deeply"  # how far the walk came depends on the caller
    if strict:
        for label, digest in data_hashes(walk.words, walk.folders, anywhere=True).items():
            walk.text(label, digest)
    return walk.digest.hexdigest()


class _Names(NamedTuple):
    """The names that the code of a function uses."""

    globals: set[str]
    attributes: set[str]
    imports: set[tuple[str, int]]
    """Modules that it imports, as written, each with its number of leading dots."""


def _names(code: types.CodeType) -> _Names:
    """Return the names that a code object and the functions inside it use."""
    names = _Names(set(), set(), set())
    steps = [s for s in dis.get_instructions(code) if s.opname not in ("EXTENDED_ARG", "CACHE")]
    for i, step in enumerate(steps):
        match step.opname:
            case "LOAD_GLOBAL" | "LOAD_NAME":
                names.globals.add(step.argval)
            case "IMPORT_NAME":
                # the two constants before it are the level and the list of names
                names.imports.add((step.argval, steps[i - 2].argval))
            case "LOAD_ATTR" | "LOAD_METHOD" | "IMPORT_FROM" | "LOAD_SUPER_ATTR":
                names.attributes.add(step.argval)
    texts = {const for const in code.co_consts if isinstance(const, str)}
    if names.globals & INDIRECT:
        names.globals.update(texts)
        names.attributes.update(texts)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            inner = _names(const)
            names.globals.update(inner.globals)
            names.attributes.update(inner.attributes)
            names.imports.update(inner.imports)
    return names


class _Walk:
    """Hashes values and what they refer to, each of them once."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.digest = hashlib.sha256()
        self.words: set[str] = set()
        self.folders: dict[Path, None] = {}
        self._numbers: dict[Any, int] = {}
        self._kept: list[Any] = []  # so that no other value gets the `id` of one that was seen

    def text(self, *words: object) -> None:
        """Hash words, each with its length, so that no two sequences of them are alike."""
        for word in map(str, words):
            self.digest.update(f"{len(word)}:{word}".encode("utf-8", "surrogatepass"))

    def add(self, value: Any, where: str) -> None:
        """Hash a value and everything that it refers to.

        Args:
            value: the value.
            where: how it is reached, for the error.
        """
        if type(value) in SCALARS:
            self.text(type(value).__name__, repr(value))
            if isinstance(value, str):
                self.words.add(value)
        elif self._is_new(id(value)):
            self._kept.append(value)
            try:
                self._add_new(value, where)
            except (UnidentifiedError, RecursionError):
                raise
            except Exception as error:  # a stranger's `__reduce__` may raise anything
                kind = f"{type(value).__module__}.{type(value).__qualname__}"
                if self.strict:
                    raise UnidentifiedError(f"{where} is a {kind}") from error
                self.text("unidentified", kind)

    def _is_new(self, mark: Any) -> bool:
        """Return whether something is met for the first time; hash its number if it is not."""
        if mark in self._numbers:
            self.text("again", self._numbers[mark])
            return False
        self._numbers[mark] = len(self._numbers)
        return True

    def _add_new(self, value: Any, where: str) -> None:
        self.text(type(value).__qualname__)
        match value:
            case types.FunctionType():
                self._add_function(value, where)
            case type():
                self._add_class(value, where)
            case types.CodeType():
                self._add_code(value, where)
            case types.ModuleType():
                self._add_module(value, {n for n in vars(value) if n[:2] != "__"}, where)
            case staticmethod() | classmethod() | types.MethodType():
                self.add(getattr(value, "__self__", None), where)
                self.add(value.__func__, where)
            case property():
                self._add_all((value.fget, value.fset, value.fdel), where)
            case functools.cached_property():
                self.add(value.func, where)
            case torch.Tensor():
                plain = value.detach().cpu().contiguous()
                self.text(plain.dtype, tuple(plain.shape))
                self.digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
            case torch.Generator():
                self.add(value.get_state(), where)
            case np.ndarray() if not value.dtype.hasobject:
                self.text(value.dtype.descr, value.shape)
                self.digest.update(np.ascontiguousarray(value).tobytes())
            case dict() if type(value) is dict:
                self.text(len(value))
                for key, item in value.items():
                    self.add(key, where)
                    self.add(item, f"{where}[{key!r}]")
            case list() | tuple() if type(value) in (list, tuple):
                self._add_all(value, where)
            case set() | frozenset() if type(value) in (set, frozenset):
                self._add_set(value, where)
            case types.MappingProxyType():
                self.add(dict(value), where)
            case Path():
                self.add(str(value), where)
            case _ if isinstance(value, NAMED):
                self.text(value.__qualname__, getattr(value, "__module__", ""))
                self.add(getattr(value, "__self__", None), where)
            case _ if not isinstance(value, NEUTRAL):
                self._add_instance(value, where)

    def _add_all(self, values: Any, where: str) -> None:
        self.text(len(values))
        for value in values:
            self.add(value, where)

    def _add_set(self, values: Any, where: str) -> None:
        """Hash a set, whose order differs between processes."""
        digests = []
        for value in values:
            inner = _Walk(self.strict)
            inner.add(value, where)
            digests.append(inner.digest.hexdigest())
            self.words |= inner.words
        self.text(*sorted(digests))

    def _add_function(self, function: types.FunctionType, where: str) -> None:
        """Hash a function; one of a library by its name, but with what a decorator put into it."""
        code = function.__code__
        if is_library(code.co_filename):
            self.text(function.__module__, function.__qualname__)
        else:
            self.add(code, where)
            self._add_globals(function.__globals__, _names(code), where)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # a name that is not assigned yet
                continue
            self.add(content, f"`{name}` of {where}")
        self.add(function.__defaults__, where)
        self.add(function.__kwdefaults__, where)
        self.add(function.__dict__, where)

    def _add_code(self, code: types.CodeType, where: str) -> None:
        self.digest.update(code.co_code)
        self.text(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.text(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self._add_all(code.co_consts, where)

    def _add_globals(self, space: dict[str, Any], names: _Names, where: str) -> None:
        """Hash the globals and modules that a function uses; built-in functions need no hash."""
        if isinstance(file := space.get("__file__"), str):
            self.folders[Path(file).resolve().parent] = None
        for name in sorted(names.globals & space.keys()):
            self.text(name)
            value = space[name]
            if isinstance(value, types.ModuleType):
                self._add_module(value, names.attributes, f"`{name}` in {where}")
            else:
                self.add(value, f"`{name}` in {where}")
        for name, level in sorted(names.imports):
            with contextlib.suppress(ImportError):  # a relative one outside a package
                full = importlib.util.resolve_name("." * level + name, space.get("__package__"))
                self._add_import(full, names.attributes, where)

    def _add_import(self, name: str, attributes: set[str], where: str) -> None:
        """Hash a module that a function imports: as it is loaded, or else its files."""
        parts = name.split(".")
        if name not in sys.modules:
            if self.strict:
                self.text(name, sorted(code_hashes(name).items()))
            return
        for i in range(len(parts)):
            if (module := sys.modules.get(".".join(parts[: i + 1]))) is not None:
                self._add_module(module, {*attributes, *parts[i + 1 : i + 2]}, where)

    def _add_module(self, module: types.ModuleType, attributes: set[str], where: str) -> None:
        """Hash the attributes of a module that a function may use; of a library only the name."""
        self.text(module.__name__)
        file = getattr(module, "__file__", None)
        name = module.__name__.partition(".")[0]
        if name in sys.stdlib_module_names - {"__main__"} or (file and is_library(file)):
            return
        for name in sorted(attributes & vars(module).keys()):
            if self._is_new((id(module), name)):
                self.text(name)
                value = vars(module)[name]
                if isinstance(value, types.ModuleType):
                    self._add_module(value, attributes, where)
                else:
                    self.add(value, f"`{module.__name__}.{name}` in {where}")

    def _add_class(self, cls: type, where: str) -> None:
        """Hash a class: its bases, attributes and fields; a class of a library by its name."""
        if _is_library_class(cls):
            # the version stands for the code of a method of the suite
            self.text(cls.__module__, cls.__qualname__, getattr(cls, "version", ""))
            return
        where = cls.__name__
        self._add_all(cls.__bases__, where)
        self.add(type(cls), where)
        attributes = vars(cls)
        for name in sorted(attributes):
            if name not in DERIVED and not name.startswith("__pydantic_"):
                self.text(name)
                self.add(attributes[name], f"{where}.{name}")
        if issubclass(cls, BaseModel):
            for name, private in cls.__private_attributes__.items():
                self.text(name)
                self._add_all((private.default, private.default_factory), f"{where}.{name}")
            for name, field in cls.model_fields.items():
                self.text(name)
                parts = (field.annotation, field.default, field.default_factory, field.metadata)
                self._add_all(parts, f"{where}.{name}")
            validators = cls.__pydantic_decorators__
            for group in dataclasses.fields(validators):
                for name, validator in dict(getattr(validators, group.name) or {}).items():
                    self.text(name)
                    self.add(validator.info, f"{where}.{name}")

    def _add_instance(self, value: Any, where: str) -> None:
        """Hash an object by what `pickle` would save of it; a file or a lock cannot be saved."""
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, types.FunctionType):  # functools.cache
            self.add(wrapped, where)
            return
        reduce = dispatch_table.get(type(value))
        reduced = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        if isinstance(reduced, str):  # the name of a global
            self.text(type(value).__module__, reduced)
            return
        build, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        self._add_all((build, arguments, state), where)
        self.add(list(items or ()), where)
        self.add(list(pairs or ()), where)


def _is_library_class(cls: type) -> bool:
    """Return whether a class belongs to a library or to the suite."""
    is_heap_type = cls.__flags__ & 1 << 9
    module = sys.modules.get(cls.__module__)
    if not is_heap_type or module is None or cls.__module__ == "__main__":
        return not is_heap_type
    file = getattr(module, "__file__", None)
    if file is None:  # C code; or code that was executed in a namespace without a name
        return hasattr(module, cls.__qualname__.partition(".")[0])
    return is_library(file)
