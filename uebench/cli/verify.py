"""The verb that recomputes: `uebench verify RESULTS`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shared import plugin_option

if TYPE_CHECKING:
    from ..share.verify import Outcome, Verdict


@click.command()
@click.argument("results", type=click.Path())
@click.option(
    "--sample",
    type=click.IntRange(0, 1_000_000),
    default=3,
    show_default=True,
    help="Finished cells that are recomputed, drawn at random; 0: all.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="What draws them.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Largest difference of an accuracy in [0, 1], where the machine type is another one.",
)
@click.option("--device", default="auto", metavar="DEVICE", help="auto: what the cells ran on.")
@click.option("--jobs", type=click.IntRange(1, 4096), help="Cells side by side.")
@click.option("--data-dir", metavar="DIR", help="Where torchvision's data sets lie.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_option
def verify(
    results: str,
    sample: int,
    seed: int,
    tolerance: float,
    device: str,
    jobs: int | None,
    data_dir: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Recompute a sample of a results folder's cells and compare. Exit 1 on a difference.

    Nothing is taken from the store: data, poison and model are made again in a temporary one, so a
    cell takes as long as it took. On a CPU of the machine type that made the cell, every number
    must be the same bit for bit; elsewhere accuracies must lie within --tolerance. A path in the
    configuration is looked up from the present folder.

    \b
    uebench verify results/quick
    uebench verify results/quick --sample 0
    """  # noqa: D301
    from ..share.verify import verify as recompute

    verdicts = recompute(
        Path(results),
        sample=sample,
        seed=seed,
        tolerance=tolerance,
        device=device,
        jobs=jobs,
        data_dir=data_dir,
        quiet=quiet,
    )
    if as_json:
        click.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
    else:
        _print(verdicts, tolerance)
    if any(v.outcome in ("differs", "lost") for v in verdicts):
        raise SystemExit(1)


def _print(verdicts: list[Verdict], tolerance: float) -> None:
    """Print the verdicts as a table and what they come to."""
    from .store import print_table

    rows = [
        [v.cell, _percent(v.recorded), _percent(v.recomputed), v.outcome, v.told] for v in verdicts
    ]
    outcomes = [v.outcome for v in verdicts]
    meaning: dict[Outcome, str] = {
        "same": "the same bit for bit",
        "close": f"within {100 * tolerance:g} points on another machine type",
        "differs": "differ",
        "lost": "could not be recomputed",
    }
    told = "; ".join(f"{outcomes.count(o)} {m}" for o, m in meaning.items() if o in outcomes)
    heads = ["cell", "recorded", "recomputed", "outcome", "what differs"]
    print_table(heads, rows, f"{len(verdicts)} cells recomputed: {told}")


def _percent(value: float | None) -> str:
    """Return an accuracy in percent."""
    return "" if value is None else f"{100 * value:.2f}"
