"""What every attack, defense and victim must do: walks the registry, new files included.

What is demanded is in `uebench/testing`, where strangers' methods are held to the same.
"""

from uebench.methods.registry import methods
from uebench.testing import attack_conformance, defense_conformance, victim_conformance
from uebench.testing.conformance import ConformanceTest


@attack_conformance(*methods("attack"))
def test_an_attack_conforms(check: ConformanceTest) -> None:
    check()


@defense_conformance(*methods("defense"))
def test_a_defense_conforms(check: ConformanceTest) -> None:
    check()


# these start from weights, which a test of any data set cannot have
PRETRAINED = {"finetune", "linear_probe"}


@victim_conformance(*sorted(methods("victim").keys() - PRETRAINED))
def test_a_victim_conforms(check: ConformanceTest) -> None:
    check()
