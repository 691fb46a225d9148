"""The verbs that turn results into pages and figures: report and plot."""

from __future__ import annotations

import click

from ..common.errors import UserError
from ..common.names import PLOTS
from .shared import data_dir_option, echo, metric_options, plugin_option, writable


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out",
    metavar="FOLDER",
    help="Folder for index.html; by default RESULTS itself, if it is a single folder.",
)
@plugin_option
def report(results: tuple[str, ...], out: str | None) -> None:
    """Write the web page of a results folder, or of several as one.

    The page, index.html, needs no server and no network. It shows the leaderboards, a record of
    each cell, plots, confusion matrices, the poisons, and how everything was computed. `uebench
    run` writes it too; this verb writes it again, for older folders as well.

    \b
    uebench report results/quick
    uebench report results/seed0 results/seed1 --out page
    """  # noqa: D301
    from ..methods.meanings import known_meanings
    from ..report import write_page
    from ..suite.look import results_of

    _check_out(results, out)
    content = results_of(results)
    echo(write_page(content, writable(out or content.folder), known_meanings()))


@click.command("plot")
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option("--kind", type=click.Choice(PLOTS), required=True, help="What to plot.")
@click.option("--out", metavar="FOLDER", help="Folder for the files; by default RESULTS/plots.")
@metric_options
@click.option(
    "--width",
    metavar="WIDTH",
    help="Width in a paper, with letters of at least 7 points: column (3.25 in), page (6.75 in) "
    "or inches.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(("pdf", "png", "svg")),
    multiple=True,
    help="Format of the files; may be repeated. By default pdf and png.",
)
@click.option(
    "--attacks", metavar="LIST", help="Only these attacks, such as none,em,lsp; none is clean data."
)
@click.option("--defenses", metavar="LIST", help="Only these defenses, such as standard,iss.")
@data_dir_option
@click.option("--download", is_flag=True, help="With examples, download a missing data set.")
@plugin_option
def plot_verb(
    results: tuple[str, ...],
    kind: str,
    out: str | None,
    metric: str | None,
    best: bool,
    width: str | None,
    formats: tuple[str, ...],
    attacks: str | None,
    defenses: str | None,
    data_dir: str | None,
    download: bool,
) -> None:
    """Draw the figures of results folders as PDF, PNG and SVG files.

    The names of the files are printed.

    \b
    curves      accuracy by epoch
    ratio       accuracy by the poisoned share of the training set
    budget      accuracy by the attack's budget
    repeats     accuracy by UEraser's number of augmentations K
    cost        accuracy by training time in seconds
    victims     accuracy by network and victim, in the order of the plan
    confusion   confusion matrices
    examples    clean and poisoned images under UEraser's augmentations

    \b
    uebench plot results/quick --kind curves
    uebench plot results/quick --kind budget --width column --format pdf
    """  # noqa: D301
    from ..suite.look import draw_plots, results_of

    if metric and kind in ("curves", "confusion", "examples"):
        raise UserError(f"--metric does not change {kind}; leave it out")
    _check_out(results, out)
    content = results_of(results)
    folder = writable(out or content.folder / "plots")
    paths = draw_plots(
        content,
        kind,
        folder,
        best=best,
        metric=metric,
        width=width,
        formats=formats or ("pdf", "png"),
        attacks=attacks,
        defenses=defenses,
        data_dir=data_dir,
        download=download,
    )
    for path in paths:
        echo(path)


def _check_out(results: tuple[str, ...], out: str | None) -> None:
    """Refuse several folders without a folder for what is made of them.

    Raises:
        UserError: no folder is given.
    """
    if len(results) > 1 and out is None:
        raise UserError("several results folders need a folder for the output; give --out FOLDER")
