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
"""Columns of such a file; `beside`, `epochs`, options, `table` and `note` may be empty."""
REQUIRED = ("dataset", "arch", "attack", "defense", "accuracy")

N_TRAIN = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}
"""Training images of the data sets that papers train on."""


@dataclass(frozen=True)
class Published:
    """One number that somebody printed."""

    source: str
    table: str
    dataset: str
    arch: str
    attack: str
    attack_options: str
    defense: str
    defense_options: str
    beside: str
    """The attack whose clean column this is, where a table has one for each."""
    epochs: int | None
    accuracy: float
    """In [0, 1]."""
    note: str


def read_published(own: Path | None = None) -> list[Published]:
    """Return all published numbers that come with the suite, then those of a file of one's own.

    Raises:
        ValueError: a file cannot be read, lacks a column, or holds a value that makes no sense.
    """
    paths = sorted(_folder().glob("*.csv"))
    if not paths:
        raise UserError("the suite's published numbers are missing; install it again")
    rows = [row for path in paths for row in _rows(path)]
    return rows + (list(_rows(own)) if own is not None else [])


def _folder() -> Path:
    """Return where the suite's published numbers lie."""
    try:
        package = importlib.import_module("uebench.published")
    except ModuleNotFoundError:
        raise UserError(
            "the suite's published numbers are not installed; type `pip install -e .` again"
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
            what = "a column is there twice"
        raise UserError(f"{path}: {what}; its columns are {', '.join(PUBLISHED_COLUMNS)}")


def _row(path: Path, place: str, head: list[str], values: list[str]) -> Published:
    """Return one row, its accuracy as a share of 1."""
    if len(values) != len(head):
        raise UserError(
            f"{place}: {len(values)} values for {len(head)} columns; put a text with a comma in "
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
