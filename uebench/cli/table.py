"""The verb that prints tables: one of the paper's from the store, or a folder's leaderboard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.errors import UserError
from ..common.text import stdout_console
from .matrix import matrix_fields, matrix_flags, matrix_options, take_flags_from_config
from .shared import data_dir_option, device_option, metric_options, plugin_option

if TYPE_CHECKING:
    from ..report.arrange import Arrangement
    from ..report.compare import Compared
    from ..report.detection import Detection
    from ..report.grid import Grid
    from ..report.layout import Layout
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
    note: bool = True
    """Whether a LaTeX table has its note."""
    arrangement: Arrangement | None = None


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
@metric_options
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
@click.option(
    "--width",
    metavar="WIDTH",
    help="With latex, fit a place in a paper at the size of footnotes: column (3.25 in), page "
    "(6.75 in, as table*) or inches.",
)
@click.option("--no-note", is_flag=True, help="With latex, leave out the note below the table.")
@click.option("--transpose", is_flag=True, help="Put defenses in rows and attacks in columns.")
@click.option(
    "--no-worst-cases", is_flag=True, help="Leave out the worst cases and the best defenses."
)
@device_option
@data_dir_option
@plugin_option
def table(
    targets: tuple[str, ...],
    form: str,
    as_json: bool,
    metric: str | None,
    best: bool,
    compare: bool,
    published: str | None,
    second_hand: bool,
    standalone: bool,
    caption: str | None,
    label: str | None,
    width: str | None,
    no_note: bool,
    transpose: bool,
    no_worst_cases: bool,
    **options: Any,
) -> None:
    """Print a table of the paper, or the leaderboard of folders.

    Nothing is computed: a table shows the cells that are in the store and marks the others as
    missing. Flags that describe a matrix mean the same as for `uebench run table2`. Of a results
    folder, --attacks and --defenses select rows and columns.

    \b
    uebench table 2                                       Table 2 from the store
    uebench table 2 --protocol quick --dataset synthetic  the same matrix, smaller
    uebench table fig3 --compare                          with published numbers
    uebench table results/quick --format latex            a folder's leaderboard
    uebench table results/seed0 results/seed1             of two folders, joined by `merge`
    """  # noqa: D301
    from ..report.arrange import Arrangement
    from ..report.paper_width import inches as paper_width
    from ..report.published import read_published
    from ..report.tables import metric_of

    form = "json" if as_json else form
    if form != "latex":
        of_latex = {"caption": caption, "label": label, "standalone": standalone, "width": width}
        _refuse_latex_flags(of_latex | {"no-note": no_note})
    inches = None if width is None else paper_width(width)
    arrangement = Arrangement(transpose, not no_worst_cases, inches)
    shape = TableForm(form, caption, label, standalone, not no_note, arrangement)
    numbers = None
    if compare or published or second_hand:
        numbers = read_published(Path(published) if published else None, second_hand)
    chosen = metric_of(metric, best)
    if numbers is not None and chosen in ("robust_acc", "gap"):
        raise UserError(f"published numbers are test accuracies; leave out --metric {metric}")
    named = [name for name in map(config_of, targets) if name is not None]
    if named and len(targets) > 1:
        raise UserError(
            f"{named[0]} is a table, and only results folders can be joined; name one table, or "
            "folders alone"
        )
    name = named[0] if named else None
    if name is None:
        _print_results(targets, chosen, shape, numbers, options)
    else:
        _print_table(name, chosen, shape, numbers, options)


def _refuse_latex_flags(values: dict[str, Any]) -> None:
    """Refuse flags that only LaTeX tables have.

    Raises:
        UserError: one of them was given.
    """
    for flag, value in values.items():
        if value:
            raise UserError(f"--{flag} is about LaTeX; add --format latex")


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
    from ..common.spec import split_specs
    from ..methods.registry import known_titles
    from ..report.selection import selected
    from ..share.known import is_folder_of_results
    from ..suite.look import results_of

    given = {name: options.pop(name) for name in ("attacks", "defenses")}
    if flags := matrix_flags(options | dict.fromkeys(given)):
        raise UserError(
            f"{flags[0]} describes the matrix of a table, but {paths[0]} is a results folder; "
            "leave the flag out, or name a table"
        )
    several = len(paths) > 1 or is_folder_of_results(Path(paths[0]))
    cells = results_of(paths).cells if several else report.read_cells(paths[0])
    if cells.empty:
        raise UserError(f"{paths[0]} has no rows, so there is no table; run some cells first")
    cells = selected(cells, *(split_specs(text or "") for text in given.values()))
    boards = report.leaderboards(cells, metric)
    if warning := version_warning(cells):
        click.echo(warning, err=True)
    print_tables(boards, known_titles(), shape, published)


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
    from ..methods.registry import known_titles

    config = make_config(matrix_fields(name, options))
    plan = planned(config, usable_devices(options["device"])[0], options["data_dir"])
    for reason in plan.absent:
        click.echo(f"shown as missing: {reason}", err=True)
    if config.table is None:
        boards = report.leaderboards(plan.frame, metric)
        print_tables(boards, known_titles(), shape, published)
        return
    grid = paper_grid(config, plan.cells, plan.frame, known_titles(), metric)
    print_tables(grid, known_titles(), shape, published)
    if grid.n_missing == len(grid.spots):
        flags = ", ".join(matrix_flags(options))
        alike = f" with the same {flags}" if flags else ""
        click.echo(
            f"none of its cells is in the store; `uebench run {name}`{alike} computes them",
            err=True,
        )


def print_run(config: Any, cells: Any, frame: Any, compare: bool) -> None:
    """Print the results of a run: its configuration's table if it has one, else leaderboards."""
    from .. import report
    from ..cells.paper_table import paper_grid
    from ..cells.plan import table_titles
    from ..report.published import read_published

    titles = table_titles(cells)
    tables: Grid | list[Leaderboard] = report.leaderboards(frame)
    if config.table is not None:
        with contextlib.suppress(ValueError):  # a flag added an axis that the table lacks
            tables = paper_grid(config, cells, frame, titles)
    print_tables(tables, titles, TableForm(), read_published() if compare else None)


def print_detection(rows: Sequence[Detection], titles: dict[str, str]) -> None:
    """Print what detectors say about the poisons of a run, if they were asked."""
    from ..report.detection import detection_layouts
    from ..report.terminal import TerminalTables

    if rows:
        stdout_console().print()
        stdout_console().print(TerminalTables(tuple(detection_layouts(rows, titles))))


def print_tables(
    tables: Grid | list[Leaderboard],
    titles: dict[str, str],
    shape: TableForm,
    published: list[Published] | None,
) -> None:
    """Print a paper's table or leaderboards, compared with published numbers unless it is None."""
    from ..report.arrange import Arrangement
    from ..report.compare import ours_of, with_published
    from ..report.grid import Grid, grid_layout
    from ..report.latex import board_label
    from ..report.layout import layout
    from ..report.over_victims import by_victim_layouts

    if isinstance(tables, Grid):
        entries, number = [spot.ours for spot in tables.spots.values()], tables.number
    else:
        entries, number = ours_of(tables, titles), ""
    compared = None
    if published is not None:
        from ..methods.meanings import known_meanings

        compared = with_published(entries, published, number, known_meanings())
    if shape.form == "json":
        click.echo(_as_json(tables, compared))
    elif shape.form == "csv":
        click.echo(_as_csv(tables, compared), nl=False)
    else:
        arrangement = shape.arrangement or Arrangement()
        if isinstance(tables, Grid):
            grid = tables
            laid_out = [(arrangement.of(lambda _: grid_layout(grid)), f"tab:uebench-{grid.name}")]
        else:
            laid_out = [
                (arrangement.of(partial(layout, board, titles)), board_label(board))
                for board in tables
            ]
            laid_out += by_victim_layouts(tables, titles)
        _print_layouts(laid_out, shape, compared)
    if compared is not None and not compared:
        measured = any(entry.stat.n for entry in entries)
        reason = "no published numbers for these cells are known" if measured else "no results yet"
        click.echo(f"nothing is compared: {reason}", err=True)


def _as_csv(tables: Grid | list[Leaderboard], compared: list[Compared] | None) -> str:
    """Return tables as CSV; of a comparison, its rows alone."""
    import pandas as pd

    from .. import report
    from ..report.comparison_table import comparison_records
    from ..report.grid import Grid, grid_records

    if compared is not None:
        return pd.DataFrame(comparison_records(compared)).to_csv(index=False)
    if isinstance(tables, Grid):
        return pd.DataFrame(grid_records(tables)).to_csv(index=False)
    return report.to_csv(tables)


def _as_json(tables: Grid | list[Leaderboard], compared: list[Compared] | None) -> str:
    """Return tables as JSON, with the comparison unless it is None; unknown numbers are null."""
    from .. import report
    from ..report.compare import rank_correlations
    from ..report.comparison_table import caveats, comparison_records
    from ..report.formats import strict_json
    from ..report.grid import Grid, grid_records

    content: dict[str, Any]
    if isinstance(tables, Grid):
        content = {"table": tables.name, "title": tables.title, "metric": tables.metric}
        content["cells"] = grid_records(tables)
    elif compared is None:
        return report.to_json(tables)
    else:
        content = {"leaderboards": json.loads(report.to_json(tables))}
    if compared is not None:
        content["comparison"] = {
            "cells": comparison_records(compared),
            "spearman": {
                source: {"rho": rho, "n": n}
                for source, (rho, n) in rank_correlations(compared).items()
            },
            "caveats": caveats(compared),
        }
    return json.dumps(strict_json(content), indent=1)


def _print_layouts(
    tables: list[tuple[Layout, str]], shape: TableForm, compared: list[Compared] | None
) -> None:
    """Print tables with their LaTeX labels as text, Markdown or LaTeX, and then the comparison."""
    from ..report.arrange import Arrangement
    from ..report.comparison_table import comparison_layout
    from ..report.formats import markdown_table
    from ..report.latex import latex_tables
    from ..report.terminal import TerminalTables

    labelled = [(each, shape.label or label) for each, label in tables]
    if compared:
        arrangement = replace(shape.arrangement or Arrangement(), transpose=False)
        comparison = arrangement.of(lambda _: comparison_layout(compared))
        labelled.append((comparison, "tab:uebench-published"))
    layouts = [each for each, _ in labelled]
    if shape.form == "text":
        stdout_console().print(TerminalTables(tuple(layouts)))
    elif shape.form == "markdown":
        click.echo("\n".join(map(markdown_table, layouts)), nl=False)
    else:
        width = shape.arrangement.width if shape.arrangement else None
        text = latex_tables(labelled, shape.caption, shape.standalone, width=width, note=shape.note)
        click.echo(text, nl=False)
