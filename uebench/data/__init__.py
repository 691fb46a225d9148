"""Data sets: their two splits, the catalogue of those that have a name, and what loads them.

The catalogue needs no torch, and lists and help that read it start quickly: the other names are
imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .catalog import DATASETS

if TYPE_CHECKING:
    from .dataset import Dataset, DatasetError, from_arrays
    from .load import load_dataset
    from .split import Split

__all__ = ["DATASETS", "Dataset", "DatasetError", "Split", "from_arrays", "load_dataset"]

_HOME = {
    "Dataset": "dataset",
    "DatasetError": "dataset",
    "from_arrays": "dataset",
    "load_dataset": "load",
    "Split": "split",
}


def __getattr__(name: str) -> Any:
    """Import the home of a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"uebench.data has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
