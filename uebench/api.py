"""What the author of a method imports: another name for the public face of `uebench`."""

from .learn.pgd import frozen, pgd, random_start
from .methods.base import Attack, Defense, Facts, Fraction255, Method, MethodInfo
from .methods.registry import attack, defense, victim
from .methods.run import Run
from .methods.victim import Target, Trained, Victim

__all__ = [
    "Attack",
    "Defense",
    "Facts",
    "Fraction255",
    "Method",
    "MethodInfo",
    "Run",
    "Target",
    "Trained",
    "Victim",
    "attack",
    "defense",
    "frozen",
    "pgd",
    "random_start",
    "victim",
]
