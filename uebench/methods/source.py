"""What the key of somebody's own method contains of its code.

The suite's methods get a new version when their numbers change. But authors edit a plug-in and run
it again without changing its version, and two authors may choose the same name. So the code itself
is part of the key: of a method that was loaded from a file, all files that it reaches; of a class
that was typed into a session, everything in memory that it computes with. If a file or a value was
changed after a plug-in was loaded, both count, since the numbers may follow either.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..store.store import SESSION, key_of
from .base import Method
from .code_files import DATA, code_hashes, count_as_own, data_hashes, is_library
from .live_code import UnidentifiedError, live_hash

log = logging.getLogger(__name__)


class _Code(NamedTuple):
    """The code of a class: the hashes of its files, by name, and that of its state in memory."""

    files: dict[str, str]
    live: str


_loaded: dict[type[Method], _Code] = {}
_modules: dict[type[Method], str] = {}
_changed: dict[type[Method], bool] = {}
_planned: dict[type[Method], str] = {}
_plan: dict[type[Method], str] | None = None
_unidentified = itertools.count()


def remember_code(cls: type[Method], module: str = "") -> _Code:
    """Return the code of a plug-in's class as it was when this was first called, at loading.

    Args:
        cls: the class.
        module: the name of the module that was loaded to get the class.
    """
    if cls not in _loaded:
        _modules[cls] = module
        _loaded[cls] = _code(cls)
    return _loaded[cls]


@contextlib.contextmanager
def code_read_once() -> Iterator[None]:
    """Read the code of each class only once inside this context, such as for all cells of a plan.

    Elsewhere it is read again each time, because a session may change it at any moment.
    """
    global _plan
    before, _plan = _plan, {} if _plan is None else _plan
    try:
        yield
    finally:
        _plan = before


def source_of(method: Method) -> dict[str, str]:
    """Return what the key contains of a method's code; empty for the suite's own methods.

    A method of the suite counts as somebody's own while one of its functions is replaced. If the
    code of a class cannot be identified, its results are kept in this process alone.
    """
    if type(method) in _planned:
        return {"source": _planned[type(method)]}
    source = _source(type(method))
    if not source:
        return {}
    own_file = getattr(sys.modules.get(type(method).__module__), "__file__", None)
    options = {str(v) for v in method.__dict__.values() if isinstance(v, (str, Path))}
    files = data_hashes(options, [Path(own_file).parent] if own_file else [], anywhere=True)
    return {"source": key_of({"source": source, **files}) if files else source}


def loaded_code(method: Method) -> str:
    """Return the hash of a plug-in's code as it was loaded, without data; empty for other methods.

    Data are left out because a method may write files of its own while a run computes.
    """
    if method.info.origin in ("built-in", "imported", "session"):
        return ""
    files = remember_code(type(method)).files
    return key_of({name: value for name, value in files.items() if not name.startswith(DATA)})


def use_planned_source(method: Method, source: str) -> None:
    """Use the source that the driver of a run has put into a method's keys, in its worker."""
    _planned[type(method)] = source


def exists_only_here(method: Method) -> bool:
    """Return whether no other process can load a method with the code that it has in this one.

    What counts is its code when its key was last computed: its own code may change something when
    it runs, as a cache does, and in every process it would do the same.
    """
    cls = type(method)
    if cls not in _changed:
        _source(cls)
    return cls.info.origin == "session" or _changed.get(cls, False)


def _source(cls: type[Method]) -> str:
    """Return the hash of the code of a class; empty for a method of the suite."""
    if _plan is None:
        return _read(cls)
    if cls not in _plan:
        _plan[cls] = _read(cls)
    return _plan[cls]


def _read(cls: type[Method]) -> str:
    if cls.info.origin in ("built-in", "imported"):
        patches = _patches(cls)
        _changed[cls] = bool(patches)
        return live_hash(patches, strict=False) if patches else ""
    if cls.info.origin == "session":
        _modules_of(cls)
        try:
            return live_hash(cls)
        except UnidentifiedError as error:
            log.warning(
                "%s %s: its results are not kept, because the content of what its code uses is "
                "unknown: %s",
                *(cls.info.kind, cls.info.name, error),
            )
            return f"{SESSION}-{next(_unidentified)}"
    before, now = remember_code(cls), _code(cls)
    _changed[cls] = now != before
    if now == before:
        return now.files[""] if now.files.keys() == {""} else key_of(now.files)
    log.warning(
        "%s %s was changed after it was loaded; restart Python to use its files as they are now",
        *(cls.info.kind, cls.info.name),
    )
    return key_of({"before": before, "now": now})


def _code(cls: type[Method]) -> _Code:
    """Return the code of a plug-in's class as it is now."""
    files: dict[str, str] = {}
    modules = {module: module for module in _modules_of(cls)}
    modules.setdefault(_modules.get(cls, ""), "plug-in")
    for module, label in modules.items():
        own_label = label if files else ""
        for inner, digest in code_hashes(module).items() if module else ():
            files.setdefault(inner or own_label, digest)
    live = live_hash(cls, strict=False)
    return _Code(files or {"": live}, live)  # a module in a zip file has no file of its own


def _patches(cls: type[Method]) -> list[types.FunctionType]:
    """Return the functions that a session has put into a class of the suite."""
    functions = [f for base in cls.__mro__ for f in vars(base).values()]
    return [
        f
        for f in functions
        if isinstance(f, types.FunctionType)
        and not str(f.__module__).startswith("uebench.")
        and not is_library(f.__code__.co_filename)
    ]


def _modules_of(cls: type[Method]) -> list[str]:
    """Return the modules of a class and of the methods that it inherits from, its own first."""
    bases = [base for base in cls.__mro__ if issubclass(base, Method)]
    modules = list(dict.fromkeys(base.__module__ for base in bases))
    for module in modules:
        count_as_own(module)
    return modules
