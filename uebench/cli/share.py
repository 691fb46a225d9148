"""The verbs that share results and poisons: publish, validate, merge, card."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from ..common.text import counted, stdout_console
from .shared import data_dir_option, echo, json_option, plugin_option

NO_LICENCE = "None was stated. The images derive from the clean data set, whose terms apply."
SHOWN_PROBLEMS = 20
"""Problems of one test that are printed; the number of the others follows."""

licence_option = click.option(
    "--licence",
    metavar="TEXT",
    default=NO_LICENCE,
    show_default=False,
    help="What others may do with it, such as 'MIT'; by default, that no licence was stated.",
)


@click.command("publish")
@click.argument("results", type=click.Path())
@click.argument("folder", type=click.Path())
@licence_option
@plugin_option
def publish_verb(results: str, folder: str, licence: str) -> None:
    """Bundle results for a repository or a paper's supplement.

    FOLDER will hold the tables, the records of all models, the hashes and budgets of the poisons,
    the web page if there is one, a README.md and SHA256SUMS. The path of your home folder is
    replaced by ~; look through run.json for other private paths before you publish it.

    \b
    uebench publish results/quick supplement --licence MIT
    uebench validate supplement
    """  # noqa: D301
    from ..share.bundle import publish as write_bundle

    bundle = write_bundle(Path(results), Path(folder), licence)
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        echo(path)
    if not (bundle / "records.json").exists():
        echo(
            f"{results} has no records.json (curves and confusion matrices); to include them, run "
            "the original command again on the machine that trained the models, then publish",
            err=True,
        )
    echo(f"next: uebench validate {bundle}", err=True)


@click.command("validate")
@click.argument("folder", type=click.Path())
@plugin_option
@json_option
def validate_verb(folder: str, as_json: bool) -> None:
    """Check that published results are complete and consistent.

    FOLDER was written by `uebench publish` or `uebench run --out`. Names, options and the number of
    cells must follow from the configuration and the recipes in run.json, accuracies from confusion
    matrices and curves, budgets from measurements, and tables and pages from all of these. What
    cannot be decided without training is listed as not checked. The exit status is 1 if a test
    fails.

    \b
    uebench validate supplement
    uebench validate results/quick --json
    """  # noqa: D301
    from ..share.validate import validate as examine

    findings = examine(Path(folder))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        from rich.text import Text

        marks = {"passed": ("ok  ", "green"), "failed": ("FAIL", "bold red")}
        console = stdout_console()
        for finding in findings:
            mark = marks.get(finding.status, ("--  ", "dim"))
            console.print(Text.assemble(mark, f"  {finding.test:<12} {finding.text}"))
            for problem in finding.problems[:SHOWN_PROBLEMS]:
                console.print(Text(f"      {problem}"))
            if (n_more := len(finding.problems) - SHOWN_PROBLEMS) > 0:
                console.print(Text(f"      and {n_more} more"))
            for gap in finding.not_checked:
                console.print(Text(f"      not checked: {gap}", "dim"))
    if any(finding.status == "failed" for finding in findings):
        raise SystemExit(1)


@click.command("merge")
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option("--out", metavar="FOLDER", required=True, help="Folder for the joined results.")
@plugin_option
def merge_verb(results: tuple[str, ...], out: str) -> None:
    """Join several results folders into one.

    RESULTS are folders of `uebench run`, published bundles, or folders of them. A cell that several
    of them have must agree: bit for bit if it was computed on machines of one type, else within 5
    points. Training seeds of several folders make the mean and the spread of one table; other
    protocols, networks or data sets get tables of their own. The joined folder says where each
    cell came from. Nothing is computed. If records disagree, they are listed, nothing is written,
    and the exit status is 1.

    \b
    uebench merge results/seed0 results/seed1 --out results/both
    """  # noqa: D301
    from ..report import leaderboards, to_rich
    from ..share.merge import merge

    content = merge([Path(path) for path in results], Path(out), ["uebench", *sys.argv[1:]])
    stdout_console().print(to_rich(leaderboards(content.cells), content.titles))
    n_folders = len({each["folder"] for each in content.run.reused.values()})
    echo(
        f"{counted(len(content.cells), 'cell')} from {counted(n_folders, 'folder')}; "
        f"the results are in {out}",
        err=True,
    )
    echo(f"next: uebench validate {out}", err=True)


@click.command("card")
@click.argument("poison", type=click.Path())
@click.option(
    "--dataset", metavar="NAME", help="Clean data set; with it, the budget is measured again."
)
@data_dir_option
@licence_option
def card_verb(poison: str, dataset: str | None, data_dir: str | None, licence: str) -> None:
    """Print a data card, in Markdown, for a crafted poison.

    POISON is a file or folder that `uebench craft --out` wrote.

    \b
    uebench craft lsp --out lsp.npz
    uebench card lsp.npz --dataset synthetic --licence CC-BY-4.0 > README.md
    """  # noqa: D301
    from ..data import load_dataset
    from ..share.card import card as markdown_card

    loaded = load_dataset(dataset, data_dir) if dataset else None
    echo(markdown_card(Path(poison), licence, loaded, dataset).rstrip("\n"))
