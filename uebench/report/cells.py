"""cells.csv, one row per trained target model: its columns, its reader, writer and checks.

This is the only place that knows the columns. The first 25 are a contract with other people's
scripts; those from `poison_seed` on were appended later, and an older file may lack them.
Accuracies lie in [0, 1]. An empty number is a missing one; an empty text is just an empty text.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..common.errors import UserError
from ..common.text import plain_text, write_text

STATUSES = ("ok", "failed", "skipped")
SUPERVISED_VICTIM = "supervised"
"""Who trained the target models of cells that name no victim."""
LONGEST_TEXT = 100_000
"""The most characters of a text, such as a traceback; Python's csv module reads up to 131,072."""


@dataclass(frozen=True)
class Column:
    """What a column of cells.csv may hold."""

    kind: Literal["text", "integer", "number"]
    low: float = -math.inf
    high: float = math.inf
    may_be_empty: bool = True
    hint: str = ""
    """What to do about a value outside [low, high]."""

    @property
    def dtype(self) -> str:
        """The pandas dtype; `Int64` because a failed cell has no count."""
        return {"text": "str", "integer": "Int64", "number": "float64"}[self.kind]


NAME = Column("text", may_be_empty=False)
TEXT = Column("text")
_ACCURACY = Column("number", 0, 1, hint="; divide percent by 100")
_AMOUNT = Column("number", 0)
_COUNT = Column("integer", 0)

COLUMNS: dict[str, Column] = {
    "dataset": NAME,
    "arch": NAME,
    "protocol": NAME,
    "attack": NAME,
    "attack_options": TEXT,
    "defense": NAME,
    "defense_options": TEXT,
    "ratio": Column("number", 0, 1, may_be_empty=False, hint="; it is the poisoned share"),
    "classes": TEXT,
    "seed": Column("integer", may_be_empty=False),
    "status": NAME,
    "test_acc": _ACCURACY,
    "test_acc_best": _ACCURACY,
    "best_epoch": _COUNT,
    "train_acc": _ACCURACY,
    "n_train": _COUNT,
    "n_test": _COUNT,
    "craft_seconds": _AMOUNT,
    "train_seconds": _AMOUNT,
    "peak_memory_mb": _AMOUNT,
    "device": TEXT,
    "precision": TEXT,
    "key": TEXT,
    "poison_sha256": TEXT,
    "error": TEXT,
    "poison_seed": Column("integer"),
    "epochs": _COUNT,
    "robust_acc": _ACCURACY,
    "robust_norm": TEXT,
    "robust_radius": _AMOUNT,
    "suite_version": TEXT,
    "torch_version": TEXT,
    "recipe": TEXT,
    "n_poisoned": _COUNT,
    "chance": _ACCURACY,
    "record_sha256": TEXT,
    "origin": TEXT,
    "victim": TEXT,
    "dfr_acc": _ACCURACY,
    "weight_noise_acc": _ACCURACY,
    "attack_family": TEXT,
    "defense_family": TEXT,
    "protocol_epochs": _COUNT,
}
"""Every column in its order."""

APPENDED = tuple(COLUMNS)[25:]
"""Columns outside the contract: they are left empty if a file lacks them."""


class NoCellsError(UserError, FileNotFoundError):
    """There is no cells.csv where one was asked for."""


def write_cells(frame: pd.DataFrame, path: Path | str) -> None:
    """Write cells to `path`, whole or not at all; reading them back gives the same numbers.

    Raises:
        ValueError: A column is missing or a value is not accepted; nothing was written.
    """
    write_text(Path(path), conform_cells(frame).to_csv(index=False, lineterminator="\n"))


def read_cells(path: Path | str) -> pd.DataFrame:
    """Return the checked cells of a file, or of the `cells.csv` in a folder.

    Raises:
        NoCellsError: There is no such file.
        ValueError: The file is not such a table, or a value in it is not accepted.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "cells.csv"
    if not path.exists():
        raise NoCellsError(f"no cells at {path}; give a cells.csv, or the folder that contains it")
    header, rows, lines = read_rows(path)
    frame = pd.DataFrame(rows, columns=pd.Index(header), dtype="str")
    return _conform(frame, [f"{path}, line {line}" for line in lines], str(path))


def conform_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Return cells with the columns in order and of the right dtypes; others follow as text.

    Terminal commands and control codes (but newlines and tabs) are taken out of the texts.

    Raises:
        ValueError: A column is missing or a value is not accepted.
    """
    return _conform(frame, [f"row {i}" for i in range(len(frame))], "these cells")


def _conform(frame: pd.DataFrame, places: Sequence[str], whole: str) -> pd.DataFrame:
    names = [str(name) for name in frame.columns]
    missing = [n for n in COLUMNS if n not in names and n not in APPENDED]
    if missing:
        raise UserError(
            f"{whole}: no column {', '.join(missing)}; a cells.csv is separated by commas and "
            f"its first line names the columns {', '.join(COLUMNS)}"
        )
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise UserError(f"{whole}: column {', '.join(twice)} appears twice; remove one of them")
    columns = {}
    for name in [*COLUMNS, *(n for n in names if n not in COLUMNS)]:
        column = COLUMNS.get(name, TEXT)
        values: Iterable[Any] = frame[name].tolist() if name in names else [None] * len(frame)
        checked = [checked_value(name, column, v, p) for v, p in zip(values, places, strict=True)]
        columns[name] = pd.Series(checked, dtype=column.dtype)
    result = pd.DataFrame(columns)
    _check_status(result, places)
    return result


def _check_status(frame: pd.DataFrame, places: Sequence[str]) -> None:
    pairs = zip(frame["status"].tolist(), frame["test_acc"].tolist(), places, strict=True)
    for status, accuracy, place in pairs:
        if status not in STATUSES:
            raise UserError(
                f"status must be one of {', '.join(STATUSES)}, got {status!r} ({place}); "
                "mark a cell without a result as failed or skipped"
            )
        if status == "ok" and math.isnan(accuracy):
            raise UserError(
                f"test_acc must lie in [0, 1] where status is ok, but it is empty ({place}); "
                "fill it in, or set status to failed"
            )


def checked_value(name: str, column: Column, value: Any, place: str) -> str | int | float | None:
    """Return one value as its column holds it, None where it is missing.

    Raises:
        UserError: The column does not accept the value, which stands at `place`.
    """
    empty = pd.isna(value) or value == ""
    if empty and not column.may_be_empty:
        raise UserError(f"{name} must not be empty ({place}); fill it in")
    if column.kind == "text":
        return "" if empty else _bounded(plain_text(str(value)))
    if empty:
        return None
    try:
        number = _integer(value) if column.kind == "integer" else _number(value)
    except (ValueError, OverflowError):
        a_number = "a whole number" if column.kind == "integer" else "a finite number"
        raise UserError(f"{name} must be {a_number}, got {value!r} ({place})") from None
    if not column.low <= number <= column.high:
        allowed = f"lie in [{column.low:g}, {column.high:g}]"
        if column.high == math.inf:
            allowed = f"be at least {column.low:g}"
        raise UserError(f"{name} must {allowed}, got {value!r} ({place}){column.hint}")
    return number


def _bounded(text: str) -> str:
    """Return `text`, its middle left out where csv readers would refuse its length."""
    half = LONGEST_TEXT // 2
    return text if len(text) <= LONGEST_TEXT else f"{text[:half]}\n[...]\n{text[-half:]}"


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or "_" in str(value):  # Python reads 1_0 as 10
        raise ValueError
    return number


def _integer(value: Any) -> int:
    """Return a 64-bit whole number.

    3.0 is one, because pandas turns a 3 in a column with a gap into it.
    """
    if isinstance(value, int) or str(value).removeprefix("-").isdecimal():
        number = int(value)  # not through a float, which holds 53 bits
    else:
        number = int(_number(value))
        if number != _number(value):
            raise ValueError
    if not -(2**63) <= number < 2**63:
        raise OverflowError
    return number


def read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header of a CSV, its rows, and the line on which each row starts.

    Raises:
        UserError: The file is not a CSV in UTF-8, or its rows differ in length.
    """
    rows, lines, before = [], [], 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:  # not an empty line
                    rows.append(row)
                    lines.append(before + 1)
                before = reader.line_num
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not a comma-separated table in UTF-8 (near line {before + 1}: {error}); "
            "save it as CSV, or write it again"
        ) from error
    if not rows:
        raise UserError(f"{path} is empty; its first line must name the columns")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            raise UserError(
                f"{path}, line {line}: {len(row)} values where the first line names "
                f"{len(rows[0])} columns; put texts that contain a comma in double quotes"
            )
    return rows[0], rows[1:], lines[1:]
