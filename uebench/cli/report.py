"""The verbs that show results to readers: report and plot."""

from __future__ import annotations

import click

from .shared import known_titles, plugin_option, writable

KINDS = ("curves", "ratio", "confusion", "budget", "repeats", "cost", "examples")


@click.command()
@click.argument("results", type=click.Path())
@click.option("--out", metavar="FOLDER", help="Where index.html goes. Default: RESULTS.")
@plugin_option
def report(results: str, out: str | None) -> None:
    """Write index.html of a results folder: one page that needs no server and no network.

    It shows the leaderboards, a record of each cell, plots, confusion matrices, the poisons and how
    all was made. `uebench run` writes it too; this makes it again, also of an older folder.

    \b
    uebench report results/quick
    """  # noqa: D301
    from ..report import read_results, write_page

    read = read_results(results, known_titles())
    click.echo(write_page(read, writable(out or read.folder)))


@click.command()
@click.argument("results", type=click.Path())
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What is plotted.")
@click.option("--out", metavar="FOLDER", help="Where the files go. Default: RESULTS/plots.")
@click.option("--best", is_flag=True, help="The best epoch's accuracy instead of the last one's.")
@click.option("--data-dir", metavar="DIR", help="For examples: where torchvision's data sets lie.")
@click.option("--download", is_flag=True, help="For examples: fetch a data set that is missing.")
@plugin_option
def plot(
    results: str, kind: str, out: str | None, best: bool, data_dir: str | None, download: bool
) -> None:
    """Draw a results folder as PDF and PNG, and print the files' names.

    \b
    curves     accuracy by epoch                 ratio      by the poisoned share
    budget     by the attack's budget            repeats    by UEraser's K
    cost       by the seconds of training        confusion  the confusion matrices
    examples   images under UEraser's augmentations, clean and poisoned

    \b
    uebench plot results/quick --kind curves
    """  # noqa: D301
    from ..report import read_results

    read = read_results(results, known_titles())
    folder = writable(out or read.folder / "plots")
    if kind == "examples":
        from ..suite.examples import draw_examples

        paths = draw_examples(read, folder, data_dir, download)
    else:
        from ..report.plots import draw

        paths = draw(read, kind, folder, "test_acc_best" if best else "test_acc")
    for path in paths:
        click.echo(path)
