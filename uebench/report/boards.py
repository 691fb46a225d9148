"""The page's leaderboards: heat maps in both metrics, with each cell linked to its record."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

from ..common.text import counted, one_line
from .colors import ink_on, ramp
from .compare import NOTHING_MEANT, Compared, Meanings, ours_of, with_published
from .comparison_table import caveats
from .conclusions import conclusions
from .confusion_page import matrix_picture
from .entries import View, entry_id, shown_entry
from .folder import Results
from .groups import CellRow, MethodSpec, Settings, by_pair, grouped
from .layout import Shown, layout, sentence
from .published import read_published
from .series import method_title
from .tables import METRICS, BoardEntry, Leaderboard, leaderboards
from .words import Label, percent, seconds, settings_in_words

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
    "victim": "victim",
}
"""What the page calls the settings that it has tabs for."""
Pair = tuple[MethodSpec, MethodSpec]
"""An attack and a defense."""
T = TypeVar("T")
ALWAYS = ("dataset", "arch")
"""Settings that have tabs even if all boards agree in them."""


def on_the_page(runs: Sequence[CellRow]) -> str:
    """Return the address of the record of some runs within the page of a results folder."""
    return f"#{entry_id(runs)}"


def page_boards(
    results: Results,
    meanings: Meanings = NOTHING_MEANT,
    address: Callable[[Sequence[CellRow]], str] = on_the_page,
) -> tuple[list[View], list[View]]:
    """Return the leaderboards, and the records that their cells are linked to.

    What a board shows in two metrics is a pair: after the last epoch, and of the best epoch.

    Args:
        results: What to show.
        meanings: What the options of methods mean for a comparison with published numbers.
        address: Returns where the record of the runs of one attack under one defense is.
    """
    last, best = (leaderboards(results.cells_with_chance, metric) for metric in METRICS)
    runs = grouped(results.cells)
    scales = color_scales([*last, *best])
    compared = with_published(ours_of(last, results.titles), read_published(), meanings=meanings)
    boards = []
    entries: dict[str, View] = {}
    for both in zip(last, best, strict=True):
        settings = both[0].settings
        published = {
            (each.ours.attack_spec, each.ours.defense_spec): each
            for each in compared
            if each.ours.settings == settings
        }
        data = settings_data(settings)
        cells = _Cells(results, by_pair(runs[settings]), published, address, data, entries)
        boards.append(_board(both, cells, scales[settings.dataset]))
    return boards, list(entries.values())


def tabs(boards: Sequence[View], results: Results) -> list[View]:
    """Return the settings by which a reader chooses a board: always data set and architecture.

    Others follow if they differ between boards that agree in all settings before them; the number
    of images, for example, is mostly decided by the data set.
    """
    rows = []
    chosen: list[str] = []
    for name, label in WORDS.items():
        values = dict.fromkeys(board["data"][name] for board in boards)
        before = {tuple(board["data"][n] for n in chosen) for board in boards}
        chosen.append(name)
        after = {tuple(board["data"][n] for n in chosen) for board in boards}
        if name in ALWAYS or len(after) > len(before):
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


def color_scales(boards: Sequence[Leaderboard]) -> dict[str, tuple[float, float]]:
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


@dataclass(frozen=True)
class _Cells:
    """What the cells of one leaderboard are linked to, and what was published for them."""

    results: Results
    runs: Mapping[Pair, Sequence[CellRow]]
    published: Mapping[Pair, Compared]
    address: Callable[[Sequence[CellRow]], str]
    data: dict[str, str]
    """The leaderboard's settings, as texts."""
    entries: dict[str, View]
    """The records of all leaderboards by their ids, to which those of this one are added."""

    def link(self, pair: Pair, settings: str) -> View | None:
        """Return the link to the record of a pair, which is made if it is new."""
        runs = self.runs.get(pair)
        if not runs:
            return None
        id, title = entry_id(runs), " × ".join(method_title(self.results, each) for each in pair)
        if id not in self.entries:
            entry = shown_entry(self.results, id, title, settings, runs)
            self.entries[id] = entry | {
                "published": published_in_words(self.published.get(pair)),
                "pair": pair,
                "data": self.data,
            }
        matrix = self.results.first_confusion(runs)
        picture = matrix_picture(matrix) if matrix else ""
        return {"href": self.address(runs), "title": title, "picture": picture}


def _board(
    both: tuple[Leaderboard, Leaderboard], cells: _Cells, scale: tuple[float, float]
) -> View:
    """Return one leaderboard, whose two metrics are `both`."""
    board, results = both[0], cells.results
    layouts = [layout(each, results.titles, emphasis="Underlined") for each in both]
    settings = ", ".join(settings_in_words(board.settings, results.titles))
    attacks = [*board.attacks, *[None] * (len(layouts[0].rows) - len(board.attacks))]
    defenses = [*board.defenses, *[None] * (len(layouts[0].columns) - len(board.defenses))]
    rows, matrices = [], []
    for attack, both_rows in zip(attacks, _pairs(*(each.rows for each in layouts)), strict=True):
        links, row = [], []
        for defense, texts in zip(defenses, _pairs(*(r.cells for r in both_rows)), strict=True):
            pair = (attack, defense) if attack and defense else None
            link = cells.link(pair, settings) if pair else None
            # The worst cases have no colours, since they repeat numbers of the cells.
            last, best = (_in_metric(shown, scale if pair else None) for shown in texts)
            entry = board.entry(*pair) if pair else BoardEntry()
            cell = {"last": last, "best": best, "href": link["href"] if link else ""}
            row.append(cell | _with_accuracy(entry, cells.published.get(pair) if pair else None))
            if pair:
                links.append(link if link and link["picture"] else None)
        cost = _crafting([board.entry(attack, d) for d in board.defenses]) if attack else ""
        rows.append(
            {"part": both_rows[0].part, "cells": row, "cost": cost}
            | _names(both_rows[0].label, attack, board)
        )
        if attack and any(links):
            matrices.append((method_title(results, attack), links))
    return {
        "data": cells.data,
        "tables": both,
        "settings": settings,
        "size": _size(board),
        "columns": [
            _names(label, defense, board)
            for label, defense in zip(layouts[0].columns, defenses, strict=True)
        ],
        "rows": rows,
        "notes": [each.note for each in layouts],
        "findings": [sentence(*conclusions(each, results.titles)) for each in both],
        "warnings": [each.warnings for each in layouts],
        "published": _about_published(list(cells.published.values())),
        "low": percent(scale[0]),
        "high": percent(scale[1]),
        "matrices": matrices,
    }


def _size(board: Leaderboard) -> str:
    """Return how many methods and trained models a leaderboard has, in words."""
    attacks = counted(len(board.poisons), "attack") if board.poisons else "clean images only"
    n_models = sum(entry.test_acc.n for entry in board.entries.values())
    defenses = counted(len(board.defenses), "defense")
    return f"{attacks}, {defenses}, {counted(n_models, 'trained model')}"


def _pairs(first: Sequence[T], second: Sequence[T]) -> Iterator[tuple[T, T]]:
    """Yield what two layouts of one leaderboard have at each place."""
    return zip(first, second, strict=True)


def _names(label: Label, method: MethodSpec | None, board: Leaderboard) -> View:
    """Return the names by which filters find a row or column; worst cases have only a label."""
    name, spec = (method.name, str(method)) if method else ("", "")
    family = one_line(board.families.get(method, "")) if method else ""
    return {"label": label, "method": name, "spec": spec, "family": family}


def published_in_words(compared: Compared | None) -> str:
    """Return what sources printed for a cell and how protocols differ; empty for nothing."""
    if compared is None:
        return ""
    return sentence(f"published: {_sources(compared)}", *caveats([compared]))


def _sources(compared: Compared) -> str:
    return "; ".join(
        f"{source} {', '.join(dict.fromkeys(map(percent, values)))}"
        for source, values in sorted(compared.published.items())
    )


def _with_accuracy(entry: BoardEntry, compared: Compared | None) -> View:
    """Return what is shown with a cell's accuracy on request: published numbers, and its cost."""
    span = dict.fromkeys(map(percent, compared.span)) if compared else ()
    cost = "" if math.isnan(entry.train_seconds) else seconds(entry.train_seconds)
    return {
        "published": "–".join(span),
        "sources": _sources(compared) if compared else "",
        "cost": cost,
    }


def _crafting(entries: Sequence[BoardEntry]) -> str:
    """Return how long a row's poison took, in words; empty for clean data."""
    times = [e.craft_seconds for e in entries if e.craft_seconds > 0]
    return f"crafted in {seconds(max(times))}" if times else ""


def _about_published(compared: Sequence[Compared]) -> str:
    """Return the sentences that explain a leaderboard's published numbers."""
    if not compared:
        return "Nothing was published for these cells, as far as the files in results/published go."
    return sentence(
        "published numbers (pub.) are those of papers and leaderboards for the same attack and "
        "defense, from the lowest to the highest",
        *caveats(compared),
    )


def _in_metric(shown: Shown, scale: tuple[float, float] | None) -> View:
    """Return a cell in one metric: its text, and its accuracy in percent, which sorts columns."""
    accuracy, color = shown.accuracy, ""
    if accuracy is not None and scale is not None:
        low, high = scale
        color = ramp((accuracy - low) / (high - low))
    value = None if accuracy is None else 100 * accuracy
    return {"shown": shown, "value": value, "color": color, "ink": ink_on(color) if color else ""}
