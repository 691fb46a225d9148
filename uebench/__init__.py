"""uebench: how well unlearnable-example attacks hold against defenses.

What is public is what this module names. It loads nothing until a name is used, so that
`uebench --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Attack": "api",
    "Defense": "api",
    "Facts": "api",
    "Fraction255": "api",
    "Poison": "poison",
    "Protocol": "protocol",
    "Run": "api",
    "Split": "data.split",
    "attack": "registry",
    "craft": "frontend",
    "defense": "registry",
    "frozen": "descent",
    "load_dataset": "data",
    "pgd": "descent",
    "random_start": "descent",
    "run": "frontend",
    "train": "frontend",
}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from .api import Attack, Defense, Facts, Fraction255, Run
    from .data import load_dataset
    from .data.split import Split
    from .frontend import craft, run, train
    from .descent import frozen, pgd, random_start
    from .poison import Poison
    from .protocol import Protocol
    from .registry import attack, defense


def __getattr__(name: str) -> Any:
    """Import the home of a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"uebench has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
