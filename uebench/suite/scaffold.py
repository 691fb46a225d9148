"""What `uebench new` writes: a package with one small method that works.

The files are templates in the folder `templates/`, filled in with the words of `_words`.
"""

from __future__ import annotations

import os
from pathlib import Path
from string import Template

from ..common.drafts import new_folder
from ..common.errors import UserError
from ..common.spec import normalise, shorten
from ..methods.registry import Kind, methods, name_is_taken

_TEMPLATES = Path(__file__).with_name("templates")
_FLAGS = {
    "attack": "--attacks none,{name} --defenses standard",
    "defense": "--attacks none,lsp --defenses standard,{name}",
    "victim": "--attacks none,lsp --defenses standard --victims supervised,{name}",
}
"""Flags of a first run with the new method, by kind."""


class ScaffoldError(UserError):
    """The package cannot be written; the message says why and what to do."""


def write_package(kind: Kind, name: str, into: Path) -> Path:
    """Write the package of a new method into a folder named after it, and return that folder.

    Raises:
        ScaffoldError: the name is invalid or taken, or the folder exists or cannot be created.
    """
    method_name = checked_name(kind, name)
    folder = into / method_name
    if folder.exists():
        raise ScaffoldError(f"{folder} already exists; choose another name, or remove it")
    if not into.is_dir() or not os.access(into, os.W_OK):
        raise ScaffoldError(
            f"{into} is not a directory that can be written; create it, or give another --into"
        )
    words = _words(kind, method_name)
    targets = {
        f"{kind}.py.txt": f"{words['module']}.py",
        f"test_{kind}.py.txt": f"test_{method_name}.py",
        "pyproject.toml.txt": "pyproject.toml",
        "README.md.txt": "README.md",
    }
    try:
        with new_folder(folder) as draft:
            for template, target in targets.items():
                text = (_TEMPLATES / template).read_text(encoding="utf-8")
                (draft / target).write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be created: {error.strerror or error}") from None
    return folder


def checked_name(kind: Kind, name: str) -> str:
    """Return a new method's name in snake_case.

    Raises:
        ScaffoldError: it is not a valid name, or another method of this kind has it.
    """
    method_name = normalise(name)
    if (
        not method_name.isidentifier()
        or not method_name.isascii()
        or method_name != method_name.lower()
    ):
        raise ScaffoldError(
            f"{shorten(name)} is not a method's name; use lower-case letters, digits and _, such "
            "as my_noise"
        )
    if not method_name[0].isalpha() or len(method_name) > 64:
        raise ScaffoldError(
            f"{shorten(name)} must begin with a letter and have at most 64 characters"
        )
    taken = methods(kind).get(method_name)
    if taken is not None:
        raise ScaffoldError(name_is_taken(taken.info))
    return method_name


def _words(kind: Kind, name: str) -> dict[str, str]:
    """Return what replaces each $-word of the templates."""
    return {
        "name": name,
        "kind": kind,
        "article": "an" if kind == "attack" else "a",
        "flags": _FLAGS[kind].format(name=name),
        "module": f"uebench_{name}",
        "project": f"uebench-{name.replace('_', '-')}",
        "title": name.replace("_", " ").capitalize(),
        "class_name": _class_name(kind, name),
    }


def _class_name(kind: Kind, name: str) -> str:
    """Return the class's name, which ends in the kind so that it hides no import."""
    words = "".join(part.capitalize() for part in name.split("_"))
    ending = kind.capitalize()
    return words if words.endswith(ending) and words != ending else words + ending
