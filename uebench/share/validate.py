"""Test whether results can be true: files, ranges, recipes, records and tables must agree.

Nothing is computed again: a number that passes is possible, which does not make it true.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import report
from ..cells.cell import Cell
from ..common.errors import UserError
from ..common.json_file import RUN, AbsentFileError, check_size, read_run_json
from ..common.text import counted, one_line
from ..report.groups import plain_rows
from ..report.records import CellRecord, RunFacts, read_records, read_run
from .agreement import ACCURACIES
from .check_cells import absent_methods, cells_of, check_cells, how_to_get
from .check_displays import check_displays
from .check_recipes import check_recipes, check_run
from .check_records import check_poisons, check_records
from .contents import CellValues, Contents, Unchecked, who
from .manifest import MANIFEST, check_manifest


@dataclass(frozen=True)
class Finding:
    """The result of one test of a folder.

    Attributes:
        test: its name.
        status: `passed`, `failed` or `skipped`.
        text: what was tested.
        problems: one sentence for each thing that is wrong.
        not_checked: what the test could not decide.
    """

    test: str
    status: Literal["passed", "failed", "skipped"]
    text: str
    problems: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()


class NotResultsError(UserError):
    """The folder holds no results."""


def validate(folder: Path) -> list[Finding]:
    """Return the findings on a results folder or a bundle.

    Raises:
        NotResultsError: the folder does not exist or has no cells.csv.
    """
    return list(findings(folder))


def findings(folder: Path) -> Iterator[Finding]:
    """Yield the findings on a results folder or a bundle, the fastest tests first.

    Raises:
        NotResultsError: the folder does not exist or has no cells.csv.
    """
    if not (folder / "cells.csv").is_file():
        raise NotResultsError(
            f"{folder} has no cells.csv; give a results folder or one that `uebench publish` wrote"
        )
    yield _files(folder)
    try:
        check_size(folder / "cells.csv")
        cells = report.read_cells(folder)
    except ValueError as error:
        yield Finding("schema", "failed", "cells.csv", (str(error),))
        return
    yield Finding("schema", "passed", counted(len(cells), "cell"))
    yield _finding("numbers", counted(len(cells), "cell"), _impossible(plain_rows(cells)))
    records: dict[str, CellRecord] = {}
    try:
        records = read_records(folder / "records.json")
    except ValueError as error:
        yield Finding("records", "failed", "records.json", (str(error),))
    try:
        raw = read_run_json(folder, ("recipes", "poisons"))
        contents = Contents(folder, cells, read_run(folder), raw, records)
    except AbsentFileError:
        yield Finding("recipes", "skipped", f"there is no {RUN}")
        yield from _without_recipes(Contents(folder, cells, RunFacts(), {}, records), None)
    except ValueError as error:
        yield Finding("recipes", "failed", RUN, (str(error),))
    else:
        yield from _with_recipes(contents)


def _with_recipes(contents: Contents) -> Iterator[Finding]:
    """Yield the findings on what run.json and other files say about the same thing."""
    run = contents.run
    yield _finding("recipes", f"{len(run.recipes)} recipes", check_recipes(contents))
    planned: list[Cell] | None = None
    known: list[Cell] = []
    try:
        known = planned = cells_of(run)
        remarks = check_cells(contents, planned)
    except UserError as error:
        absent = absent_methods(run)
        reason = how_to_get(absent) or f"{RUN}: {error}"
        remarks = iter([Unchecked(f"names, options and number of cells, as {reason}")])
        if absent:
            with contextlib.suppress(UserError):
                known = cells_of(run, without=absent)
    yield _finding("cells", f"{len(contents.rows)} rows against {RUN}", remarks)
    refs = [cell.poison for cell in known if not cell.poison.is_clean and not cell.fault]
    yield _finding("poisons", f"{len(run.poisons)} poisons", check_poisons(contents, refs))
    yield _finding("run", f"data sets, methods and failures in {RUN}", check_run(contents))
    yield from _without_recipes(contents, planned)


def _without_recipes(contents: Contents, planned: list[Cell] | None) -> Iterator[Finding]:
    """Yield the findings on records and displayed files, which older folders have as well."""
    if contents.records:
        yield _finding("records", counted(len(contents.records), "record"), check_records(contents))
    elif not (contents.folder / "records.json").is_file():
        yield Finding("records", "skipped", "there is no records.json")
    yield _leaderboard(contents)
    yield _finding("displays", "tables, page and README", check_displays(contents, planned))


def _finding(test: str, text: str, remarks: Iterable[str]) -> Finding:
    problems: list[str] = []
    unchecked: list[str] = []
    try:
        for remark in remarks:
            (unchecked if isinstance(remark, Unchecked) else problems).append(remark)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as e:
        # Any value in a stranger's JSON may be of any type; no test should have to expect that.
        problems.append(f"a value is not of the kind that a run writes ({one_line(str(e))[:100]})")
    status: Literal["passed", "failed"] = "failed" if problems else "passed"
    return Finding(test, status, text, tuple(problems), tuple(map(str, unchecked)))


def _files(folder: Path) -> Finding:
    if not (folder / MANIFEST).is_file():
        return Finding("files", "skipped", f"there is no {MANIFEST}: the folder was not published")
    try:
        return _finding("files", MANIFEST, check_manifest(folder))
    except (OSError, UnicodeDecodeError) as error:
        return Finding("files", "failed", MANIFEST, (f"{MANIFEST} cannot be read: {error}",))


def _impossible(rows: list[CellValues]) -> list[str]:
    """Return the accuracies that no model can have, and the counts that contradict each other."""
    problems = []
    for row in (row for row in rows if row["status"] == "ok"):
        cell = who(row)
        judged = [name for name in ACCURACIES if name != "train_acc"]
        counts = dict.fromkeys(judged, row["n_test"])
        for name, count in (counts | {"train_acc": row["n_train"]}).items():
            if row[name] is not None and count and not _is_share(row[name], count):
                problems.append(
                    f"{cell}: {name} {row[name]} is not a multiple of 1/{count}, one image"
                )
        best, last = row["test_acc_best"], row["test_acc"]
        if best is not None and best < last - 1e-6:
            problems.append(
                f"{cell}: the best epoch's accuracy {best} is below the last epoch's {last}"
            )
        if row["best_epoch"] and row["epochs"] and row["best_epoch"] > row["epochs"]:
            problems.append(
                f"{cell}: the best epoch is {row['best_epoch']}, but there are only {row['epochs']}"
            )
        if not row["key"]:
            problems.append(f"{cell}: the cell has no key")
    sizes: dict[str, set[int]] = {}
    for row in rows:
        if row["n_test"]:
            sizes.setdefault(row["dataset"], set()).add(row["n_test"])
    problems += [
        f"{name} has test sets of {', '.join(map(str, sorted(counts)))} images"
        for name, counts in sizes.items()
        if len(counts) > 1
    ]
    return problems


def _is_share(accuracy: float, n: int) -> bool:
    """Return whether an accuracy is a whole number of n images, up to the rounding of float32."""
    hits = accuracy * n
    return math.isclose(hits, round(hits), abs_tol=max(1e-6, 2e-7 * n))


def _leaderboard(contents: Contents) -> Finding:
    path = contents.folder / "leaderboard.csv"
    if not path.is_file():
        return Finding("leaderboard", "skipped", "there is no leaderboard.csv")

    def differing_lines() -> Iterator[str]:
        lines = path.read_text(encoding="utf-8").splitlines()
        expected_lines = report.to_csv(report.leaderboards(contents.cells)).splitlines()
        for number, (mine, theirs) in enumerate(zip(lines, expected_lines, strict=False), 1):
            if mine != theirs:
                line = f"leaderboard.csv, line {number}"
                yield f"{line} differs from what cells.csv gives: {mine[:120]!r}"
        if len(lines) != len(expected_lines):
            yield "leaderboard.csv has more or fewer lines than cells.csv gives"

    return _finding("leaderboard", "leaderboard.csv against cells.csv", differing_lines())
