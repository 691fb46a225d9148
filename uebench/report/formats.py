"""Leaderboards as a tidy frame, CSV, JSON and Markdown.

The CSV is for scripts: one row per attack and defense, with accuracies in [0, 1] as in cells.csv.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import pandas as pd

from .groups import MethodSpec
from .layout import Layout, Shown, TableRow, Titles, layout
from .statistics import Stat, confidence_interval
from .tables import BoardEntry, Extreme, Leaderboard

Boards: TypeAlias = Leaderboard | Sequence[Leaderboard]
"""Every writer takes one leaderboard or several."""

FRAME_COLUMNS = [
    "dataset",
    "arch",
    "protocol",
    "attack",
    "attack_options",
    "defense",
    "defense_options",
    "ratio",
    "classes",
    "precision",
    "epochs",
    "n_train",
    "n_test",
    "status",
    "mean",
    "sd",
    "n",
    "n_failed",
    "n_skipped",
    "best_epoch_mean",
    "best_epoch_sd",
    "best_epoch_n",
    "train_seconds",
    "craft_seconds",
    "peak_memory_mb",
    "is_worst_attack",
    "is_best_defense",
    "low",
    "high",
    "is_within_noise",
    "mean_rank",
]
"""The columns of leaderboard.csv in their order."""


def several(boards: Boards) -> list[Leaderboard]:
    """Return `boards` as a list."""
    return [boards] if isinstance(boards, Leaderboard) else list(boards)


def to_frame(boards: Boards) -> pd.DataFrame:
    """Return one row per attack and defense of each leaderboard, even if no cell of it was run.

    `mean`, `sd` and `n` are of the accuracy after the last epoch, `best_epoch_*` of the best
    epoch. In the leaderboard's metric, `is_worst_attack` marks the poison under which this
    defense is lowest and `is_best_defense` the defense under which this attack's victim is
    highest; a tie marks the first. Costs are means over the finished runs. `low` and `high` are
    the 95 % interval (Wilson's for a single run), `is_within_noise` marks the best defense
    and those within noise of it, and `mean_rank` is the defense's over the poisons.
    """
    rows = []
    for board in several(boards):
        worst = {d: board.worst_attack(d).by for d in board.defenses}
        best = {a: board.best_defense(a).by for a in board.poisons}
        ranks = board.ranks()
        for attack in board.attacks:
            near = board.best(attack)
            for defense in board.defenses:
                low, high = confidence_interval(board.stat(attack, defense), board.settings.n_test)
                flags = {
                    "is_worst_attack": worst[defense] == attack,
                    "is_best_defense": best.get(attack) == defense,
                    "low": low,
                    "high": high,
                    "is_within_noise": defense in near,
                    "mean_rank": ranks.get(defense, math.nan),
                }
                rows.append(_row(board, attack, defense) | flags)
    frame = pd.DataFrame(rows, columns=FRAME_COLUMNS)
    return frame.astype(dict.fromkeys(("epochs", "n_train", "n_test"), "Int64"))


def to_csv(boards: Boards) -> str:
    """Return `to_frame` as CSV; numbers keep all their digits, a missing one is empty."""
    return to_frame(boards).to_csv(index=False, lineterminator="\n")


def to_json(boards: Boards) -> str:
    """Return the leaderboards as JSON: numbers in [0, 1] as in cells.csv, missing ones null."""
    return json.dumps([_as_json(board) for board in several(boards)], indent=2, allow_nan=False)


def to_markdown(boards: Boards, titles: Titles | None = None) -> str:
    """Return the leaderboards as GitHub Markdown tables, each with caption and note."""
    return "\n".join(markdown_table(layout(board, titles)) for board in several(boards))


def escape_markdown(text: str) -> str:
    """Return a single-line `text` so that Markdown shows it unchanged inside a table."""
    for mark in "\\`|*~<":
        text = text.replace(mark, "\\" + mark)
    text = text.replace("](", "]\\(")  # a link or an image
    padded = f" {text} "
    return "".join(
        f"\\{here}" if here == "_" and not (before.isalnum() and after.isalnum()) else here
        for before, here, after in zip(padded, padded[1:], padded[2:], strict=False)
    )


def _row(board: Leaderboard, attack: MethodSpec, defense: MethodSpec) -> dict[str, Any]:
    entry = board.entry(attack, defense)
    return {
        **asdict(board.settings),
        "attack": attack.name,
        "attack_options": attack.options,
        "defense": defense.name,
        "defense_options": defense.options,
        "status": entry.status,
        "mean": entry.test_acc.mean,
        "sd": entry.test_acc.sd,
        "n": entry.test_acc.n,
        "n_failed": entry.n_failed,
        "n_skipped": entry.n_skipped,
        "best_epoch_mean": entry.test_acc_best.mean,
        "best_epoch_sd": entry.test_acc_best.sd,
        "best_epoch_n": entry.test_acc_best.n,
        "train_seconds": entry.train_seconds,
        "craft_seconds": entry.craft_seconds,
        "peak_memory_mb": entry.peak_memory_mb,
    }


def _as_json(board: Leaderboard) -> dict[str, Any]:
    return {
        "settings": asdict(board.settings),
        "metric": board.metric,
        "attacks": [asdict(attack) for attack in board.attacks],
        "defenses": [asdict(defense) for defense in board.defenses],
        "entries": [
            {"attack": asdict(a), "defense": asdict(d)}
            | _entry_json(board.entry(a, d))
            | _interval_json(board.stat(a, d), board.settings.n_test)
            for a in board.attacks
            for d in board.defenses
        ],
        "worst_case_over_attacks": [
            {"defense": asdict(d)} | _extreme_json(board.worst_attack(d)) for d in board.defenses
        ],
        "mean_ranks": [{"defense": asdict(d), "rank": r} for d, r in board.ranks().items()],
        "best_defense": [
            {"attack": asdict(a)} | _extreme_json(board.best_defense(a)) for a in board.poisons
        ],
    }


def _interval_json(stat: Stat, n_test: int | None) -> dict[str, Any]:
    low, high = confidence_interval(stat, n_test)
    return {"low": _or_null(low), "high": _or_null(high)}


def _entry_json(entry: BoardEntry) -> dict[str, Any]:
    values: dict[str, Any] = {n: getattr(entry, n) for n in BoardEntry.__match_args__}
    return {n: _stat_json(v) if isinstance(v, Stat) else _or_null(v) for n, v in values.items()}


def _stat_json(stat: Stat) -> dict[str, Any]:
    return {"mean": _or_null(stat.mean), "sd": _or_null(stat.sd), "n": stat.n}


def _extreme_json(extreme: Extreme) -> dict[str, Any]:
    return asdict(extreme) | {"value": _or_null(extreme.value)}


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def markdown_table(table: Layout) -> str:
    """Return one table in Markdown, with its caption before it and its note after it."""
    stub = [escape_markdown(table.stub)] if table.stub else []
    header = [*stub, escape_markdown(table.corner), *map(escape_markdown, table.flat_columns)]
    lines = [
        f"**{escape_markdown(table.caption)}**",
        "",
        _markdown_line(header),
        _markdown_line([":--"] * (1 + len(stub)) + ["--:"] * len(table.columns)),
        *(
            _markdown_line([*_markdown_labels(table, row), *map(_markdown_cell, row.cells)])
            for row in table.rows
        ),
        "",
        escape_markdown(table.note),
        "",
    ]
    return "\n".join(lines)


def _markdown_labels(table: Layout, row: TableRow) -> list[str]:
    """Return the cells before a row's numbers: its group, if rows have groups, and its label."""
    labels = [row.group, str(row.label)] if table.stub else [str(row.label)]
    return [escape_markdown(label) for label in labels]


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Shown) -> str:
    text = escape_markdown(str(cell))
    return text.replace(cell.value, f"**{cell.value}**", 1) if cell.bold else text
