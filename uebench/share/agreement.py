"""Whether two computations of one cell agree.

On CPUs of one type, a cell's numbers must be identical bit for bit. Elsewhere they must agree
within a tolerance, since rounding differs between machines and training amplifies it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from ..common.text import counted

ACCURACIES = (
    *("test_acc", "test_acc_best", "train_acc", "robust_acc", "dfr_acc"),
    "weight_noise_acc",
)
PLACE = (
    *("dataset", "arch", "protocol", "attack", "attack_options", "defense", "defense_options"),
    *("ratio", "classes", "seed", "poison_seed", "precision", "epochs", "victim"),
)
"""Columns that say where tables show a cell; one key may have several places."""
EXACT = (*ACCURACIES, "best_epoch", "n_train", "n_test", "poison_sha256")
"""Columns that must be equal on the same machine type; other columns, such as times, may differ."""
TOLERANCE = 0.05
"""Largest difference of an accuracy in [0, 1] that is accepted between machine types."""


def agreement(
    first: Mapping[Any, Any],
    second: Mapping[Any, Any],
    same_machine: bool,
    tolerance: float = TOLERANCE,
) -> tuple[Literal["same", "close", "differs"], str]:
    """Return how two rows of cells.csv for one cell compare, and in what they differ.

    Args:
        first: one row.
        second: the other.
        same_machine: whether their machines promise the same bits.
        tolerance: the largest accepted difference of an accuracy on other machines.
    """
    differing = [name for name in EXACT if not _equal(first[name], second[name])]
    text = ", ".join(
        f"{name} {shortened(first[name])} now {shortened(second[name])}" for name in differing
    )
    if not differing:
        return "same", ""
    if same_machine:
        return "differs", text
    far = any(
        name in ("n_train", "n_test")
        or (name in ACCURACIES and _difference(first[name], second[name]) > tolerance)
        for name in differing
    )
    return "differs" if far else "close", f"other machine: {text}"


def cell_name(r: Mapping[Any, Any]) -> str:
    """Return a name for a row's cell that differs for all rows of one results folder."""
    attack = f"{r['attack']}[{r['attack_options']}]" if r["attack_options"] else str(r["attack"])
    defense = (
        f"{r['defense']}[{r['defense_options']}]" if r["defense_options"] else str(r["defense"])
    )
    seeds = f"seed {r['seed']}"
    if not pd.isna(r["poison_seed"]) and r["poison_seed"]:
        seeds += f", poison seed {r['poison_seed']}"
    share = "" if r["ratio"] == 1 else f", ratio {r['ratio']}"
    classes = f", classes {r['classes']}" if r["classes"] else ""
    victim = f" under {r['victim']}" if r["victim"] else ""
    training = f"{r['protocol']}, {counted(int(r['epochs']), 'epoch')}, {r['precision']}"
    return (
        f"{attack} x {defense}{victim}, {r['dataset']}, {r['arch']}, {training}, {seeds}{share}"
        f"{classes}"
    )


def shortened(value: Any) -> str:
    """Return a value for a sentence: six digits of a number, the beginning of a long text."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else text[:12] + "..."


def _equal(first: Any, second: Any) -> bool:
    """Return whether two values of a column are identical, or both missing."""
    none = [value is None or value == "" or bool(pd.isna(value)) for value in (first, second)]
    return all(none) if any(none) else bool(first == second)


def _difference(first: Any, second: Any) -> float:
    """Return the absolute difference of two numbers; infinite if one is missing."""
    try:
        gap = abs(float(first) - float(second))
    except (TypeError, ValueError):
        return math.inf
    return math.inf if math.isnan(gap) else gap
