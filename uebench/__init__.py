"""uebench: how well unlearnable-example attacks hold against defenses.

What is public is what this module names. It loads nothing until a name is used, so that
`uebench --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .common.version import __version__ as __version__

_HOME = {
    "Adversary": "learn.surrogate_training",
    "Attack": "methods.base",
    "Auto": "common.options",
    "Budget": "data.poison",
    "Defense": "methods.base",
    "Facts": "methods.base",
    "Fraction255": "methods.base",
    "Option": "common.options",
    "Poison": "data.poison",
    "Policy": "augment",
    "Protocol": "learn.protocol",
    "Run": "methods.run",
    "Split": "data.split",
    "Target": "methods.victim",
    "Trained": "methods.victim",
    "Training": "learn.surrogate_training",
    "UserError": "common.errors",
    "Victim": "methods.victim",
    "attack": "methods.registry",
    "audit": "suite.look",
    "auto": "common.options",
    "compare": "suite.look",
    "craft": "suite.single",
    "crop_flip": "augment",
    "defense": "methods.registry",
    "detect": "suite.detect",
    "frozen": "learn.pgd",
    "import_poison": "suite.import_poison",
    "import_purified": "suite.import_purified",
    "leaderboard": "suite.look",
    "list_methods": "suite.look",
    "load_dataset": "data",
    "parse_arch": "models",
    "penultimate": "models",
    "pgd": "learn.pgd",
    "plot": "suite.look",
    "random_start": "learn.pgd",
    "run": "suite.run",
    "taken": "store.arrays",
    "train": "suite.single",
    "victim": "methods.registry",
}

__all__ = sorted([*_HOME, "__version__", "report"])

if TYPE_CHECKING:
    from pathlib import Path

    from . import report as report
    from .augment import Policy as Policy
    from .augment import crop_flip as crop_flip
    from .common.errors import UserError as UserError
    from .common.options import Auto as Auto
    from .common.options import Option as Option
    from .common.options import auto as auto
    from .data import load_dataset as load_dataset
    from .data.poison import Budget as Budget
    from .data.poison import Poison as Poison
    from .data.split import Split as Split
    from .learn.pgd import frozen as frozen
    from .learn.pgd import pgd as pgd
    from .learn.pgd import random_start as random_start
    from .learn.protocol import Protocol as Protocol
    from .learn.surrogate_training import Adversary as Adversary
    from .learn.surrogate_training import Training as Training
    from .methods.base import Attack as Attack
    from .methods.base import Defense as Defense
    from .methods.base import Facts as Facts
    from .methods.base import Fraction255 as Fraction255
    from .methods.registry import attack as attack
    from .methods.registry import defense as defense
    from .methods.registry import victim as victim
    from .methods.run import Run as Run
    from .methods.victim import Target as Target
    from .methods.victim import Trained as Trained
    from .methods.victim import Victim as Victim
    from .models import parse_arch as parse_arch
    from .models import penultimate as penultimate
    from .store.arrays import taken as taken
    from .suite.detect import detect as detect
    from .suite.import_poison import import_poison as import_poison
    from .suite.import_purified import import_purified as import_purified
    from .suite.look import audit as audit
    from .suite.look import compare as compare
    from .suite.look import leaderboard as leaderboard
    from .suite.look import list_methods as list_methods
    from .suite.look import plot as plot
    from .suite.run import run as run
    from .suite.single import craft as craft
    from .suite.single import train as train


class _Report(ModuleType):
    """The room `report`, which can also be called: `uebench.report(...)` writes the page."""

    def __call__(self, results: Any, out: Any = None) -> Path:
        """Write the web page of results; see `uebench.suite.look.write_report`."""
        from .suite.look import write_report

        return write_report(results, out)


class _Face(ModuleType):
    """This module; Python sets the room `report` as its attribute when the room is loaded."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "report":
            value.__class__ = _Report
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face


def __getattr__(name: str) -> Any:
    """Import the home of a public name on first use."""
    if name == "report":
        return importlib.import_module(".report", __name__)
    if name not in _HOME:
        raise AttributeError(f"uebench has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
