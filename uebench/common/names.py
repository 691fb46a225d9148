"""Find the names of methods, data sets and so on in source files, without importing them.

The shell asks for names at every TAB, and importing torch would take too long. A name that cannot
be found this way, such as one that a plug-in computes, is merely not completed.
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
MIXTURE = "mix"
"""The name of mixtures, where an attack is asked for."""
SHOWN = ("attack", "defense", "victim", "detector", "dataset", "protocol", "executor")
"""Kinds whose names `uebench show` describes."""
PLOTS = ("curves", "ratio", "confusion", "budget", "repeats", "cost", "victims", "examples")
"""The kinds of plots that `uebench plot` draws."""
DICTS = {
    "datasets": (HOME / "data/catalog.py", "DATASETS"),
    "detectors": (HOME / "victims/detectors.py", "DETECTORS"),
    "models": (HOME / "models/registry.py", "ARCHITECTURES"),
    "protocols": (HOME / "learn/protocol.py", "PROTOCOLS"),
}
"""The file and the variable of each kind whose names are the keys of a dict."""


def names(kind: str) -> list[str]:
    """Return the names of a kind as in `uebench list`, in order; an unknown kind has none.

    Args:
        kind: attacks, defenses, victims, detectors, datasets, models, protocols or configs.
    """
    if kind in DICTS:
        return _keys(*DICTS[kind])
    folder = _folder(kind)
    if kind == "configs":
        return sorted(path.stem for path in folder.glob("*.yaml")) if folder else []
    if kind not in ("attacks", "defenses", "victims"):
        return []
    files = sorted(folder.glob("[!_]*.py")) if folder else []
    registered = [name for file in files for name in _marked(file, kind[:-1])]
    if kind == "attacks":
        registered.append(MIXTURE)
    entries = importlib.metadata.entry_points(group=f"uebench.{kind}")
    imported = _imported("imported" if kind == "attacks" else "purified")
    return [*sorted({*registered, *(entry.name for entry in entries)}), *imported]


def _folder(kind: str) -> Path | None:
    """Return the suite's folder of methods or configurations."""
    package = importlib.util.find_spec(f"uebench.{kind}")
    folders = package.submodule_search_locations if package is not None else None
    return Path(next(iter(folders))) if folders else None


def _marked(file: Path, kind: str) -> list[str]:
    """Return the names that a file registers by `@attack("NAME"` or `@defense("NAME"`."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return re.findall(rf"""^@{kind}\(\s*["'](\w+)["']""", file.read_text(), re.MULTILINE)
    return []


def _keys(file: Path, variable: str) -> list[str]:
    """Return the keys of a dict that a file assigns to a variable."""
    for node in ast.parse(file.read_text()).body:
        match node:
            case ast.AnnAssign(target=ast.Name(name), value=ast.Dict(keys)) if name == variable:
                return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    return []


def _imported(kind: str) -> list[str]:
    """Return the names of imported poisons or purified sets, read from the store's folders."""
    import platformdirs

    root = Path(os.environ.get("UEBENCH_HOME") or platformdirs.user_cache_dir("uebench"))
    folder = root / "v1" / kind
    with contextlib.suppress(OSError):
        return sorted({f"{kind}:{path.name.partition('.')[0]}" for path in folder.iterdir()})
    return []
