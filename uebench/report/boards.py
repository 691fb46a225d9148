"""The page's leaderboards: heat maps in both metrics, with each cell linked to its record."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import product

from .colors import ink_on, ramp
from .conclusions import conclusions
from .entries import View, entry_id, shown_entry
from .folder import Results
from .groups import CellRow, MethodSpec, Settings, by_pair, grouped
from .layout import Shown, layout, sentence
from .matrix import matrix_picture
from .series import method_title
from .tables import METRICS, Leaderboard, leaderboards
from .words import percent, settings_in_words

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
    last, best = (leaderboards(results.cells_with_chance, metric) for metric in METRICS)
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
    """Return the accuracies at the ends of each data set's colours: chance, and of a clean model.

    So a colour means the same whatever else was run. Where chance is unknown, the colours begin at
    0; they end at 100 % where no clean model exceeds chance.
    """
    scales = {}
    for name in dict.fromkeys(board.settings.dataset for board in boards):
        its = [board for board in boards if board.settings.dataset == name]
        low = next((board.chance for board in its if board.chance is not None), 0.0)
        stats = [b.stat(a, d) for b in its for a in b.attacks if a.is_clean for d in b.defenses]
        high = max((stat.mean for stat in stats if stat.n), default=1.0)
        scales[name] = low, high if high > low else 1.0
    return scales


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
        "findings": [sentence(*conclusions(each, results.titles)) for each in both],
        "warnings": [each.warnings for each in layouts],
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
        color = ramp((accuracy - low) / (high - low))
    value = None if accuracy is None else 100 * accuracy
    return {"shown": shown, "value": value, "color": color, "ink": ink_on(color) if color else ""}
