"""A table in the layout of a paper, filled with our measurements.

`Grid` holds the numbers and `grid_layout` formats them; the leaderboards' writers do the rest.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from .compare import Ours
from .conclusions import unlearned_warning
from .layout import Layout, Shown, TableRow, accuracy_in_words, sentence, shown_stat, usual_n
from .statistics import best_within_noise
from .words import Label

Place = tuple[Label, ...]
"""The position of a row or a column: one label per level of headings, outermost first."""


@dataclass(frozen=True)
class Spot:
    """What is known at one row and column."""

    ours: Ours
    status: str
    """`ok`, `failed` or `skipped`, which is not computed yet."""
    contest: Hashable = None
    """The best spot of each contest is bold; None, as for clean training, takes part in none."""


@dataclass(frozen=True)
class Grid:
    """A paper's table with our numbers; combinations that the paper leaves out have no spot."""

    name: str
    """The name of the table, such as table2, which also gives its LaTeX label."""
    number: str
    title: str
    metric: str
    row_heads: tuple[str, ...]
    rows: tuple[Place, ...]
    columns: tuple[Place, ...]
    spots: Mapping[tuple[Place, Place], Spot]
    chances: Mapping[str, float] = field(default_factory=dict)
    """The accuracy of a model that has learned nothing, by data set, where it is known."""
    settings: tuple[str, ...] = ()
    """What the cells have in common, in words."""
    best: frozenset[tuple[Place, Place]] = field(default_factory=frozenset)

    @property
    def n_missing(self) -> int:
        """The number of spots without a measurement."""
        return sum(not spot.ours.stat.n for spot in self.spots.values())


def best_places(spots: Mapping[tuple[Place, Place], Spot]) -> frozenset[tuple[Place, Place]]:
    """Return the places that are best in their contest, or within noise of the best."""
    contests: dict[Hashable, list[tuple[Place, Place]]] = {}
    for place, spot in spots.items():
        if spot.contest is not None:
            contests.setdefault(spot.contest, []).append(place)
    best: set[tuple[Place, Place]] = set()
    for places in contests.values():
        n_test = min((spots[p].ours.n_test or 0 for p in places), default=0)
        best |= best_within_noise({p: spots[p].ours.stat for p in places}, n_test or None)
    return frozenset(best)


def grid_layout(grid: Grid) -> Layout:
    """Return a paper's table with its numbers formatted."""
    stats = [spot.ours.stat for spot in grid.spots.values()]
    usual = usual_n(stats)
    stub = len(grid.row_heads) > 1
    rows = []
    for place in grid.rows:
        cells = []
        for column in grid.columns:
            spot, bold = grid.spots.get((place, column)), (place, column) in grid.best
            status = "failed" if spot and spot.status == "failed" else ""
            cells.append(shown_stat(spot.ours.stat, status, usual, bold) if spot else Shown())
        group = str(place[0]) if stub else ""
        rows.append(TableRow(_joined(place[1:] if stub else place), tuple(cells), group, group))
    groups, columns = _heads(grid.columns)
    sizes = {spot.ours.n_test for spot in grid.spots.values() if spot.ours.stat.n}
    n_test = sizes.pop() if len(sizes) == 1 else None
    note = [", ".join(grid.settings)] if grid.settings else []
    note += accuracy_in_words(stats, grid.metric, rows, n_test)
    if grid.n_missing:
        note.append(f"Dashes: {grid.n_missing} of {len(grid.spots)} have not been computed yet")
    return Layout(
        caption=grid.title,
        corner=", ".join(grid.row_heads[1:] if stub else grid.row_heads),
        columns=columns,
        rows=tuple(rows),
        note=". ".join(note) + ".",
        warnings=tuple(_warnings(grid)),
        stub=grid.row_heads[0] if stub else "",
        groups=groups,
    )


def _warnings(grid: Grid) -> list[str]:
    """Return a warning for each data set and network that was not learned even from clean data."""
    groups: dict[tuple[str, str], list[Ours]] = {}
    for spot in grid.spots.values():
        settings = spot.ours.settings
        groups.setdefault((settings.dataset, settings.arch), []).append(spot.ours)
    lines = []
    for (dataset, arch), entries in groups.items():
        clean = [ours.stat for ours in entries if ours.attack == "none"]
        n_test = max((ours.n_test or 0 for ours in entries), default=0)
        every = [ours.stat for ours in entries]
        warning = unlearned_warning(clean, every, grid.chances.get(dataset), n_test or None)
        if warning:
            where = f" ({dataset}, {arch})" if len(groups) > 1 else ""
            lines.append(sentence(warning + where))
    return lines


def _heads(places: Sequence[Place]) -> tuple[tuple[tuple[str, int], ...], tuple[Label, ...]]:
    """Return the headings above the columns with their widths, and each column's own label.

    Headings above one column each are merged into the labels.
    """
    if len(places[0]) == 1:
        return (), tuple(place[0] for place in places)
    groups = tuple((str(head), len(list(of))) for head, of in groupby(places, lambda p: p[0]))
    if all(n == 1 for _, n in groups):
        return (), tuple(_joined(place) for place in places)
    return groups, tuple(_joined(place[1:]) for place in places)


def _joined(place: Place) -> Label:
    if len(place) == 1:
        return place[0]
    return Label(", ".join(str(label) for label in place if str(label)))


def grid_records(grid: Grid) -> list[dict[str, object]]:
    """Return one row per spot for CSV and JSON: labels, accuracies in [0, 1], their intervals."""
    return [
        {
            "table": grid.name,
            "row": " / ".join(map(str, row)),
            "column": " / ".join(map(str, column)),
            "status": spot.status if spot.status != "skipped" else "missing",
            **spot.ours.record(),
            "is_within_noise": (row, column) in grid.best,
        }
        for row in grid.rows
        for column in grid.columns
        if (spot := grid.spots.get((row, column))) is not None
    ]
