"""The page's leaderboards: heat maps in both metrics, with each cell linked to its record."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from .colors import ink_on, ramp
from .entries import EntryShown, entry_id, shown_entry
from .folder import Results
from .groups import CellRow, MethodSpec, Settings, grouped, the_attack, the_defense
from .layout import Label, Layout, Shown, layout, percent, settings_in_words
from .matrix import matrix_picture, shares
from .series import method_title
from .tables import Extreme, Leaderboard, leaderboards

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


@dataclass(frozen=True)
class Face:
    """What a cell shows in one metric."""

    shown: Shown
    value: float | None
    """The accuracy in percent, which columns are sorted by."""
    color: str = ""
    ink: str = ""


@dataclass(frozen=True)
class PageCell:
    """A cell in both metrics, linked to its record."""

    last: Face
    best: Face
    href: str = ""


@dataclass(frozen=True)
class PageRow:
    """A row of the table; the parts `clean` and `worst` stay in place when it is sorted."""

    part: str
    label: Label
    cells: tuple[PageCell, ...]


@dataclass(frozen=True)
class Thumb:
    """A confusion matrix as a small picture."""

    picture: str
    href: str
    title: str


@dataclass(frozen=True)
class PageBoard:
    """A leaderboard with everything that belongs to its settings."""

    settings: Settings
    data: dict[str, str]
    """The settings by which tabs select boards."""
    columns: tuple[Label, ...]
    n_defenses: int
    rows: tuple[PageRow, ...]
    notes: tuple[str, str]
    """Settings and numbers of runs in words, for the last and for the best epoch."""
    findings: tuple[str, str]
    """The strongest defense and attack in words, for the last and for the best epoch."""
    low: str
    high: str
    """Together with `low`, the ends of the colour scale in percent."""
    matrices: tuple[tuple[str, tuple[Thumb | None, ...]], ...]
    """One row per attack, with one picture per defense."""


@dataclass(frozen=True)
class Tabs:
    """The values of one setting."""

    name: str
    label: str
    values: tuple[tuple[str, str], ...]
    """Each value as boards hold it, and as its tab shows it."""


def page_boards(results: Results) -> tuple[list[PageBoard], list[EntryShown]]:
    """Return the leaderboards, and the records that their cells are linked to."""
    last = leaderboards(results.cells, "test_acc")
    best = leaderboards(results.cells, "test_acc_best")
    runs = grouped(results.cells)
    scales = _scales([*last, *best])
    entries: dict[str, EntryShown] = {}
    boards = [
        _board(results, one, other, runs[one.settings], scales[one.settings.dataset], entries)
        for one, other in zip(last, best, strict=True)
    ]
    return boards, list(entries.values())


def tabs(boards: Sequence[PageBoard], results: Results) -> list[Tabs]:
    """Return the settings that differ between boards, and always data set and architecture."""
    rows = []
    for name, label in WORDS.items():
        values = list(dict.fromkeys(board.data[name] for board in boards))
        if name in ALWAYS or len(values) > 1:
            labelled = tuple((value, _tab_words(name, value, results)) for value in values)
            rows.append(Tabs(name, label, labelled))
    return rows


def settings_data(settings: Settings, *left_out: str) -> dict[str, str]:
    """Return the settings as texts for tabs to compare."""
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
    last: Leaderboard,
    best: Leaderboard,
    runs: Sequence[CellRow],
    scale: tuple[float, float],
    entries: dict[str, EntryShown],
) -> PageBoard:
    layouts = layout(last, results.titles), layout(best, results.titles)
    settings = ", ".join(settings_in_words(last.settings, results.titles))
    links: dict[tuple[MethodSpec, MethodSpec], str] = {}
    for attack in last.attacks:
        for defense in last.defenses:
            its = [r for r in runs if the_attack(r) == attack and the_defense(r) == defense]
            if its:
                id = entry_id(its)
                title = f"{method_title(results, attack)} × {method_title(results, defense)}"
                if id not in entries:
                    entries[id] = shown_entry(results, id, title, settings, its)
                links[attack, defense] = f"#{id}"
    return PageBoard(
        settings=last.settings,
        data=settings_data(last.settings),
        columns=layouts[0].columns,
        n_defenses=len(last.defenses),
        rows=tuple(_rows(last, best, layouts, links, scale)),
        notes=(layouts[0].note, layouts[1].note),
        findings=(_finding(last, results), _finding(best, results)),
        low=percent(scale[0]),
        high=percent(scale[1]),
        matrices=tuple(_matrices(results, last, runs, links)),
    )


def _rows(
    last: Leaderboard,
    best: Leaderboard,
    layouts: tuple[Layout, Layout],
    links: dict[tuple[MethodSpec, MethodSpec], str],
    scale: tuple[float, float],
) -> Iterable[PageRow]:
    for i, (last_row, best_row) in enumerate(zip(layouts[0].rows, layouts[1].rows, strict=True)):
        cells = []
        for j, pair in enumerate(zip(last_row.cells, best_row.cells, strict=True)):
            inside = i < len(last.attacks) and j < len(last.defenses)
            place = (last.attacks[i], last.defenses[j]) if inside else None
            colors = scale if inside else None
            faces = _face(pair[0], colors), _face(pair[1], colors)
            cells.append(PageCell(*faces, href=links.get(place, "") if place else ""))
        yield PageRow(last_row.part, last_row.label, tuple(cells))


def _face(shown: Shown, scale: tuple[float, float] | None) -> Face:
    """Return a cell in one metric; worst cases, which have no scale, are not coloured."""
    accuracy = shown.accuracy
    if accuracy is None or scale is None:
        return Face(shown, None if accuracy is None else 100 * accuracy)
    low, high = scale
    color = ramp((accuracy - low) / (high - low) if high > low else 1.0)
    return Face(shown, 100 * accuracy, color, ink_on(color))


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
    best_defense = (
        f"Of these defenses {method_title(results, defense)} has the highest worst case: "
        f"{words(held[defense])}."
    )
    if len(strong) < 2:
        return best_defense
    attack = min(strong, key=lambda a: strong[a].value)
    return (
        f"{best_defense} Of these attacks {method_title(results, attack)} holds the best defense "
        f"lowest: {words(strong[attack])}."
    )


def _matrices(
    results: Results,
    board: Leaderboard,
    runs: Sequence[CellRow],
    links: dict[tuple[MethodSpec, MethodSpec], str],
) -> Iterable[tuple[str, tuple[Thumb | None, ...]]]:
    """Yield the confusion matrices of the first finished run of each entry."""
    for attack in board.attacks:
        thumbs: list[Thumb | None] = []
        for defense in board.defenses:
            its = [r for r in runs if the_attack(r) == attack and the_defense(r) == defense]
            matrices = [results.record(r["key"]).confusion for r in its if r["status"] == "ok"]
            matrix = next((each for each in matrices if each), None)
            title = f"{method_title(results, attack)} × {method_title(results, defense)}"
            thumbs.append(
                Thumb(matrix_picture(shares(matrix)), links[attack, defense], title)
                if matrix
                else None
            )
        if any(thumbs):
            yield method_title(results, attack), tuple(thumbs)
