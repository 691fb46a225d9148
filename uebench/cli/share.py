"""The verbs that share results and poisons: publish, validate, card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .shared import stdout_console

NO_LICENCE = (
    "None was stated. The images derive from the clean data set, whose terms apply to them."
)
licence_option = click.option(
    "--licence",
    metavar="TEXT",
    default=NO_LICENCE,
    help="What others may do with it, such as 'MIT'. Default: that none was stated.",
)


@click.command()
@click.argument("results", type=click.Path())
@click.argument("folder", type=click.Path())
@licence_option
def publish(results: str, folder: str, licence: str) -> None:
    """Write a bundle of RESULTS into FOLDER, for a repository or a paper's supplement.

    Tables, records of all models, hashes and budgets of the poisons, the page where there is one,
    a README.md and SHA256SUMS. Paths lose the name of your home folder; look through run.json for
    others before you publish it.

    \b
    uebench publish results/quick supplement --licence MIT
    uebench validate supplement
    """  # noqa: D301
    from ..share.bundle import publish as write

    made = write(Path(results), Path(folder), licence)
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        click.echo(path)
    if not (made / "records.json").exists():
        click.echo(
            f"{results} has no records.json (curves, confusion): run its command again where its "
            "models were trained, then publish",
            err=True,
        )
    click.echo(f"next: uebench validate {made}", err=True)


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(folder: str, as_json: bool) -> None:
    """Test whether somebody's results are whole, possible, and belong to their recipes.

    FOLDER is what `uebench publish` or `uebench run --out` wrote. Files against SHA256SUMS, the
    columns and ranges of cells.csv, accuracies that are shares of the test images, keys that are
    the hashes of their recipes, poisons within their budgets, the leaderboard made again from the
    cells. Nothing is trained. The exit status is 1 where something is wrong.

    \b
    uebench validate supplement
    uebench validate results/quick --json
    """  # noqa: D301
    from ..share.validate import MOST_TOLD
    from ..share.validate import validate as examine

    findings = examine(Path(folder))
    if as_json:
        click.echo(json.dumps([asdict(found) for found in findings], indent=1))
    else:
        from rich.text import Text

        styles = {"passed": ("ok  ", "green"), "failed": ("FAIL", "bold red")}
        console = stdout_console()
        for found in findings:
            word, style = styles.get(found.status, ("--  ", "dim"))
            console.print(Text.assemble((word, style), f"  {found.test:<12} {found.text}"))
            for problem in found.problems[:MOST_TOLD]:
                console.print(Text(f"      {problem}"))
            if len(found.problems) > MOST_TOLD:
                console.print(Text(f"      and {len(found.problems) - MOST_TOLD} more"))
    if any(found.status == "failed" for found in findings):
        raise SystemExit(1)


@click.command()
@click.argument("poison", type=click.Path())
@click.option("--dataset", metavar="NAME", help="The clean data set, to measure the budget anew.")
@click.option("--data-dir", metavar="DIR", help="Where torchvision's data sets lie.")
@licence_option
def card(poison: str, dataset: str | None, data_dir: str | None, licence: str) -> None:
    """Print a data card for a poison that `uebench craft --out` wrote, in Markdown.

    \b
    uebench craft lsp --out lsp.npz
    uebench card lsp.npz --dataset synthetic --licence CC-BY-4.0 > README.md
    """  # noqa: D301
    from ..data import load_dataset
    from ..share.card import card as made

    loaded = load_dataset(dataset, data_dir) if dataset else None
    click.echo(made(Path(poison), licence, loaded), nl=False)
