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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..store.store import SESSION, key_of
from .base import Attack, Defense, Method
from .code_files import code_hashes, data_hashes
from .live_code import UnidentifiedError, live_hash

log = logging.getLogger(__name__)


class _Code(NamedTuple):
    """The code of a class: the hashes of its files, by name, and that of its state in memory."""

    files: dict[str, str]
    live: str


_loaded: dict[type[Method], _Code] = {}
_plan: dict[type[Method], str] | None = None
_unidentified = itertools.count()


def remember_code(cls: type[Method]) -> _Code:
    """Return the code of a plug-in's class as it was when this was first called, at loading."""
    if cls not in _loaded:
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

    If the code of a class cannot be identified, its results are kept in this process alone.
    """
    if method.info.origin in ("built-in", "imported"):
        return {}
    source, folder = _source(type(method)), _folder(type(method))
    options = {str(v) for v in method.__dict__.values() if isinstance(v, (str, Path))}
    files = data_hashes(options, [folder] if folder else [])
    return {"source": key_of({"source": source, **files}) if files else source}


def exists_only_here(method: Method) -> bool:
    """Return whether no other process can load a method with the code that it has in this one."""
    cls = type(method)
    if cls.info.origin in ("built-in", "imported"):
        return False
    return cls.info.origin == "session" or _source(cls) != _digest(remember_code(cls).files)


def _source(cls: type[Method]) -> str:
    """Return the hash of the code of a class."""
    if _plan is None:
        return _read(cls)
    if cls not in _plan:
        _plan[cls] = _read(cls)
    return _plan[cls]


def _read(cls: type[Method]) -> str:
    if cls.info.origin == "session":
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
    if now == before:
        return _digest(now.files)
    log.warning(
        "%s %s was changed after it was loaded; restart Python to use its files as they are now",
        *(cls.info.kind, cls.info.name),
    )
    return key_of({"before": before, "now": now})


def _code(cls: type[Method]) -> _Code:
    """Return the code of a plug-in's class as it is now."""
    files = code_hashes(cls.__module__)
    for base in cls.__mro__:
        if base.__module__ != cls.__module__ and issubclass(base, (Attack, Defense)):
            for label, digest in code_hashes(base.__module__).items():
                files.setdefault(label or base.__module__, digest)
    return _Code(files, live_hash(cls, strict=False))


def _digest(files: dict[str, str]) -> str:
    """Return the hash of a class's files: that of the only one, or of all together."""
    return files[""] if files.keys() == {""} else key_of(files)


def _folder(cls: type[Method]) -> Path | None:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(file).parent if file else None
