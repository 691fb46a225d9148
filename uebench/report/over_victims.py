"""Attacks by victim: one table for leaderboards that differ in who trained the target models.

An attacker does not know who will use the data, so an attack that fails under one victim has
failed: its worst case is the highest accuracy over the victims.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from ..common.spec import parse_spec
from .cells import SUPERVISED_VICTIM
from .groups import MethodSpec, Settings
from .layout import Layout, Shown, TableRow
from .tables import Leaderboard
from .words import CLEAN, Label, Titles, method_label, named, percent, settings_in_words

OVER_VICTIMS = "worst case over victims", "for the attacker"


def by_victim_layouts(
    boards: Sequence[Leaderboard], titles: Titles | None = None
) -> list[tuple[Layout, str]]:
    """Return a table for each group of leaderboards that differ in the victim, with LaTeX labels.

    There is none where all target models were trained by one victim.
    """
    titles = {SUPERVISED_VICTIM: "Supervised", **(titles or {})}  # recorded of others alone
    groups: dict[Settings, list[Leaderboard]] = {}
    for board in boards:
        # each victim has epochs of its own
        common = replace(board.settings, victim="", epochs=None)
        groups.setdefault(common, []).append(board)
    return [
        (_layout(group, titles), f"tab:uebench-victims-{number}")
        for number, group in enumerate(groups.values(), 1)
        if len({board.settings.victim for board in group}) > 1
    ]


def _layout(boards: Sequence[Leaderboard], titles: Titles) -> Layout:
    attacks = sorted(
        dict.fromkeys(attack for board in boards for attack in board.attacks),
        key=lambda attack: not attack.is_clean,
    )
    rows = []
    for attack in attacks:
        values = {board.settings.victim: _highest(board, attack) for board in boards}
        cells = [_shown(value) for value in values.values()]
        measured = {victim: value for victim, value in values.items() if not math.isnan(value)}
        worst = max(measured, key=lambda victim: measured[victim], default="")
        last = Shown()
        if worst and not attack.is_clean:
            partial = len(measured) < len(values)
            title = _victim_label(worst, titles).title
            last = replace(_shown(measured[worst]), remark=title, bound="≥" if partial else "")
        label = method_label(attack, titles, CLEAN)
        rows.append(TableRow(label, (*cells, last), "clean" if attack.is_clean else "poison"))
    columns = [_victim_label(board.settings.victim, titles) for board in boards]
    common = replace(boards[0].settings, victim="", epochs=None)
    several = any(len(board.defenses) > 1 for board in boards)
    which = "under the best defense of each victim" if several else f"under {_only(boards, titles)}"
    return Layout(
        caption=f"Test accuracy (%) on {named(common.dataset, titles)}: attacks in rows, victims "
        "in columns",
        corner="attack",
        columns=(*columns, Label(OVER_VICTIMS[0], aside=OVER_VICTIMS[1])),
        rows=tuple(rows),
        note=f"{', '.join(settings_in_words(common, titles))}. Accuracy {which}.",
    )


def _highest(board: Leaderboard, attack: MethodSpec) -> float:
    """Return the highest accuracy under an attack over a leaderboard's defenses, NaN for none."""
    means = [board.stat(attack, defense).mean for defense in board.defenses]
    return max((mean for mean in means if not math.isnan(mean)), default=math.nan)


def _shown(value: float) -> Shown:
    return Shown("—") if math.isnan(value) else Shown(percent(value), accuracy=value)


def _victim_label(victim: str, titles: Titles) -> Label:
    name, options = parse_spec(victim)
    return method_label(MethodSpec(name, ",".join(f"{k}={v}" for k, v in options.items())), titles)


def _only(boards: Sequence[Leaderboard], titles: Titles) -> str:
    """Return the names of the boards' only defenses."""
    names = dict.fromkeys(str(method_label(board.defenses[0], titles)) for board in boards)
    return " or ".join(names)
