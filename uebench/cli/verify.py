"""The verb that recomputes: `uebench verify RESULTS`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..common.text import counted, one_line
from .share import SHOWN_PROBLEMS
from .shared import data_dir_option, json_option, plugin_option, print_table, quiet_option

if TYPE_CHECKING:
    from ..suite.verify import Verdict, VerdictKind


@click.command("verify")
@click.argument("results", type=click.Path())
@click.option(
    "--sample",
    type=click.IntRange(0, 1_000_000),
    default=3,
    help="Number of finished cells to recompute, drawn at random; 0 means all.",
)
@click.option(
    "--reused-first",
    is_flag=True,
    help="Draw cells that were taken from other folders before all others.",
)
@click.option("--seed", type=int, default=0, help="Seed of the random draw.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.05,
    help="Largest accepted difference of an accuracy in [0, 1] on another type of machine.",
)
@click.option(
    "--device", default="auto", metavar="DEVICE", help="auto means what the cells were computed on."
)
@click.option(
    "--jobs", type=click.IntRange(1, 4096), help="Number of cells computed at the same time."
)
@data_dir_option
@quiet_option
@json_option
@plugin_option
def verify_verb(
    results: str,
    sample: int,
    reused_first: bool,
    seed: int,
    tolerance: float,
    device: str,
    jobs: int | None,
    data_dir: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check that a folder's files agree, and recompute a sample.

    First, keys, recipes, records, curves, confusion matrices and accuracies of all cells must
    agree with each other, which takes seconds. Then cells are recomputed. Nothing is taken from the
    store: data, poison and model are computed again in a temporary store, so each cell takes as
    long as it did at first. On a CPU of the same type as the original machine's, every number must
    be identical bit for bit; elsewhere, accuracies must agree within --tolerance. A relative path
    in the configuration starts from the current folder. The exit status is 1 if files contradict
    each other, or a cell differs or could not be recomputed.

    \b
    uebench verify results/quick
    uebench verify results/quick --sample 0
    """  # noqa: D301
    from ..suite.verify import contradictions
    from ..suite.verify import verify as recompute

    # os.path, since Path.is_file raises for a name that is too long
    has_cells = os.path.isfile(f"{results}/cells.csv")  # noqa: PTH113
    problems = contradictions(Path(results)) if has_cells else []
    if has_cells and not as_json:
        _print_contradictions(problems)
    verdicts = recompute(
        Path(results),
        sample=sample,
        seed=seed,
        tolerance=tolerance,
        device=device,
        jobs=jobs,
        data_dir=data_dir,
        quiet=quiet,
        reused_first=reused_first,
    )
    if as_json:
        click.echo(json.dumps([asdict(verdict) for verdict in [*verdicts, *problems]], indent=1))
    else:
        _print(verdicts, tolerance)
    if problems or any(verdict.outcome in ("differs", "lost") for verdict in verdicts):
        raise SystemExit(1)


def _print_contradictions(found: list[Verdict]) -> None:
    if not found:
        click.echo("all cells: keys, recipes, records and accuracies agree with each other")
        return
    for verdict in found[:SHOWN_PROBLEMS]:
        click.echo(f"contradiction: {one_line(verdict.reason)}")
    if (n_more := len(found) - SHOWN_PROBLEMS) > 0:
        click.echo(f"and {n_more} more contradictions")


def _print(verdicts: list[Verdict], tolerance: float) -> None:
    rows = [
        [v.cell, _percent(v.recorded), _percent(v.recomputed), v.outcome, v.reason]
        for v in verdicts
    ]
    meanings: dict[VerdictKind, str] = {
        "same": "identical bit for bit",
        "close": f"within {100 * tolerance:g} points on another type of machine",
        "differs": "different",
        "lost": "could not be recomputed",
    }
    outcomes = [verdict.outcome for verdict in verdicts]
    counts = "; ".join(
        f"{outcomes.count(outcome)} {meaning}"
        for outcome, meaning in meanings.items()
        if outcome in outcomes
    )
    heads = ["cell", "recorded", "recomputed", "outcome", "what differs"]
    print_table(heads, rows, f"{counted(len(verdicts), 'cell')} recomputed: {counts}")


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f}"
