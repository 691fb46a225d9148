"""A new package with one small method that works: what `uebench new` writes."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from string import Template

from ..common.errors import UserError
from ..common.spec import normalise, shorten
from ..methods.registry import Kind, methods
from .templates import FILES


class ScaffoldError(UserError):
    """The package cannot be written: one sentence says why and what to do."""


def write_package(kind: Kind, name: str, into: Path) -> Path:
    """Write the package of a new method into a folder of its name; return the folder.

    It is written beside its place and renamed, so it is there whole or not at all.

    Raises:
        ScaffoldError: the name is none or is taken, or the folder is there or cannot be made.
    """
    called = checked_name(kind, name)
    folder = into / called
    if folder.exists():
        raise ScaffoldError(f"{folder} is there already; choose another name, or remove it")
    if not into.is_dir() or not os.access(into, os.W_OK):
        raise ScaffoldError(f"{into} is no folder that can be written; make it, or give --into")
    words = {
        "name": called,
        "module": f"uebench_{called}",
        "project": f"uebench-{called.replace('_', '-')}",
        "title": called.replace("_", " ").capitalize(),
        "class_name": _class_name(kind, called),
    }
    draft = into / f".{uuid.uuid4().hex}.part"
    try:
        draft.mkdir()
        for path, text in FILES[kind].items():
            (draft / Template(path).substitute(words)).write_text(Template(text).substitute(words))
        draft.rename(folder)
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be made: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def checked_name(kind: Kind, name: str) -> str:
    """Return a method's name in snake_case.

    Raises:
        ScaffoldError: it is no name, or is taken.
    """
    called = normalise(name)
    if not called.isidentifier() or not called.isascii() or called != called.lower():
        raise ScaffoldError(
            f"{shorten(name)} is not a method's name; use lower-case letters, digits and _, such "
            "as my_noise"
        )
    if not called[0].isalpha() or len(called) > 64:
        raise ScaffoldError(f"{shorten(name)} must begin with a letter and have at most 64")
    taken = methods(kind).get(called)
    if taken is not None:
        raise ScaffoldError(f"{kind} {called} is taken by {taken.info.origin}; choose another name")
    return called


def _class_name(kind: Kind, name: str) -> str:
    """Return the class's name, which ends in Attack or Defense so that it hides no import."""
    words = "".join(part.capitalize() for part in name.split("_"))
    ending = kind.capitalize()
    return words if words.endswith(ending) and words != ending else words + ending
