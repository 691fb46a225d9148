"""Cells grouped by the settings under which they were trained: one group per table."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeAlias

import pandas as pd

from ..common.errors import UserError
from .cells import SUPERVISED_VICTIM, conform_cells

CellRow: TypeAlias = dict[str, Any]
"""A row of cells.csv by column, with None for a missing number."""


@dataclass(frozen=True)
class Settings:
    """What the cells of one table have in common. None means unknown."""

    dataset: str
    arch: str
    protocol: str
    ratio: float
    classes: str
    precision: str | None
    epochs: int | None
    """Those of the protocol: the models of a defense with `times_epochs` are trained for others."""
    n_train: int | None
    n_test: int | None
    victim: str = SUPERVISED_VICTIM

    @classmethod
    def of(cls, record: CellRow) -> "Settings":
        """Return the settings of one cell."""
        values = {name: record[name] for name in cls.__match_args__}
        usual = record["protocol_epochs"]
        known: dict[str, Any] = {
            "precision": record["precision"] or None,
            "victim": record["victim"] or SUPERVISED_VICTIM,
            "epochs": record["epochs"] if usual is None else usual,
        }
        return cls(**values | known)

    def fits(self, other: "Settings") -> bool:
        """Return whether `other` has the same values in all fields that are known here."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return all(mine is None or mine == theirs for mine, theirs in pairs)


@dataclass(frozen=True)
class MethodSpec:
    """An attack or a defense with its options, as cells.csv names them."""

    name: str
    options: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether this is the attack `none`, which leaves the images as they are."""
        return self.name == "none"

    def columns(self, kind: str) -> dict[str, str]:
        """Return the columns that name this attack or defense in tables for scripts."""
        return {kind: self.name, f"{kind}_options": self.options}

    def __str__(self) -> str:
        return f"{self.name}[{self.options}]" if self.options else self.name


def plain_rows(cells: pd.DataFrame) -> list[CellRow]:
    """Return the rows of cells.csv as dictionaries, with None for what is missing."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in cells.to_dict("records")
    ]


def the_attack(record: CellRow) -> MethodSpec:
    """Return the attack of a cell with its options, by which tables group the rows."""
    return MethodSpec(record["attack"], record["attack_options"])


def the_defense(record: CellRow) -> MethodSpec:
    """Return the defense of a cell with its options, by which tables group the columns."""
    return MethodSpec(record["defense"], record["defense_options"])


def by_pair(runs: Iterable[CellRow]) -> dict[tuple[MethodSpec, MethodSpec], list[CellRow]]:
    """Return the runs by attack and defense, both in the order of the runs."""
    pairs: dict[tuple[MethodSpec, MethodSpec], list[CellRow]] = {}
    for run in runs:
        pairs.setdefault((the_attack(run), the_defense(run)), []).append(run)
    return pairs


def grouped(cells: pd.DataFrame) -> dict[Settings, list[CellRow]]:
    """Return the runs of each table, tables and runs in the order of `cells`, each run once.

    Raises:
        ValueError: A cell is not accepted, or two different recipes claim to be the same run.
    """
    records = plain_rows(conform_cells(cells))
    measured = dict.fromkeys(Settings.of(r) for r in records if r["status"] == "ok")
    groups: dict[Settings, list[CellRow]] = {}
    for record in records:
        groups.setdefault(_home(record, list(measured)), []).append(record)
    return _lend_clean({s: _each_run_once(group) for s, group in groups.items()})


def _home(record: CellRow, measured: Sequence[Settings]) -> Settings:
    """Return the settings a cell belongs to.

    A cell that never trained may not know how many images it would have had: it joins the
    measured group that it fits, if there is exactly one.
    """
    settings = Settings.of(record)
    if record["status"] == "ok" or settings in measured:
        return settings
    fitting = [known for known in measured if settings.fits(known)]
    return fitting[0] if len(fitting) == 1 else settings


def _each_run_once(records: Sequence[CellRow]) -> list[CellRow]:
    """Return one record per run: the first finished one of those that share a key."""
    runs: dict[tuple[object, ...], list[CellRow]] = {}
    for record in records:
        seeds = record["seed"], record["poison_seed"]
        runs.setdefault((the_attack(record), the_defense(record), *seeds), []).append(record)
    for same in runs.values():
        keys = {record["key"] for record in same}
        if len(same) > 1 and (len(keys) > 1 or "" in keys):
            first = same[0]
            raise UserError(
                f"{len(same)} cells claim to be {the_attack(first)} under {the_defense(first)}, "
                f"seed {first['seed']}, poison seed {first['poison_seed']}, but their keys differ "
                f"or are empty ({', '.join(sorted(repr(k) for k in keys))}): they may come from "
                "different versions of a method; keep one of them, or run the cells again"
            )
    return [next((r for r in same if r["status"] == "ok"), same[0]) for same in runs.values()]


def _lend_clean(groups: dict[Settings, list[CellRow]]) -> dict[Settings, list[CellRow]]:
    """Return the groups, each with the clean cells of those that differ only in ratio and classes.

    A group with nothing but clean cells that others have borrowed is left out.
    """
    lent: set[int] = set()
    result = {}
    for settings, records in groups.items():
        poisoned = {the_defense(r) for r in records if not the_attack(r).is_clean}
        lacking = poisoned - {the_defense(r) for r in records if the_attack(r).is_clean}
        borrowed: list[CellRow] = []
        for other, theirs in groups.items():
            if other != replace(settings, ratio=other.ratio, classes=other.classes):
                continue
            here = [r for r in theirs if the_attack(r).is_clean and the_defense(r) in lacking]
            lacking -= {the_defense(r) for r in here}
            borrowed += here
        lent |= {id(record) for record in borrowed}
        result[settings] = records + borrowed
    return {s: rs for s, rs in result.items() if not all(id(record) in lent for record in rs)}
