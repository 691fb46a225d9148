"""Accuracies that others published, as `results/published/*.csv` holds them, read and checked."""

import csv
import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError
from ..common.text import one_line

PUBLISHED_COLUMNS = (
    *("table", "dataset", "arch", "attack", "attack_options", "defense", "defense_options"),
    *("beside", "epochs", "accuracy", "note"),
)
"""The columns of such a file; `beside`, `epochs`, options, `table` and `note` may be empty."""
REQUIRED = ("dataset", "arch", "attack", "defense", "accuracy")

N_TRAIN = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}
"""The number of training images in the data sets of the papers."""


@dataclass(frozen=True)
class Published:
    """One published number."""

    source: str
    table: str
    dataset: str
    arch: str
    attack: str
    attack_options: str
    defense: str
    defense_options: str
    beside: str
    """The attack whose clean column this is, in tables with one clean column per attack."""
    epochs: int | None
    accuracy: float
    """In [0, 1]."""
    note: str


def read_published(own: Path | None = None) -> list[Published]:
    """Return the published numbers that come with the suite, then those of the user's `own` file.

    Raises:
        UserError: A file cannot be read, lacks a column, or has a value that is not accepted.
    """
    paths = sorted(_folder().glob("*.csv"))
    if not paths:
        raise UserError("the published numbers of the suite are missing; install the suite again")
    rows = [row for path in paths for row in _rows(path)]
    return rows + (list(_rows(own)) if own is not None else [])


def _folder() -> Path:
    """Return the folder with the suite's published numbers."""
    try:
        package = importlib.import_module("uebench.published")
    except ModuleNotFoundError:
        raise UserError(
            "the suite's published numbers are not installed; run `pip install -e .` again"
        ) from None
    return Path(next(iter(package.__path__)))


def _rows(path: Path) -> Iterator[Published]:
    """Yield the checked rows of one file; its name is the source."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            head = next(reader, [])
            _check_head(path, head)
            for row in reader:
                if row:
                    yield _row(path, f"{path}, line {reader.line_num}", head, row)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a CSV of published numbers") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV ({error})") from None


def _check_head(path: Path, head: list[str]) -> None:
    missing = [name for name in PUBLISHED_COLUMNS if name not in head]
    odd = [name for name in head if name not in PUBLISHED_COLUMNS]
    if missing or odd or len(set(head)) < len(head):
        what = f"no column {', '.join(missing)}" if missing else f"unknown column {', '.join(odd)}"
        if not missing and not odd:
            what = "a column appears twice"
        raise UserError(f"{path}: {what}; its columns are {', '.join(PUBLISHED_COLUMNS)}")


def _row(path: Path, place: str, head: list[str], values: list[str]) -> Published:
    """Return one row, its accuracy as a share of 1."""
    if len(values) != len(head):
        raise UserError(
            f"{place}: {len(values)} values for {len(head)} columns; put texts with a comma into "
            "double quotes"
        )
    row = {name: one_line(value) for name, value in zip(head, values, strict=True)}
    if empty := [name for name in REQUIRED if not row[name]]:
        raise UserError(f"{place}: {empty[0]} must not be empty; fill it in")
    accuracy = _number(row["accuracy"])
    if not 0 <= accuracy <= 100:
        raise UserError(
            f"{place}: accuracy must be percent in [0, 100], got {row['accuracy']!r}; correct it"
        )
    epochs = row["epochs"]
    if epochs and not (epochs.isdecimal() and int(epochs)):
        raise UserError(f"{place}: epochs must be a whole number or empty, got {epochs!r}")
    texts = {name: row[name] for name in PUBLISHED_COLUMNS if name not in ("accuracy", "epochs")}
    return Published(
        source=one_line(path.stem),
        epochs=int(epochs) if epochs else None,
        accuracy=round(accuracy / 100, 9),
        **texts,
    )


def _number(text: str) -> float:
    """Return a number, NaN where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
