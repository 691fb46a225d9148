"""Names of methods, data sets and so on, read from source files and not by importing them.

The shell asks for them at each TAB, which cannot wait for torch. What is not found so, such as a
plug-in's second method, is only not completed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path

HOME = Path(__file__).parents[1]
SHOWN = ("attack", "defense", "protocol", "executor")
"""Kinds whose names `uebench show` describes."""
DICTS = {
    "datasets": (HOME / "data/catalog.py", "DATASETS"),
    "models": (HOME / "models/registry.py", "ARCHITECTURES"),
    "protocols": (HOME / "learn/protocol.py", "PROTOCOLS"),
}
"""Where the names lie that are the keys of a dict."""


def names(kind: str, plugins: tuple[str, ...] = ()) -> list[str]:
    """Return the names of a kind as in `uebench list`, in order; an unknown kind has none.

    Args:
        kind: attacks, defenses, datasets, models, protocols or configs.
        plugins: files given by --plugin.
    """
    if kind in DICTS:
        return _keys(*DICTS[kind])
    folder = _folder(kind)
    if kind == "configs":
        return sorted(path.stem for path in folder.glob("*.yaml")) if folder else []
    if kind not in ("attacks", "defenses"):
        return []
    files = sorted(folder.glob("[!_]*.py")) if folder else []
    found = [name for file in [*files, *map(Path, plugins)] for name in _marked(file, kind[:-1])]
    entries = importlib.metadata.entry_points(group=f"uebench.{kind}")
    imported = _imported() if kind == "attacks" else []
    return [*sorted({*found, *(entry.name for entry in entries)}), *imported]


def _folder(kind: str) -> Path | None:
    """Return the suite's folder of methods or configurations."""
    found = importlib.util.find_spec(f"uebench.{kind}")
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) if places else None


def _marked(file: Path, kind: str) -> list[str]:
    """Return the names that a file registers by `@attack("NAME"` or `@defense("NAME"`."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return re.findall(rf"""^@{kind}\(\s*["'](\w+)["']""", file.read_text(), re.MULTILINE)
    return []


def _keys(file: Path, variable: str) -> list[str]:
    """Return the keys of a dict that a file assigns to a variable."""
    for node in ast.parse(file.read_text()).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == variable:
            value = node.value if isinstance(node, ast.AnnAssign) else None
            keys = value.keys if isinstance(value, ast.Dict) else []
            return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    return []


def _imported() -> list[str]:
    """Return the names of imported poisons, as the store's folders have them."""
    import platformdirs

    root = Path(os.environ.get("UEBENCH_HOME") or platformdirs.user_cache_dir("uebench"))
    folder = root / "v1" / "imported"
    with contextlib.suppress(OSError):
        return sorted({f"imported:{path.name.partition('.')[0]}" for path in folder.iterdir()})
    return []
