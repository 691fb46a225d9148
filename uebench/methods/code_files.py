"""Which files a plug-in's code consists of: its own, those that it imports, and data that it names.

They are found in the source, without importing anything, so that every process finds the same
files, whatever it has imported so far. Libraries are not followed: no key contains their versions,
just as none contains that of torch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
import tokenize
from collections.abc import Iterable
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

MOST_FILES = 1000
"""Of a directory with more files than this, only names and sizes are hashed."""

GROUPS_OF_METHODS = ("uebench.attacks", "uebench.defenses", "uebench.victims")
"""The packages of the suite's methods, and the groups of entry points of other people's."""

DATA = "data "
"""How the names of data begin in hashes of code."""

INSTALLED = re.compile(r".*/(?:site|dist)-packages/(?P<package>[^/.]+)")
"""The path of a file of an installed package."""

LISTING = {"iterdir", "listdir", "scandir", "walk"}
"""Functions that find files without naming any of them."""


class Parsed(NamedTuple):
    """What matters in the source of one file."""

    imports: frozenset[str]
    """Absolute names of modules; some of them may be names of other things in a module."""
    words: frozenset[str]
    """Its texts, some of which may be names of files."""
    is_empty: bool
    """Whether there is nothing but a docstring, as in most `__init__.py` files."""


def code_hashes(name: str) -> dict[str, str]:
    """Return the hashes of a module's source and of everything in its own code that it reaches.

    Args:
        name: the name of a module that is loaded or can be found.

    Returns:
        The hashes by name of the module, or by relative path for data. The module itself is called
        "", because a file may be loaded under different names.
    """
    hashes: dict[str, str] = {}
    words: set[str] = set()
    folders: dict[Path, None] = {}
    tops: dict[str, bool] = {}
    waiting, visited = [(name, "")], set[Path]()
    while waiting:
        module, label = waiting.pop()
        top = module.partition(".")[0]
        if version := _suite_version(module):
            hashes[module] = version
        if top not in tops:
            tops[top] = _is_own(_spec(top, folders))
        spec = _spec(module, folders) if tops[top] else None
        path = Path(spec.origin) if spec is not None and spec.origin else None
        if spec is None or path is None or path in visited or not path.is_file():
            continue
        visited.add(path)
        parsed, digest = _read(path, spec.parent or "")
        if not parsed.is_empty or not label:
            hashes[label] = digest
        folders[path.parent] = None
        words |= parsed.words
        waiting += [(other, other) for other in sorted(parsed.imports, reverse=True)]
    return hashes | data_hashes(words, folders, visited)


def _suite_version(name: str) -> str:
    """Return the versions of the suite's own methods in a module, which stand for its code."""
    if (
        not name.startswith(tuple(f"{group}." for group in GROUPS_OF_METHODS))
        or name not in sys.modules
    ):
        return ""
    classes = [value for value in vars(sys.modules[name]).values() if isinstance(value, type)]
    own = [cls for cls in classes if cls.__module__ == name and hasattr(cls, "version")]
    return ", ".join(f"{cls.__name__} {cls.version}" for cls in own)


def _is_own(spec: ModuleSpec | None) -> bool:
    """Return whether a top-level module is somebody's own code, and not a library's."""
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
    return any(place and not is_library(place) for place in places)


def _spec(name: str, folders: Iterable[Path]) -> ModuleSpec | None:
    """Return where a module is, without importing it or the packages around it.

    A plug-in may extend the path just before an import, so its own folders are searched as well.
    """
    loaded: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        return loaded
    parent = name.rpartition(".")[0]
    if parent:
        around = _spec(parent, folders)
        places = around and around.submodule_search_locations
        return PathFinder.find_spec(name, list(places)) if places else None
    finders = [finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec")]
    specs = (find(name, None) for find in finders)
    return next(filter(None, specs), None) or PathFinder.find_spec(name, [*map(str, folders)])


@cache
def _suite_roots() -> tuple[str, ...]:
    """Return the folders of Python's own library and of the suite."""
    paths = sysconfig.get_paths()
    specs = [importlib.util.find_spec(name) for name in ("uebench", *GROUPS_OF_METHODS)]
    suite = [place for spec in specs if spec for place in spec.submodule_search_locations or ()]
    return tuple(f"{place}/" for place in (paths["stdlib"], paths["platstdlib"], *suite))


_own_packages: set[str] = set()


def count_as_own(module: str) -> None:
    """Follow the code of the installed package that a module with a method belongs to, if any."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    if not file.startswith(_suite_roots()) and (installed := INSTALLED.match(file)):
        _own_packages.add(installed["package"])


def is_library(file: str) -> bool:
    """Return whether a file belongs to Python, to the suite, or to a library that was installed.

    An installed package with methods for uebench is not a library but somebody's own code.
    """
    if installed := INSTALLED.match(file):
        package = installed["package"]
        return package not in _own_packages and not _is_plugin(package)
    return file.startswith(("<frozen ", *_suite_roots()))


@cache
def _is_plugin(package: str) -> bool:
    """Return whether an installed package has entry points of uebench, or requires it."""
    if package == "uebench":
        return False
    entries = [
        e for group in GROUPS_OF_METHODS for e in importlib.metadata.entry_points(group=group)
    ]
    if package in {entry.module.partition(".")[0] for entry in entries}:
        return True
    try:
        requires = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return False
    return any(re.match(r"uebench\b", requirement) for requirement in requires)


def _read(path: Path, package: str) -> tuple[Parsed, str]:
    """Return what matters in a file of code, and the hash of its text."""
    try:
        with tokenize.open(path) as file:
            text = file.read()
        parsed = _parsed(text, package, path.parent)
    except (SyntaxError, UnicodeDecodeError, ValueError):  # a compiled module, or a broken one
        return Parsed(frozenset(), frozenset(), False), file_hash(path)
    # the text ends with a newline in keys, as `inspect.getsource` returns it
    text += "\n" if text and not text.endswith("\n") else ""
    return parsed, hashlib.sha256(text.encode()).hexdigest()


@cache
def _parsed(text: str, package: str, folder: Path) -> Parsed:
    """Return what matters in the text of a module of a package."""
    tree = ast.parse(text)
    imports, words, names = set[str](), set[str](), set[str]()
    docstrings = set[int]()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                imports |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                base = _absolute("." * node.level + (node.module or ""), package)
                imports |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            case (
                ast.Call(func=ast.Name("import_module" | "__import__"))
                | ast.Call(func=ast.Attribute(attr="import_module" | "__import__"))
            ):
                imports |= _computed(node.args, package, folder)
            case ast.Name(name) | ast.Attribute(attr=name):
                names.add(name)
            case ast.Expr(ast.Constant() as docstring):
                docstrings.add(id(docstring))
            case ast.Constant(str(word)) if id(node) not in docstrings:
                words.add(word)
    if names & LISTING and names & {"__file__", "__package__", "__path__", "files"}:
        words.add("*")
    dotted = {word for word in words if package and word.split(".")[0] == package.split(".")[0]}
    words |= {word.replace(".", "/") for word in dotted}  # importlib.resources.files("my.data")
    imports.add(package)
    parents = {".".join(n.split(".")[:i]) for n in imports for i in range(1, n.count(".") + 1)}
    is_empty = all(isinstance(node, ast.Expr) for node in tree.body)
    return Parsed(frozenset(imports | parents) - {""}, frozenset(words), is_empty)


def _absolute(name: str, package: str) -> str:
    """Return the absolute name of a module; a relative one outside a package cannot be imported."""
    try:
        return importlib.util.resolve_name(name, package or None)
    except ImportError:
        return ""


def _computed(arguments: list[ast.expr], package: str, folder: Path) -> set[str]:
    """Return the modules that `import_module` may import: all of the package if it is computed."""
    match arguments:
        case [ast.Constant(str(name)), *_]:
            return {_absolute(name, package)}
    return {f"{package}.{path.stem}" for path in folder.glob("*.py")} if package else set()


def data_hashes(
    words: Iterable[str],
    folders: Iterable[Path],
    known: Iterable[Path] = (),
    anywhere: bool = False,
) -> dict[str, str]:
    """Return the hashes of the files that texts of a program name, by relative path.

    A path may be composed of several texts, such as "data" and "noise.npy", and texts such as
    "*.npy" and ".npy" stand for all such files. If a directory is named, but nothing in it, all of
    its files count.

    Args:
        words: the texts.
        folders: where the program's own files are. Single files are also searched in the folders
            around them.
        known: files to leave out.
        anywhere: whether single files in the current folder, and absolute paths, count as well. In
            a plug-in they are left out, since they are as often what it writes.

    Returns:
        The hashes by name, which begins with `DATA`.
    """
    own = list(folders)
    names = sorted(w for w in words if len(w) < 200 and w.isprintable() and w.strip("./~\\ "))
    hashes = dict.fromkeys(known, ("", ""))
    around = [folder.parent for folder in own]
    names = [name for name in names if anywhere or not name.startswith("/")]
    for folder in dict.fromkeys([*own, *around, *([Path.cwd()] if anywhere else [])]):
        for label, path in _named(folder, names, folder in own).items():
            if path not in hashes:
                hashes[path] = (label, _tree_hash(path) if path.is_dir() else file_hash(path))
    return {f"{DATA}{label}": digest for label, digest in hashes.values() if label}


def _named(folder: Path, names: list[str], is_own: bool, depth: int = 0) -> dict[str, Path]:
    """Return the files and directories below a folder that texts name, by relative path."""
    named: dict[str, Path] = {}
    for name in names:
        pattern = f"*{name}" if re.fullmatch(r"\.\w{1,8}", name) else name
        paths = [folder / name]
        try:
            if "*" in pattern:
                matches = folder.glob(pattern) if is_own or depth else []
                paths = [p for p in matches if not p.name.startswith((".", "__pycache__"))]
            for path in paths:
                label = name if path.name in name else path.name
                if path.is_file() and (is_own or depth or path.suffix):
                    named[label] = path.resolve()
                elif path.is_dir() and depth < 3:
                    inside = _named(path, names, is_own, depth + 1)
                    named |= {f"{label}/{inner}": file for inner, file in inside.items()}
                    if is_own and not inside and path.is_relative_to(folder):
                        named[label] = path.resolve()
        except (OSError, ValueError, NotImplementedError):  # no path can look like this text
            continue
    return named


def _tree_hash(folder: Path) -> str:
    """Return the hash of all files in a directory."""
    visible = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(p.startswith((".", "__pycache__")) for p in path.relative_to(folder).parts)
    ]
    digest = hashlib.sha256()
    for path in visible:
        content = path.stat().st_size if len(visible) > MOST_FILES else file_hash(path)
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the sha256 of a file; a large one is read again only when it was written again."""
    stat = path.stat()
    if stat.st_size < 2**20:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return _large_file_hash(path, stat.st_mtime_ns, stat.st_size)


@cache
def _large_file_hash(path: Path, _mtime_ns: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
