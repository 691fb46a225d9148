"""Lay out a paper's table along its axes, from planned cells and their records in the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.errors import UserError
from ..common.options import option_value
from ..common.spec import parse_spec, split_specs
from ..common.text import counted, one_line, write_text
from ..data import Dataset, DatasetError, load_dataset
from ..data.catalog import DATASETS
from ..report.cells import SUPERVISED_VICTIM
from ..report.compare import Ours
from ..report.formats import markdown_table
from ..report.grid import Grid, Place, Spot, best_places, grid_layout, grid_records
from ..report.groups import Settings, plain_rows
from ..report.latex import latex_tables
from ..report.statistics import Stat
from ..report.tables import Metric, value_of
from ..report.words import CLEAN, Label, Titles
from ..store.store import Store, canonical
from .cell import Cell, DatasetRef, dataset_ref
from .config import Config, dataset_specs
from .plan import plan
from .results import gather
from .table_spec import TableSpec

_HEADS = {
    "dataset": "data set",
    "arch": "network",
    "ratio": "ratio",
    "classes": "poisoned classes",
    "epochs": "epochs",
}


@dataclass(frozen=True, eq=False)
class Planned:
    """The cells of a configuration, their rows of cells.csv, and which files are missing."""

    config: Config
    cells: list[Cell]
    frame: pd.DataFrame
    absent: list[str]


def planned(
    config: Config, device: str, data_dir: Path | str | None = None, store: Store | None = None
) -> Planned:
    """Plan a configuration and read its finished cells from the store; nothing is computed.

    A named data set or a file of weights that is not on this machine is replaced by a stand-in, so
    that its cells are shown as missing, and the other cells can be shown.
    """
    store = store or Store()
    datasets: list[tuple[Dataset | DatasetRef, DatasetRef]] = []
    absent: list[str] = []
    for spec in dataset_specs(config):
        ref = stand_in(spec)
        try:
            datasets.append(_loaded(spec, data_dir))
        except (DatasetError, KeyError) as error:
            if ref is None:
                raise
            datasets.append((ref, ref))
            absent.append(str(error.args[0]))
    cells = plan(config, datasets, device, store, absent)
    return Planned(config, cells, gather(cells, store), list(dict.fromkeys(absent)))


def _loaded(spec: str, data_dir: Path | str | None) -> tuple[Dataset, DatasetRef]:
    loaded = load_dataset(spec, data_dir, outline=True)
    return loaded, dataset_ref(loaded)


def paper_grid(
    config: Config,
    cells: Sequence[Cell],
    frame: pd.DataFrame,
    titles: Titles,
    metric: Metric = "test_acc",
) -> Grid:
    """Return a configuration's table.

    Args:
        config: the configuration; its field `table` describes the axes.
        cells: the planned cells.
        frame: their rows of cells.csv, in the same order.
        titles: the titles of methods, by name.
        metric: the column that is shown.

    Raises:
        UserError: different cells belong to the same row and column.
    """
    spec = config.table or TableSpec()
    runs = [
        _Run(cell, row, spec, titles) for cell, row in zip(cells, plain_rows(frame), strict=True)
    ]
    placed, attack_beside = _placed(runs, spec)
    rows, columns = _heads(spec.rows), _heads(spec.columns)
    spots = {
        place: _spot(place, here, attack_beside.get(place, ""), metric, (rows, columns))
        for place, here in placed.items()
    }
    names = dict.fromkeys(cell.poison.dataset.name for cell in cells)
    return Grid(
        name=spec.name,
        number=spec.number,
        title=f"{config.title.rstrip('.') or spec.name}. Test accuracy (%) on {', '.join(names)}",
        metric=metric,
        row_heads=rows,
        rows=_in_order((row for row, _ in placed), spec.rows),
        columns=_clean_first(_in_order((column for _, column in placed), spec.columns)),
        spots=spots,
        chances={
            run.values["dataset"]: run.values["chance"]
            for run in runs
            if run.values["chance"] is not None
        },
        settings=(*_common(cells, spec), *_origins(frame)),
        best=best_places(spots),
    )


def _placed(
    runs: Sequence[_Run], spec: TableSpec
) -> tuple[dict[tuple[Place, Place], list[_Run]], dict[tuple[Place, Place], str]]:
    """Return the runs at each place of the table, and the attack next to each clean place.

    If clean training has columns of its own, a clean run is shown once for each attack whose cells
    were trained in the same way, and at its own place if there is no such attack.
    """
    placed: dict[tuple[Place, Place], list[_Run]] = {}
    attack_beside: dict[tuple[Place, Place], str] = {}
    aside = [run for run in runs if run.is_clean and spec.clean == "column"]
    clean: dict[Any, list[_Run]] = {}
    for run in aside:
        clean.setdefault(run.trained_as, []).append(run)
    used: set[int] = set()
    for run in runs:
        if run.is_clean and aside:
            continue
        for other in clean.get(run.trained_as, ()):
            place = (run.row, _aside(run.column))
            if other not in placed.setdefault(place, []):
                placed[place].append(other)
            attack_beside[place] = run.cell.poison.attack.info.name
            used.add(id(other))
        placed.setdefault((run.row, run.column), []).append(run)
    for run in aside:
        if id(run) not in used:
            placed.setdefault((run.row, run.column), []).append(run)
    return placed, attack_beside


def table_texts(grid: Grid) -> dict[str, str]:
    """Return the contents of a paper's table in a results folder, by file name."""
    laid_out = grid_layout(grid)
    return {
        "table.csv": pd.DataFrame(grid_records(grid)).to_csv(index=False, lineterminator="\n"),
        "table.tex": latex_tables([(laid_out, f"tab:uebench-{grid.name}")]),
        "table.md": markdown_table(laid_out),
    }


def write_table(grid: Grid, folder: Path) -> None:
    """Write a paper's table into a results folder as table.csv, table.tex and table.md."""
    for name, text in table_texts(grid).items():
        write_text(folder / name, text)


class _Run:
    """A cell with its row of cells.csv, and its place in the table."""

    def __init__(self, cell: Cell, row: dict[str, Any], spec: TableSpec, titles: Titles) -> None:
        self.cell = cell
        self.values = row
        self.is_clean = cell.poison.is_clean
        axes = (*spec.rows, *spec.columns)
        place = [_label(axis, cell, row, axes, titles) for axis in axes]
        self.row: Place = tuple(place[: len(spec.rows)])
        self.column: Place = tuple(place[len(spec.rows) :])
        self.trained_as = (
            cell.poison.dataset.fingerprint,
            cell.arch,
            cell.protocol.epochs,
            cell.defense.info.name,
            canonical(cell.recipe().get("options")),
            cell.victim,
        )


def _label(
    axis: str, cell: Cell, row: dict[str, Any], axes: tuple[str, ...], titles: Titles
) -> Label:
    """Return the label of a cell on one axis."""
    kind, dot, option = axis.partition(".")
    if kind in ("attack", "defense"):
        method = cell.poison.attack if kind == "attack" else cell.defense
        if dot:
            value = method.options().get(option)
            return Label(
                "" if value is None else option_value(value, type(method).model_fields[option])
            )
        if kind == "attack" and cell.poison.is_clean:
            return Label(CLEAN)
        apart = {each.partition(".")[2] for each in axes if each.startswith(f"{kind}.")}
        # an option with an axis of its own is not repeated in the method's label
        options = [
            part
            for part in split_specs(row[f"{kind}_options"])
            if part.partition("=")[0].strip() not in apart
        ]
        name = method.info.name
        return Label(titles.get(name, name), ",".join(options))
    if axis == "classes":
        return Label(row["classes"] or "all")
    if axis == "victim":
        return Label(row[axis] or SUPERVISED_VICTIM)
    if axis == "epochs":
        return Label(counted(row[axis], "epoch"))
    return Label(f"{row[axis]:g}" if axis == "ratio" else str(row[axis]))


def _aside(column: Place) -> Place:
    """Return the place of the clean column that precedes a column."""
    return (*column[:-1], Label(column[-1].title, column[-1].options, aside=CLEAN))


def _heads(axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(_HEADS.get(axis, axis.partition(".")[2] or axis) for axis in axes)


def _spot(
    place: tuple[Place, Place],
    runs: Sequence[_Run],
    attack_beside: str,
    metric: Metric,
    heads: tuple[tuple[str, ...], tuple[str, ...]],
) -> Spot:
    """Return the entry at one place of the table, averaged over its runs.

    Raises:
        UserError: the runs differ in more than their seeds.
    """
    first = runs[0]
    recipes = {run.values["recipe"] for run in runs}
    if len(recipes) > 1:
        raise UserError(
            f"{len(recipes)} different cells belong to row {_words(place[0])}, column "
            f"{_words(place[1])}; add what distinguishes them to the table's rows or columns, or "
            "select a single data set, network, ratio and so on"
        )
    done = [run for run in runs if run.values["status"] == "ok"]
    failed = any(run.values["status"] == "failed" for run in runs)
    known = done[0].values if done else first.values
    values = (value_of(run.values, metric) for run in done)
    ours = Ours(
        row=_words(place[0]),
        column=_words(place[1]),
        attack=first.values["attack"],
        attack_options=first.values["attack_options"],
        defense=first.values["defense"],
        defense_options=first.values["defense_options"],
        settings=Settings.of(known),
        stat=Stat.of([value for value in values if value is not None]),
        epochs=known["epochs"],
        beside=attack_beside,
        heads=(", ".join(heads[0]), ", ".join(heads[1])),
    )
    status = "ok" if done else "failed" if failed else "skipped"
    cell = first.cell
    contest = (cell.key if cell.fault else cell.poison.key, cell.arch, cell.ratio, cell.classes)
    return Spot(ours, status, None if attack_beside else contest)


def _words(place: Place) -> str:
    return ", ".join(str(label) for label in place if str(label))


def _in_order(places: Iterable[Place], axes: Sequence[str]) -> tuple[Place, ...]:
    """Return the distinct places: ratios in rising order, other labels as they first appear."""
    unique = list(dict.fromkeys(places))
    seen: list[dict[Label, float]] = [{} for _ in axes]
    for place in unique:
        for labels, axis, label in zip(seen, axes, place, strict=True):
            labels.setdefault(label, float(label.title) if axis == "ratio" else len(labels))
    return tuple(sorted(unique, key=lambda p: [seen[i][label] for i, label in enumerate(p)]))


def _clean_first(columns: tuple[Place, ...]) -> tuple[Place, ...]:
    """Return the columns, each preceded by its clean column if it has one."""
    plain = [column for column in columns if not column[-1].aside]
    return tuple(c for column in plain for c in (_aside(column), column) if c in columns)


def _common(cells: Sequence[Cell], spec: TableSpec) -> list[str]:
    """Describe the settings that are not among the table's axes, for its note."""
    axes = {axis.partition(".")[0] for axis in (*spec.rows, *spec.columns)}
    archs = list(dict.fromkeys(cell.arch for cell in cells))
    epochs = sorted({cell.protocol.epochs for cell in cells})
    words = []
    if "arch" not in axes:
        words.append(", ".join(archs))
    words.append(f"protocol {', '.join(dict.fromkeys(c.protocol.name for c in cells))}")
    if "epochs" not in axes:
        words.append(" or ".join([*map(str, epochs[:-1]), counted(epochs[-1], "epoch")]))
    words.append(f"precision {', '.join(dict.fromkeys(c.precision for c in cells))}")
    return words


def _origins(frame: pd.DataFrame) -> list[str]:
    """Return how many of the finished cells were taken from other folders."""
    done = frame[frame["status"] == "ok"]
    return [
        f"{n} of {len(done)} models taken from {one_line(str(origin))}"
        for origin, n in done["origin"].value_counts(sort=False).items()
        if origin
    ]


def stand_in(spec: str) -> DatasetRef | None:
    """Return a reference to a data set that is not on this machine, or None if it is unknown."""
    if ":" in spec:
        return None
    entry = DATASETS.get(parse_spec(spec).name)
    if entry is None or entry.shape is None:
        return None
    return DatasetRef(spec.strip(), f"absent: {spec}", entry.n_classes, entry.shape, entry.labels)
