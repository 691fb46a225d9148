"""Accuracies that others published, as `results/published/*.csv` holds them, read and checked."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.text import one_line
from .cells import NAME, TEXT, Column, checked_value, read_rows

PUBLISHED_COLUMNS = (
    *("table", "dataset", "arch", "attack", "attack_options", "defense", "defense_options"),
    *("beside", "epochs", "accuracy", "note"),
)
"""The columns of such a file; `beside`, `epochs`, options, `table` and `note` may be empty."""
SECONDHAND = "secondhand"
"""A column that a file may have: who copied or noted a number that is not its source's own."""
_CHECKS = {
    **dict.fromkeys(("dataset", "arch", "attack", "defense"), NAME),
    "accuracy": Column("number", 0, 100, may_be_empty=False, hint="; give it in percent"),
    "epochs": Column("integer", 1),
}

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
    secondhand: str = ""
    """Who copied or noted the number, if it is not the source's own; empty if it is."""


def read_published(own: Path | None = None, secondhand: bool = False) -> list[Published]:
    """Return the published numbers that come with the suite, then those of the user's `own` file.

    Args:
        own: another file of the same form.
        secondhand: whether to include numbers that a source only copied, or that others noted
            about it. Their source is then called `NAME [S]`.

    Raises:
        UserError: A file cannot be read, lacks a column, or has a value that is not accepted.
    """
    paths = sorted(_folder().glob("*.csv"))
    if not paths:
        raise UserError("the published numbers of the suite are missing; install the suite again")
    rows = [row for path in paths for row in _rows(path)]
    rows += list(_rows(own)) if own is not None else []
    if not secondhand:
        return [row for row in rows if not row.secondhand]
    return [replace(row, source=f"{row.source} [S]") if row.secondhand else row for row in rows]


def _folder() -> Path:
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
        header, rows, lines = read_rows(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a CSV of published numbers") from None
    except OSError as error:
        raise UserError(f"{path} is not a readable CSV ({error})") from None
    missing = [name for name in PUBLISHED_COLUMNS if name not in header]
    unknown = [name for name in header if name not in (*PUBLISHED_COLUMNS, SECONDHAND)]
    if missing or unknown or len(set(header)) < len(header):
        what = f"no column {', '.join(missing)}" if missing else "a column appears twice"
        what = f"unknown column {', '.join(unknown)}" if unknown and not missing else what
        raise UserError(f"{path}: {what}; its columns are {', '.join(PUBLISHED_COLUMNS)}")
    for row, line in zip(rows, lines, strict=True):
        values: dict[str, Any] = {
            name: checked_value(
                name, _CHECKS.get(name, TEXT), one_line(text), f"{path}, line {line}"
            )
            for name, text in zip(header, row, strict=True)
        }
        values["accuracy"] = round(values["accuracy"] / 100, 9)
        yield Published(source=one_line(path.stem), **values)
