"""The verb that prints tables: one of the paper's from the store, or a folder's leaderboard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.errors import UserError
from .matrix import matrix_fields, matrix_flags, matrix_options, take_flags_from_config
from .shared import (
    data_options,
    known_meanings,
    known_titles,
    plugin_option,
    results_of,
    stdout_console,
)

if TYPE_CHECKING:
    from ..report.compare import Compared
    from ..report.grid import Grid
    from ..report.published import Published
    from ..report.tables import Leaderboard

_FORMATS = ("text", "csv", "latex", "markdown", "json")


@dataclass(frozen=True)
class TableForm:
    """How a table is printed."""

    form: str = "text"
    caption: str | None = None
    label: str | None = None
    standalone: bool = False


@click.command()
@click.argument(
    "targets",
    metavar="TABLE|RESULTS...",
    nargs=-1,
    required=True,
    is_eager=True,
    callback=take_flags_from_config,
)
@matrix_options
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="text",
    help="How the table is written.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option("--best", is_flag=True, help="Show the best epoch's accuracy, not the last one's.")
@click.option("--compare", is_flag=True, help="Add a comparison with published numbers.")
@click.option(
    "--published", metavar="FILE", help="CSV file of further published numbers to compare with."
)
@click.option(
    "--second-hand",
    is_flag=True,
    help="Also compare with numbers that a source copied, or that others noted; marked [S].",
)
@click.option("--standalone", is_flag=True, help="With latex, write a complete document.")
@click.option("--caption", metavar="TEXT", help="With latex, the caption.")
@click.option("--label", metavar="NAME", help=r"With latex, the label for \ref.")
@data_options
@plugin_option
def table(
    targets: tuple[str, ...],
    form: str,
    as_json: bool,
    best: bool,
    compare: bool,
    published: str | None,
    second_hand: bool,
    standalone: bool,
    caption: str | None,
    label: str | None,
    **options: Any,
) -> None:
    """Print a table of the paper, or the leaderboard of folders.

    Nothing is computed: a table shows the cells that are in the store and marks the others as
    missing. Flags that describe a matrix mean the same as for `uebench run table2`.

    \b
    uebench table 2                                       Table 2 from the store
    uebench table 2 --protocol quick --dataset synthetic  the same matrix, smaller
    uebench table fig3 --compare                          with published numbers
    uebench table results/quick --format latex            a folder's leaderboard
    uebench table results/seed0 results/seed1             of two folders, joined by `merge`
    """  # noqa: D301
    from ..report.published import read_published

    form = "json" if as_json else form
    shape = TableForm(form, caption, label, standalone)
    if standalone and form != "latex":
        raise UserError("--standalone writes a LaTeX document; add --format latex")
    numbers = None
    if compare or published or second_hand:
        numbers = read_published(Path(published) if published else None, second_hand)
    metric = "test_acc_best" if best else "test_acc"
    named = [name for name in map(config_of, targets) if name is not None]
    if named and len(targets) > 1:
        raise UserError(
            f"{named[0]} is a table, and only results folders can be joined; name one table, or "
            "folders alone"
        )
    name = named[0] if named else None
    if name is None:
        _print_results(targets, metric, shape, numbers, options)
    else:
        _print_table(name, metric, shape, numbers, options)


def config_of(target: str) -> str | None:
    """Return the configuration of a table given by name or number; None for a results folder.

    Raises:
        UserError: there is no such table and no such folder.
    """
    from ..cells.config import config_names
    from ..common.spec import did_you_mean

    known = config_names()
    plain = target.lower().replace(" ", "").replace("_", "")
    for name in (plain, f"table{plain}", plain.replace("figure", "fig")):
        if name in known and (plain.isdecimal() or not Path(target).exists()):
            return name
    if Path(target).suffix in (".yaml", ".yml"):
        return target
    if Path(target).exists():
        return None
    if "/" in target or target.endswith(".csv"):
        raise UserError(f"no cells at {target}; give a cells.csv or the folder that contains it")
    tables = ", ".join(sorted(known, key=lambda n: (not n.startswith("table"), len(n), n)))
    raise UserError(
        f"no cells at {target}, and no table of that name{did_you_mean(plain, known)}; the tables, "
        f"by name or number, are {tables}"
    )


def _print_results(
    paths: tuple[str, ...],
    metric: Any,
    shape: TableForm,
    published: list[Published] | None,
    options: dict[str, Any],
) -> None:
    """Print the leaderboards of a results folder, or of several as one."""
    from .. import report
    from ..cells.results import version_warning
    from ..report.compare import ours_of

    if flags := matrix_flags(options):
        raise UserError(
            f"{flags[0]} describes the matrix of a table, but {paths[0]} is a results folder; "
            "leave the flag out, or name a table"
        )
    cells = report.read_cells(paths[0]) if len(paths) == 1 else results_of(paths).cells
    if cells.empty:
        raise UserError(f"{paths[0]} has no rows, so there is no table; run some cells first")
    boards = report.leaderboards(cells, metric)
    if warning := version_warning(cells):
        click.echo(warning, err=True)
    compared = _compared(ours_of(boards, known_titles()), published, "")
    print_boards(boards, known_titles(), shape, compared)


def _print_table(
    name: str,
    metric: Any,
    shape: TableForm,
    published: list[Published] | None,
    options: dict[str, Any],
) -> None:
    """Print those cells of a configuration that are in the store."""
    from .. import report
    from ..cells.config import make_config
    from ..cells.paper_table import paper_grid, planned
    from ..execute.devices import usable_devices
    from ..report.compare import ours_of

    config = make_config(matrix_fields(name, options))
    plan = planned(config, usable_devices(options["device"])[0], options["data_dir"])
    for reason in plan.absent:
        click.echo(f"shown as missing: {reason}", err=True)
    if config.table is None:
        boards = report.leaderboards(plan.frame, metric)
        compared = _compared(ours_of(boards, known_titles()), published, "")
        print_boards(boards, known_titles(), shape, compared)
        return
    grid = paper_grid(config, plan.cells, plan.frame, known_titles(), metric)
    entries = [spot.ours for spot in grid.spots.values()]
    compared = _compared(entries, published, grid.number)
    print_grid(grid, shape, compared)
    if grid.n_missing == len(grid.spots):
        click.echo(
            f"none of its cells is in the store; `uebench run {name}` computes them", err=True
        )


def print_run(config: Any, cells: Any, frame: Any, compare: bool) -> None:
    """Print the results of a run: its configuration's table if it has one, else leaderboards."""
    from .. import report
    from ..cells.paper_table import paper_grid
    from ..cells.plan import table_titles
    from ..report.compare import ours_of
    from ..report.published import read_published

    titles = table_titles(cells)
    published = read_published() if compare else None
    grid = None
    if config.table is not None:
        with contextlib.suppress(ValueError):  # a flag added an axis that the table lacks
            grid = paper_grid(config, cells, frame, titles)
    if grid is None:
        boards = report.leaderboards(frame)
        compared = _compared(ours_of(boards, titles), published, "")
        print_boards(boards, titles, TableForm(), compared)
        return
    entries = [spot.ours for spot in grid.spots.values()]
    print_grid(grid, TableForm(), _compared(entries, published, grid.number))


def _compared(
    entries: Any, published: list[Published] | None, number: str
) -> list[Compared] | None:
    """Return our entries with what was published for them; None if nothing is to be compared."""
    from ..report.compare import compare

    return None if published is None else compare(entries, published, number, known_meanings())


def print_boards(
    boards: Sequence[Leaderboard],
    titles: dict[str, str],
    shape: TableForm,
    compared: list[Compared] | None,
) -> None:
    """Print leaderboards, and a comparison with published numbers unless it is None."""
    from .. import report
    from ..report.layout import layout

    if shape.form == "csv" and compared is None:
        click.echo(report.to_csv(list(boards)), nl=False)
    elif shape.form == "json" and compared is None:
        click.echo(report.to_json(list(boards)), nl=False)
    elif shape.form == "json":
        _echo_json({"leaderboards": json.loads(report.to_json(list(boards)))}, compared)
    elif shape.form == "latex" and compared is None:
        text = report.to_latex(
            list(boards),
            titles,
            caption=shape.caption,
            label=shape.label,
            standalone=shape.standalone,
        )
        click.echo(text, nl=False)
    else:
        tables = [(layout(board, titles), "leaderboard") for board in boards]
        _print_layouts(tables, shape, compared)


def print_grid(grid: Grid, shape: TableForm, compared: list[Compared] | None) -> None:
    """Print a paper's table, and a comparison with published numbers unless it is None."""
    import pandas as pd

    from ..report.grid import grid_layout, grid_records

    if shape.form == "json":
        head = {"table": grid.name, "title": grid.title, "metric": grid.metric}
        _echo_json({**head, "cells": grid_records(grid)}, compared)
    elif shape.form == "csv" and compared is None:
        click.echo(pd.DataFrame(grid_records(grid)).to_csv(index=False), nl=False)
    else:
        _print_layouts([(grid_layout(grid), grid.name)], shape, compared)


def _print_layouts(
    tables: Sequence[tuple[Any, str]], shape: TableForm, compared: list[Compared] | None
) -> None:
    """Print tables as text, Markdown or LaTeX; in CSV, only the comparison."""
    import pandas as pd

    from ..report.comparison import comparison_layout, comparison_records
    from ..report.formats import markdown_table
    from ..report.latex import latex_tables
    from ..report.terminal import TerminalTables

    if shape.form == "csv":
        click.echo(pd.DataFrame(comparison_records(compared or [])).to_csv(index=False), nl=False)
        return
    labelled = [(each, shape.label or f"tab:uebench-{name}") for each, name in tables]
    if compared:
        labelled.append((comparison_layout(compared), "tab:uebench-published"))
    writers: dict[str, Callable[[], None]] = {
        "text": lambda: stdout_console().print(TerminalTables(tuple(each for each, _ in labelled))),
        "markdown": lambda: click.echo("\n".join(markdown_table(t) for t, _ in labelled), nl=False),
        "latex": lambda: click.echo(
            latex_tables(labelled, shape.caption, shape.standalone), nl=False
        ),
    }
    writers[shape.form]()
    if compared is not None and not compared:
        click.echo("no published numbers for these cells are known", err=True)


def _echo_json(content: dict[str, Any], compared: list[Compared] | None) -> None:
    """Print JSON, with the comparison unless it is None; unknown numbers become null."""
    from ..report.compare import rank_correlations
    from ..report.comparison import caveats, comparison_records
    from ..report.formats import strict_json

    if compared is not None:
        content["comparison"] = {
            "cells": comparison_records(compared),
            "spearman": {
                source: {"rho": rho, "n": n}
                for source, (rho, n) in rank_correlations(compared).items()
            },
            "caveats": caveats(compared),
        }
    click.echo(json.dumps(strict_json(content), indent=1))
