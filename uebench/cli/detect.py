"""The verb that asks detectors whether a training set is poisoned: detect."""

from __future__ import annotations

import json
from typing import Any

import click

from ..common.text import counted
from .poison import reading_options
from .shared import data_options, json_option, plugin_option, print_table, quiet_option

TEN = 10
"""Classes of the data for which the threshold of arXiv:2312.08898 was chosen."""


@click.command("detect")
@click.argument("poison", type=click.Path())
@click.option("--dataset", required=True, metavar="NAME", help="The clean data set.")
@click.option(
    "--detectors",
    metavar="SPECS",
    help="Any of linear, two_layer, bias_shift, edge_pixels and noise, separated by commas; by "
    "default the three that take about a minute: linear, edge_pixels, noise.",
)
@click.option(
    "--seeds",
    default="0",
    show_default=True,
    metavar="LIST",
    help="Seeds of the detectors; on clean data they give the rate of false positives.",
)
@click.option(
    "--poison-seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Seed of an attack's poison.",
)
@click.option(
    "--protocol",
    default="quick",
    show_default=True,
    help="Protocol that trains an attack's surrogate.",
)
@json_option
@quiet_option
@reading_options
@data_options
@plugin_option
def detect_verb(
    poison: str,
    dataset: str,
    detectors: str | None,
    seeds: str,
    as_json: bool,
    data_dir: str | None,
    download: bool,
    **options: Any,
) -> None:
    """Say whether a training set is poisoned.

    POISON is an attack, `none` for the clean data, or a released file or folder, which is read as
    by `uebench audit`. A detector is fitted to four fifths of the images and scored on the others.
    The set counts as poisoned if the score exceeds the detector's threshold and
    what guessing reaches.

    \b
    uebench detect lsp --dataset synthetic
    uebench detect none --dataset synthetic --seeds 0-4
    uebench detect lsp.npz --dataset synthetic --detectors 'linear,two_layer[epochs=10]'
    """  # noqa: D301
    from ..data import load_dataset
    from ..suite.detect import detect
    from ..victims.detectors import CHEAP

    answer = detect(
        poison,
        load_dataset(dataset, data_dir, download),
        CHEAP if detectors is None else detectors,
        seeds=seeds,
        **options,
    )
    if as_json:
        click.echo(json.dumps(answer, indent=1))
    else:
        _print(answer)


def _print(answer: dict[str, Any]) -> None:
    """Print one row per detector, and what was examined."""
    heads = ["detector", "score", "guessing", "threshold", "verdict", "seeds flagged", "seconds"]
    rows = []
    for entry in answer["detectors"]:
        n_seeds = len(entry["records"])
        sd = "" if entry["score_sd"] is None else f" ± {100 * entry['score_sd']:.1f}"
        rows.append(
            [
                entry["detector"],
                f"{100 * entry['score']:.1f}{sd}",
                f"{100 * entry['chance']:.1f}",
                f"{100 * entry['threshold']:.0f} ({entry['threshold_source']})",
                "poisoned" if entry["poisoned"] else "not detected",
                f"{round(n_seeds * entry['flagged_share'])} of {n_seeds}",
                f"{entry['seconds']:.1f}",
            ]
        )
    summary = (
        f"{answer['suspect']} on {answer['dataset']}: {counted(answer['images'], 'image')}, "
        f"of which {answer['images_changed']:,} differ from the clean ones. Scores are percent of "
        "correct answers on held-out images."
    )
    if any("false_positive_rate" in entry for entry in answer["detectors"]):
        summary += " These are clean data, so each verdict of poisoned is a false positive."
    if answer["classes"] < TEN:
        summary += (
            f" With {answer['classes']} classes even a linear model may exceed the threshold on "
            "clean images, so compare with the score of `none`."
        )
    print_table(heads, rows, summary)
