"""What the options of methods mean where results are compared with published numbers."""

import contextlib
from typing import Any

from ..common.options import option_of, option_texts
from ..common.spec import format_options
from ..report.compare import Meaning
from .asked import Asked
from .base import Attack, Facts
from .registry import KINDS, methods


def known_meanings() -> dict[str, Meaning]:
    """Return what the options of every known method mean for a comparison with published numbers.

    Usual values are the declared defaults, and the budget that `auto` means on CIFAR-10: papers
    print it even where it is the one that everybody takes.
    """
    facts = Facts("cifar10", 10, (3, 32, 32), 200, "resnet18")
    meanings = {}
    for cls in (cls for kind in KINDS for cls in methods(kind).values()):
        fields = cls.model_fields
        usual = {name: info.default for name, info in fields.items()}
        half: dict[str, Any] = {}
        if issubclass(cls, Attack):
            # A plug-in that breaks has no usual budget; whatever it raises must not keep a finished
            # run from being saved.
            with contextlib.suppress(Exception):
                attack = Asked(cls()).resolve(facts)
                usual |= {"eps": attack.options()["eps"]} if usual.get("eps") == "auto" else {}
                norm, eps = attack.budget(facts.shape).ball
                half = {"norm": norm, "radius": eps / 2}
        base = methods(cls.info.kind).get(cls.published_as) if cls.published_as else None
        preset = {
            name: info.default
            for name, info in fields.items()
            if base is not None
            and name in base.model_fields
            and info.default != base.model_fields[name].default
        }
        meanings[cls.info.name] = Meaning(
            frozenset(name for name, info in fields.items() if option_of(info).variant),
            frozenset(option_texts({name: value}, fields) for name, value in usual.items()),
            frozenset(format_options({name: value}) for name, value in half.items()),
            cls.published_as,
            frozenset(option_texts({name: value}, fields) for name, value in preset.items()),
        )
    return meanings
