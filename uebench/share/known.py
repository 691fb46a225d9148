"""Read the records of other results folders, so that their cells need not be computed again.

A folder may be anybody's. It is used only if all its files agree with each other, as `uebench
validate` tests it; nothing in it is executed, and no name in it becomes a path.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cells.cell import Cell
from ..cells.records import Records
from ..cells.results import IF_ASKED, MEASURED
from ..cells.results import row as row_of
from ..common.errors import ConflictError, UserError
from ..common.json_file import RUN, read_object, read_run_json
from ..common.provenance import same_machine_type
from ..common.text import counted, escaped, one_line
from ..common.version import __version__
from ..report.cells import read_cells
from ..report.groups import CellRow
from ..report.records import read_records, read_run
from .agreement import TOLERANCE, agreement, cell_name
from .contents import Contents
from .manifest import MANIFEST
from .validate import NotResultsError, findings

RECORDS = "records.json"
_FILES = {"files": MANIFEST, "schema": "cells.csv", "numbers": "cells.csv", "records": RECORDS}
"""The file that a failed test of `validate` is about, where it is not run.json."""
_IN_FOLDERS = "[!.]*/cells.csv"
_SHOWN = ("leaderboard", "displays")
"""The tests of files that are only shown; a changed table changes no record."""


@dataclass(frozen=True, eq=False)
class KnownCell:
    """A finished cell of somebody's results folder.

    Attributes:
        row: its row of cells.csv.
        record: its record, as this machine's store keeps it; `reused` says where it came from.
    """

    row: CellRow
    record: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The folder that it came from."""
        return str(self.record["reused"]["folder"])


def results_folders(paths: Sequence[Path | str]) -> list[Path]:
    """Return the results folders at some paths, each once; a path may be a folder of such folders.

    Raises:
        NotResultsError: there is none at a path.
    """
    folders = []
    for path in map(Path, paths):
        path = path.parent if path.name == "cells.csv" and path.is_file() else path
        if (path / "cells.csv").is_file():
            at_path = [path]
        else:
            at_path = sorted(file.parent for file in path.glob(_IN_FOLDERS))
        if not at_path:
            raise NotResultsError(
                f"{escaped(path)} has no cells.csv, and no folder in it has one; give a folder "
                "that `uebench run --out` or `uebench publish` wrote, or a folder of such folders"
            )
        folders += at_path
    return list({folder.resolve(): folder for folder in folders}.values())


def is_folder_of_results(path: Path) -> bool:
    """Return whether a path is a folder of results folders, and not one itself."""
    return not (path / "cells.csv").exists() and any(path.glob(_IN_FOLDERS))


def checked_contents(folder: Path) -> Contents:
    """Return the contents of a results folder whose files agree with each other.

    Raises:
        UserError: the folder holds no records, a newer version wrote it, or its files contradict
            each other; the message names the file.
    """
    raw = read_run_json(folder, ("recipes", "poisons", "config", "datasets"))
    _check_version(folder, raw.get("versions"))
    if not (folder / RECORDS).is_file():
        raise UserError(
            f"{escaped(folder / RECORDS)} is missing, and cells are reused with their records; run "
            "the command of run.json again on the machine that has them in its store"
        )
    tests = itertools.takewhile(lambda finding: finding.test not in _SHOWN, findings(folder))
    for finding in (finding for finding in tests if finding.status == "failed"):
        file = folder / _FILES.get(finding.test, RUN)
        others = len(finding.problems) - 1
        raise UserError(
            f"{escaped(file)}: {one_line(finding.problems[0])}"
            + (f", and {others} more such problems" if others > 0 else "")
            + f"; nothing of the folder is used (`uebench validate {escaped(folder)}` lists all)"
        )
    cells, records = read_cells(folder), read_records(folder / RECORDS)
    return Contents(folder, cells, read_run(folder), raw, records)


def _check_version(folder: Path, versions: Any) -> None:
    """Refuse results of a newer version, whose recipes may mean something else.

    Raises:
        UserError: a newer version wrote them.
    """
    theirs = str(versions.get("uebench", "")) if isinstance(versions, dict) else ""
    ours, written_by = ([int(n) for n in re.findall(r"\d+", v)] for v in (__version__, theirs))
    if written_by > ours:
        raise UserError(
            f"{escaped(folder / RUN)} was written by uebench {one_line(theirs)[:40]}, which is "
            f"newer than this one ({__version__}); update uebench to use it"
        )


def known_cells(contents: Contents) -> Iterator[KnownCell]:
    """Yield the finished cells of a folder with their records."""
    entries = read_object(contents.folder / RECORDS)["records"]
    for row in contents.rows:
        key = str(row["key"])
        if row["status"] == "ok" and key in entries:
            recipe = contents.run.recipes[key]
            yield KnownCell(row, _as_stored(row, entries[key], recipe, origin(contents, row)))


def _as_stored(
    row: CellRow, entry: Mapping[str, Any], recipe: Mapping[str, Any], reused: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an entry of records.json as the store keeps a record; both have the same hash.

    The file holds curves by column and floats of six digits; cells.csv has all digits of some.
    """
    curve = entry.get("curve") or {}
    exact = {
        name: row[name]
        for name in (*MEASURED, *IF_ASKED)
        if isinstance(entry.get(name), float) and row[name] is not None
    }
    rows = [dict(zip(curve, values, strict=True)) for values in zip(*curve.values(), strict=True)]
    return {**entry, **exact, "curve": rows, "recipe": dict(recipe), "reused": dict(reused)}


def origin(contents: Contents, row: CellRow) -> dict[str, Any]:
    """Return where the record of a row comes from, with the measurements of its poison.

    A folder that took the record from elsewhere says so itself, so that chains can be followed.
    """
    key = str(row["key"])
    record = contents.records[key]
    provenance = dict(record).get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    git, machine = (
        v if isinstance(v := provenance.get(n), dict) else {} for n in ("git", "machine")
    )
    words = {
        "commit": git.get("commit"),
        "machine": machine.get("cpu") if machine.get("device") == "cpu" else machine.get("device"),
        "date": provenance.get("date"),
    }
    return {
        "folder": escaped(contents.folder),
        **{name: one_line(str(value or ""))[:100] for name, value in words.items()},
        "record_sha256": record.sha256,
        "poison": contents.poison_of(row),
    }


def agreeing_cells(folders: Sequence[Path]) -> dict[str, KnownCell]:
    """Return the finished cells of several folders by key; of one key, the first folder's.

    Raises:
        UserError: a folder cannot be used.
        ConflictError: records of one key disagree.
    """
    cells: dict[str, KnownCell] = {}
    conflicts = []
    for folder in folders:
        for known in known_cells(checked_contents(folder)):
            conflicts += disagreement(cells.setdefault(str(known.row["key"]), known), known)
    refuse(conflicts)
    return cells


def reusable(
    paths: Sequence[Path | str], cells: Sequence[Cell], records: Records
) -> dict[str, Mapping[str, Any]]:
    """Return the records of planned cells that folders have and the store lacks, by key.

    Raises:
        UserError: a path leads to no results, or a folder cannot be used.
        ConflictError: records of one key disagree, in the folders or in the store.
    """
    known = agreeing_cells(results_folders(paths)) if paths else {}
    wanted: dict[str, Mapping[str, Any]] = {}
    conflicts = []
    for cell in cells:
        theirs = known.get(cell.key)
        if theirs is None:
            continue
        if (own := records.cell(cell)) is None:
            wanted[cell.key] = theirs.record
        else:
            stored = {"reused": {"folder": f"the store {records.store.root}"}, **own}
            conflicts += disagreement(KnownCell(row_of(cell, own, None), stored), theirs)
    refuse(conflicts)
    return wanted


def disagreement(first: KnownCell, second: KnownCell) -> list[str]:
    """Return a sentence with both origins if two records of one cell disagree, else nothing."""
    if first is second:
        return []
    machines = [known.record.get("provenance") for known in (first, second)]
    one, two = (machine if isinstance(machine, dict) else {} for machine in machines)
    outcome, text = agreement(first.row, second.row, same_machine_type(one, two), TOLERANCE)
    if outcome != "differs":
        return []
    pair = f"{first.folder} and {second.folder}"
    return [f"{cell_name(first.row)} (key {str(first.row['key'])[:16]}): {pair} disagree, {text}"]


def refuse(conflicts: Sequence[str]) -> None:
    """Raise the conflicts, if there are any.

    Raises:
        ConflictError: there are some.
    """
    if conflicts:
        unique = list(dict.fromkeys(conflicts))
        head = counted(len(unique), "conflict")
        advice = (
            "leave out one folder of each, or run `uebench verify` on them to see which is right"
        )
        raise ConflictError("\n".join([f"{head}, nothing was written; {advice}:", *unique]))
