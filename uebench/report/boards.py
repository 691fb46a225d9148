"""The page's leaderboards: heat maps in both metrics, with each cell linked to its record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import product

from .colors import ink_on, ramp
from .entries import View, entry_id, shown_entry
from .folder import Results
from .groups import CellRow, MethodSpec, Settings, by_pair, grouped
from .layout import Shown, layout, percent, settings_in_words
from .matrix import matrix_picture
from .series import method_title
from .tables import METRICS, Extreme, Leaderboard, leaderboards

WORDS = {
    "dataset": "data set",
    "arch": "architecture",
    "protocol": "protocol",
    "ratio": "poisoned share",
    "classes": "poisoned classes",
    "precision": "precision",
    "epochs": "epochs",
    "n_train": "training images",
    "n_test": "test images",
}
"""What the page calls the settings that it has tabs for."""
ALWAYS = ("dataset", "arch")
"""Settings that have tabs even if all boards agree in them."""


def page_boards(results: Results) -> tuple[list[View], list[View]]:
    """Return the leaderboards, and the records that their cells are linked to.

    What a board shows in two metrics is a pair: after the last epoch, and of the best epoch.
    """
    last, best = (leaderboards(results.cells, metric) for metric in METRICS)
    runs = grouped(results.cells)
    scales = _scales([*last, *best])
    entries: dict[str, View] = {}
    boards = [
        _board(results, both, by_pair(runs[settings]), scales[settings.dataset], entries)
        for both in zip(last, best, strict=True)
        for settings in (both[0].settings,)
    ]
    return boards, list(entries.values())


def tabs(boards: Sequence[View], results: Results) -> list[View]:
    """Return the settings that differ between boards, and always data set and architecture."""
    rows = []
    for name, label in WORDS.items():
        values = dict.fromkeys(board["data"][name] for board in boards)
        if name in ALWAYS or len(values) > 1:
            labelled = [(value, _tab_words(name, value, results)) for value in values]
            rows.append({"name": name, "label": label, "values": labelled})
    return rows


def settings_data(settings: Settings, *left_out: str) -> dict[str, str]:
    """Return the settings as texts, by which the tabs of the page select boards."""
    pairs = zip(Settings.__match_args__, astuple(settings), strict=True)
    return {name: str(value) for name, value in pairs if name not in left_out}


def _tab_words(name: str, value: str, results: Results) -> str:
    if value in ("", "None"):
        return "all" if name == "classes" else "unknown"
    if name == "ratio":
        return f"{100 * float(value):g} %"
    return results.titles.get(value, value) if name in ALWAYS else value


def _scales(boards: Sequence[Leaderboard]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest accuracy on each data set, over both metrics."""
    means_on: dict[str, list[float]] = {}
    for board in boards:
        means = [board.stat(a, d).mean for a in board.attacks for d in board.defenses]
        known = [mean for mean in means if not math.isnan(mean)]
        means_on.setdefault(board.settings.dataset, []).extend(known)
    return {name: (min(v, default=0.0), max(v, default=1.0)) for name, v in means_on.items()}


def _board(
    results: Results,
    both: tuple[Leaderboard, Leaderboard],
    runs: Mapping[tuple[MethodSpec, MethodSpec], Sequence[CellRow]],
    scale: tuple[float, float],
    entries: dict[str, View],
) -> View:
    """Return one leaderboard, and add the records of its cells to `entries`."""
    board = both[0]
    layouts = [layout(each, results.titles) for each in both]
    settings = ", ".join(settings_in_words(board.settings, results.titles))
    links: dict[tuple[int, int], str] = {}
    thumbs: dict[int, dict[int, View]] = {}
    for (i, attack), (j, defense) in product(enumerate(board.attacks), enumerate(board.defenses)):
        if its_runs := runs.get((attack, defense)):
            id = entry_id(its_runs)
            title = f"{method_title(results, attack)} × {method_title(results, defense)}"
            if id not in entries:
                entries[id] = shown_entry(results, id, title, settings, its_runs)
            links[i, j] = f"#{id}"
            if matrix := results.first_confusion(its_runs):
                picture = matrix_picture(matrix)
                thumbs.setdefault(i, {})[j] = {"picture": picture, "href": f"#{id}", "title": title}
    n_rows, n_defenses = len(board.attacks), len(board.defenses)
    rows = []
    for i, both_rows in enumerate(zip(*(each.rows for each in layouts), strict=True)):
        cells = []
        for j, both_cells in enumerate(zip(*(row.cells for row in both_rows), strict=True)):
            colors = scale if i < n_rows and j < n_defenses else None  # worst cases have none
            last, best = (_face(shown, colors) for shown in both_cells)
            cells.append({"last": last, "best": best, "href": links.get((i, j), "")})
        rows.append({"part": both_rows[0].part, "label": both_rows[0].label, "cells": cells})
    return {
        "data": settings_data(board.settings),
        "columns": layouts[0].columns,
        "n_defenses": n_defenses,
        "rows": rows,
        "notes": [each.note for each in layouts],
        "findings": [_finding(each, results) for each in both],
        "low": percent(scale[0]),
        "high": percent(scale[1]),
        "matrices": [
            (method_title(results, board.attacks[i]), [its.get(j) for j in range(n_defenses)])
            for i, its in thumbs.items()
        ],
    }


def _face(shown: Shown, scale: tuple[float, float] | None) -> View:
    """Return a cell in one metric: its text, and its accuracy in percent, which sorts columns."""
    accuracy, color = shown.accuracy, ""
    if accuracy is not None and scale is not None:
        low, high = scale
        color = ramp((accuracy - low) / (high - low) if high > low else 1.0)
    value = None if accuracy is None else 100 * accuracy
    return {"shown": shown, "value": value, "color": color, "ink": ink_on(color) if color else ""}


def _finding(board: Leaderboard, results: Results) -> str:
    """Return which defense has the highest worst case, and which attack the lowest.

    Only worst cases over every opponent count, and a comparison needs two of them.
    """

    def complete(extremes: Mapping[MethodSpec, Extreme]) -> dict[MethodSpec, Extreme]:
        return {m: e for m, e in extremes.items() if e.by is not None and e.complete}

    def words(extreme: Extreme) -> str:
        by = method_title(results, extreme.by) if extreme.by else ""
        return f"{percent(extreme.value)} % under {by}"

    held = complete({d: board.worst_attack(d) for d in board.defenses})
    strong = complete({a: board.best_defense(a) for a in board.poisons})
    if len(board.poisons) < 2 or len(held) < 2:
        return ""
    defense = max(held, key=lambda d: held[d].value)
    finding = (
        f"Of these defenses {method_title(results, defense)} has the highest worst case: "
        f"{words(held[defense])}."
    )
    if len(strong) > 1:
        attack = min(strong, key=lambda a: strong[a].value)
        finding += (
            f" Of these attacks {method_title(results, attack)} holds the best defense "
            f"lowest: {words(strong[attack])}."
        )
    return finding
