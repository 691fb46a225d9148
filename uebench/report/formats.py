"""Leaderboards as a tidy frame, CSV, JSON and Markdown, and the files that a run writes.

The CSV is for scripts: one row per attack and defense, with accuracies in [0, 1] as in cells.csv.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.text import write_text
from .cells import SUPERVISED_VICTIM, write_cells
from .groups import MethodSpec
from .latex import to_latex
from .layout import Layout, Shown, layout
from .over_victims import by_victim_layouts
from .statistics import confidence_interval
from .tables import Boards, Leaderboard, Metric, leaderboards, several
from .words import Titles

FRAME_COLUMNS = [
    *("dataset", "arch", "protocol", "attack", "attack_options", "defense", "defense_options"),
    *("ratio", "classes", "precision", "epochs", "n_train", "n_test", "status", "mean", "sd", "n"),
    *("n_failed", "n_skipped", "best_epoch_mean", "best_epoch_sd", "best_epoch_n"),
    *("train_seconds", "craft_seconds", "peak_memory_mb", "is_worst_attack", "is_best_defense"),
    *("low", "high", "is_within_noise", "mean_rank"),
]
"""The columns of leaderboard.csv in their order; `origins` follows if cells were reused, and
`victim` if any model was not trained by supervised learning."""


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
                entry = board.entry(attack, defense)
                low, high = confidence_interval(board.stat(attack, defense), board.settings.n_test)
                rows.append(
                    asdict(board.settings)
                    | attack.columns("attack")
                    | defense.columns("defense")
                    | asdict(entry)
                    | asdict(entry.test_acc)
                    | {f"best_epoch_{name}": n for name, n in asdict(entry.test_acc_best).items()}
                    | {
                        "epochs": board.epochs(defense),
                        "is_worst_attack": worst[defense] == attack,
                        "is_best_defense": best.get(attack) == defense,
                        "low": low,
                        "high": high,
                        "is_within_noise": defense in near,
                        "mean_rank": ranks.get(defense, math.nan),
                        "origins": "; ".join(dict.fromkeys(entry.origins)),
                    }
                )
    extra = ["origins"] if any(row["origins"] for row in rows) else []
    extra += ["victim"] if any(row["victim"] != SUPERVISED_VICTIM for row in rows) else []
    frame = pd.DataFrame(rows, columns=[*FRAME_COLUMNS, *extra])
    return frame.astype(dict.fromkeys(("epochs", "n_train", "n_test"), "Int64"))


def to_csv(boards: Boards) -> str:
    """Return `to_frame` as CSV; numbers keep all their digits, a missing one is empty."""
    return to_frame(boards).to_csv(index=False, lineterminator="\n")


def to_json(boards: Boards) -> str:
    """Return the leaderboards as JSON: numbers in [0, 1] as in cells.csv, missing ones null."""
    return json.dumps(strict_json([_as_json(board) for board in several(boards)]), indent=2)


def to_markdown(boards: Boards, titles: Titles | None = None) -> str:
    """Return the leaderboards as GitHub Markdown tables, each with caption and note."""
    layouts = [layout(board, titles) for board in several(boards)]
    layouts += [table for table, _ in by_victim_layouts(several(boards), titles)]
    return "\n".join(map(markdown_table, layouts))


def write_leaderboards(
    cells: pd.DataFrame,
    folder: Path | str,
    titles: Titles | None = None,
    metric: Metric = "test_acc",
) -> list[Path]:
    """Write cells.csv and leaderboard.csv, .tex and .md into `folder`; return their paths.

    Each file is replaced whole. The cells come first, so that they are written even if no
    leaderboard can be made from them.

    Raises:
        ValueError: As for `write_cells` and `leaderboards`.
    """
    folder = Path(folder)
    write_cells(cells, folder / "cells.csv")
    boards = leaderboards(cells, metric)
    texts = leaderboard_texts(boards, titles)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in ("cells.csv", *texts)]


def leaderboard_texts(boards: Boards, titles: Titles | None = None) -> dict[str, str]:
    """Return leaderboard.csv, .tex and .md by name, as every run writes them from cells.csv.

    The same cells and titles give the same texts, so that a changed file can be recognised.
    """
    return {
        "leaderboard.csv": to_csv(boards),
        "leaderboard.tex": to_latex(boards, titles),
        "leaderboard.md": to_markdown(boards, titles),
    }


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


def _as_json(board: Leaderboard) -> dict[str, Any]:
    def entry(attack: MethodSpec, defense: MethodSpec) -> dict[str, Any]:
        low, high = confidence_interval(board.stat(attack, defense), board.settings.n_test)
        methods = {"attack": asdict(attack), "defense": asdict(defense)}
        return methods | asdict(board.entry(attack, defense)) | {"low": low, "high": high}

    return {
        "settings": asdict(board.settings),
        "metric": board.metric,
        "attacks": [asdict(attack) for attack in board.attacks],
        "defenses": [asdict(defense) for defense in board.defenses],
        "entries": [entry(a, d) for a in board.attacks for d in board.defenses],
        "worst_case_over_attacks": [
            {"defense": asdict(d)} | asdict(board.worst_attack(d)) for d in board.defenses
        ],
        "mean_ranks": [{"defense": asdict(d), "rank": r} for d, r in board.ranks().items()],
        "best_defense": [
            {"attack": asdict(a)} | asdict(board.best_defense(a)) for a in board.poisons
        ],
    }


def strict_json(value: Any) -> Any:
    """Return plain data in which unknown numbers are null, as JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {name: strict_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown_table(table: Layout) -> str:
    """Return one table in Markdown, with its caption before it and its note after it."""
    header = [*map(escape_markdown, (*table.heads, *table.flat_columns))]
    lines = [
        f"**{escape_markdown(table.caption)}**",
        "",
        _markdown_line(header),
        _markdown_line([":--"] * len(table.heads) + ["--:"] * len(table.columns)),
        *(
            _markdown_line(
                [*map(escape_markdown, table.labels(row)), *map(_markdown_cell, row.cells)]
            )
            for row in table.rows
        ),
        "",
        *(line for each in table.warnings for line in (f"**{escape_markdown(each)}**", "")),
        escape_markdown(table.note),
        "",
    ]
    return "\n".join(lines)


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Shown) -> str:
    text = escape_markdown(str(cell))
    return text.replace(cell.value, f"**{cell.value}**", 1) if cell.bold else text
