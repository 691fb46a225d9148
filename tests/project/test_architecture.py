"""The rooms of the package: lower ones never import higher ones, and nothing goes in a circle.

Every import is read from the source, those inside functions and under TYPE_CHECKING too.
"""

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "uebench"
ROOMS = (
    *("common", "store", "augment"),
    *("data", "models", "report"),
    *("learn", "methods", "victims", "cells"),
    *("execute", "testing", "share", "suite", "cli"),
)
"""From the ground up: a room may import those before it."""
ROOT = "uebench"
AT_THE_ROOT = {"__init__.py", "__main__.py", "api.py", "py.typed"}
NO_TORCH = ("report",)


def module_name(path: Path) -> str:
    """Return a file's module, `uebench.store.prune`; a package's `__init__.py` is the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names(name: str, path: Path) -> set[str]:
    """Return everything that a module imports, as absolute dotted names."""
    names: set[str] = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            below = {f"{base}.{alias.name}" for alias in node.names}
            names |= below
            if not below <= MODULES.keys():  # something that the package itself defines
                names.add(base)
    return names


def imported_modules(name: str, path: Path) -> set[str]:
    """Return the modules of the package that a module imports, itself left out."""
    return {other for other in imported_names(name, path) if other in MODULES} - {name}


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return the modules that each module imports; read when a test asks, not at collection."""
    return {name: imported_modules(name, path) for name, path in MODULES.items()}


def room_of(name: str) -> str | None:
    """Return the room of a module; None at the root."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def shown(name: str) -> str:
    return MODULES[name].relative_to(PACKAGE.parent).as_posix()


def test_only_the_public_face_lies_at_the_root() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert files == AT_THE_ROOT
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_higher_one(room: str) -> None:
    upwards = [
        f"{shown(name)} imports {shown(other)}"
        for name, others in imports().items()
        if room_of(name) == room
        for other in sorted(others)
        if (there := room_of(other)) is not None and ROOMS.index(there) > ROOMS.index(room)
    ]
    assert upwards == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_a_page_lists_the_rooms_with_the_lowest_first(page: str) -> None:
    folder = PACKAGE.parent
    tree = (folder / page).read_text().partition("```text\nuebench/\n")[2].partition("```")[0]
    assert tuple(line.split("/")[0].strip() for line in tree.splitlines()) == ROOMS
    assert tree in (folder / "docs" / "architecture.md").read_text(), "one list, in two places"


def test_no_room_imports_the_public_face() -> None:
    above = [shown(name) for name, others in imports().items() if room_of(name) and ROOT in others]
    assert above == []


def test_nothing_is_imported_in_a_circle() -> None:
    # the root's lazy `__init__` names everything, and everybody imports from it what is public
    graph = {name: others - {ROOT} for name, others in imports().items() if room_of(name)}
    # a package and its own modules know each other: `from . import x` is no circle of files
    graph = {
        name: {o for o in others if not name.startswith(f"{o}.")} for name, others in graph.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("circle: " + " -> ".join(shown(name) for name in error.args[1]))


@pytest.mark.parametrize("room", NO_TORCH)
def test_rooms_for_readers_do_without_torch(room: str) -> None:
    loading = [
        shown(name)
        for name, path in MODULES.items()
        if room_of(name) == room
        and any(other.split(".")[0] == "torch" for other in imported_names(name, path))
    ]
    assert loading == []


def public_names(path: Path) -> set[str]:
    """Return the names that a module defines without an underscore before them."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def test_a_public_name_is_defined_in_one_module() -> None:
    homes: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for public in public_names(path):
            homes.setdefault(public, []).append(shown(name))
    # every module has a `log`, and a type variable of one letter is nobody's name
    several = {k: v for k, v in homes.items() if len(v) > 1 and k != "log" and len(k) > 1}
    assert several == {}
