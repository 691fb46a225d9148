"""The style of each method's line, the same in every plot, on the page and for every folder."""

from itertools import count
from typing import Literal

import pandas as pd

from .groups import MethodSpec

_ORDER = {
    "attack": ("none", "em", "lsp", "ar", "rem", "hypo", "adaptive_em", "tap", "ops", "cuda"),
    "defense": (
        *("standard", "ueraser", "ueraser_lite", "iss", "at", "ueraser_max", "cutout", "mixup"),
        *("cutmix", "augment", "op", "coin", "dvae", "trades", "autoaugment", "randaugment"),
        *("trivialaugment", "blur", "at4", "at8", "at_l2", "rsk_ff"),
    ),
}
"""Methods whose style is fixed, so that figures of different folders can be compared. The first
eight have colours of their own."""


def method_styles(cells: pd.DataFrame, kind: Literal["attack", "defense"]) -> dict[MethodSpec, int]:
    """Return a style for each attack or defense of a folder, whichever of them a plot shows.

    A method that is not listed, or a second form of one that is, gets the next style that no
    method of the folder has.
    """
    names, options = cells[kind], cells[f"{kind}_options"]
    methods = dict.fromkeys(map(MethodSpec, names, options))
    fixed = {name: number for number, name in enumerate(_ORDER[kind])}
    styles: dict[MethodSpec, int] = {}
    taken: set[int] = set()
    # the form without options comes first, so that it has the style of its name
    for method in sorted(methods, key=lambda m: bool(m.options)):
        number = fixed.get(method.name)
        if number is not None and number not in taken:
            styles[method] = number
            taken.add(number)
    free = (number for number in count() if number not in taken)
    return styles | {method: next(free) for method in methods if method not in styles}
