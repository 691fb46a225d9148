"""The contents of a results folder, as the tests of `uebench validate` need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.provenance import git_state
from ..common.version import __version__
from ..report.groups import plain_rows, the_attack
from ..report.records import CellRecord, RunFacts
from ..store.store import key_of

CellValues = dict[str, Any]


class Unchecked(str):
    """A sentence on something that a test could not decide, in contrast to a problem."""

    __slots__ = ()


Remarks = Iterator[str]
"""The sentences that a test yields: problems, and `Unchecked` for what it could not decide."""


@dataclass(frozen=True)
class Contents:
    """A results folder whose files could be read.

    Attributes:
        folder: its path.
        cells: the rows of cells.csv.
        run: the contents of run.json.
        raw: the same as plain JSON, with the entries that `run` leaves out.
        records: the entries of records.json by key; empty if the folder has none.
    """

    folder: Path
    cells: pd.DataFrame
    run: RunFacts
    raw: Mapping[str, Any]
    records: Mapping[str, CellRecord]

    @cached_property
    def rows(self) -> list[CellValues]:
        """The rows of cells.csv, with None for what is missing."""
        return plain_rows(self.cells)

    @cached_property
    def poisons(self) -> dict[str, list[dict[str, Any]]]:
        """The records of all poisons by key; a key has several if cells were taken elsewhere."""
        by_key = {key: [poison] for key, poison in self.run.poisons.items()}
        for poison in self.run.other_poisons:
            by_key.setdefault(str(poison.get("key")), []).append(poison)
        return by_key

    def poison_of(self, row: CellValues) -> dict[str, Any] | None:
        """Return the record of the poison that a cell was trained on; None if there is none.

        Of several with the cell's key, it is the one that its hash and its crafting time name.
        """
        key = key_or_none(self.run.recipes[str(row["key"])].get("poison"))
        seconds = as_recorded(row["craft_seconds"])

        def likeness(poison: dict[str, Any]) -> tuple[bool, bool]:
            same_time = as_recorded(poison.get("craft_seconds")) == seconds
            return poison.get("sha256") == row["poison_sha256"], same_time

        return max(self.poisons.get(key or "", []), key=likeness, default=None)

    @property
    def is_of_this_version(self) -> bool:
        """Whether this version of uebench wrote the folder, so that it must write the same again.

        Between versions, the wording of tables and the versions of methods may change.
        """
        versions, git = self.raw.get("versions"), self.raw.get("git")
        commit = git.get("commit") if isinstance(git, dict) else None
        return (
            isinstance(versions, dict)
            and versions.get("uebench") == __version__
            and commit == (git_state() or {}).get("commit")
        )


def key_or_none(recipe: Any) -> str | None:
    """Return the key of a recipe, or None if it is none."""
    try:
        return key_of(recipe)
    except (TypeError, ValueError, RecursionError):
        return None


def who(row: CellValues) -> str:
    """Return a short description of a cell."""
    return f"{the_attack(row)} under {row['defense']}, seed {row['seed']}"


def as_recorded(value: Any) -> Any:
    """Return a value as records.json holds it: floats with six significant digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def about(thing: str, remarks: Remarks) -> Remarks:
    """Yield remarks with the thing that they are about in front."""
    for remark in remarks:
        yield type(remark)(f"{thing}: {remark}")
