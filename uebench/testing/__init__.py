"""What every attack, defense and victim must do, as tests for anybody's method.

`uebench check NAME` runs them; in a test of your own they are one decorator:

    from uebench.testing import attack_conformance

    @attack_conformance("my_attack")
    def test_it_conforms(check):
        check()

If a test fails, it reports what is wrong and how to fix it.
"""

from .conformance import (
    Outcome,
    attack_conformance,
    conform,
    defense_conformance,
    victim_conformance,
)
from .data import CASES, make_run, random_dataset
from .promises import UnmetError
from .stand_in import gpu_stand_in

__all__ = [
    "CASES",
    "Outcome",
    "UnmetError",
    "attack_conformance",
    "conform",
    "defense_conformance",
    "gpu_stand_in",
    "make_run",
    "random_dataset",
    "victim_conformance",
]
