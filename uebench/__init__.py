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
    "Policy": "augment",
    "Protocol": "protocol",
    "Run": "api",
    "Split": "data.split",
    "attack": "registry",
    "craft": "single",
    "crop_flip": "augment",
    "defense": "registry",
    "frozen": "descent",
    "import_poison": "importing.keep",
    "load_dataset": "data",
    "parse_arch": "models",
    "pgd": "descent",
    "random_start": "descent",
    "run": "frontend",
    "taken": "memory",
    "train": "single",
}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from .api import Attack as Attack
    from .api import Defense as Defense
    from .api import Facts as Facts
    from .api import Fraction255 as Fraction255
    from .api import Run as Run
    from .augment import Policy as Policy
    from .augment import crop_flip as crop_flip
    from .data import load_dataset as load_dataset
    from .data.split import Split as Split
    from .descent import frozen as frozen
    from .descent import pgd as pgd
    from .descent import random_start as random_start
    from .frontend import run as run
    from .importing.keep import import_poison as import_poison
    from .memory import taken as taken
    from .models import parse_arch as parse_arch
    from .poison import Poison as Poison
    from .protocol import Protocol as Protocol
    from .registry import attack as attack
    from .registry import defense as defense
    from .single import craft as craft
    from .single import train as train


def __getattr__(name: str) -> Any:
    """Import the home of a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"uebench has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
