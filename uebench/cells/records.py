"""The records of a plan's cells and poisons, each read from the store and verified once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..store.store import Store
from .cell import Cell, PoisonRef


class Records:
    """Reads records and remembers them, and which are missing, from planning to the page.

    After something has been computed, call `look_again`.
    """

    def __init__(self, store: Store, reused: Mapping[str, Mapping[str, Any]] = {}) -> None:
        """Read from a store; cells whose records are in `reused`, by key, count as stored."""
        self.store = store
        self._read: dict[tuple[str, str], dict[str, Any] | None] = {
            ("cell", key): dict(record) for key, record in reused.items()
        }

    @staticmethod
    def of(source: Store | Records) -> Records:
        """Return the records of a store, or these records themselves."""
        return source if isinstance(source, Records) else Records(source)

    def look_again(self) -> None:
        """Forget which records were missing, so that the store is asked for them again."""
        self._read = {key: record for key, record in self._read.items() if record is not None}

    def cell(self, cell: Cell) -> dict[str, Any] | None:
        """Return a cell's record, or None if it was not computed or is corrupted."""
        return None if cell.fault is not None else self._record("cell", cell.key)

    def poison(self, ref: PoisonRef) -> dict[str, Any] | None:
        """Return a poison's record, or None if it is clean data, was not crafted or is corrupted.

        Its images are not read.
        """
        return None if ref.is_clean else self._record("poison", ref.key)

    def all_poisons(
        self, cells: Iterable[Cell]
    ) -> tuple[dict[str, Mapping[str, Any]], list[dict[str, Any]]]:
        """Return one record of each poison of some cells, by key, and all further ones as a list.

        The record of a reused cell contains that of its poison, which was crafted elsewhere and may
        have another hash than the poison in this store. If both exist, the first is the store's.
        """
        by_key: dict[str, dict[Any, Mapping[str, Any]]] = {}
        for cell in cells:
            own = self.poison(cell.poison)
            reused = ((self.cell(cell) or {}).get("reused") or {}).get("poison")
            for record in (own, None if cell.poison.is_clean else reused):
                if record is not None:
                    of_key = by_key.setdefault(cell.poison.key, {})
                    of_key.setdefault((record.get("sha256"), record.get("craft_seconds")), record)
        others = [
            {**record, "key": key}
            for key, records in by_key.items()
            for record in list(records.values())[1:]
        ]
        return {key: next(iter(records.values())) for key, records in by_key.items()}, others

    def _record(self, kind: str, key: str) -> dict[str, Any] | None:
        if (kind, key) not in self._read:
            # A cell's entry is verified as a whole, since its numbers end up in tables. Of a poison
            # only the record is: its images may take gigabytes, and are verified when they are used
            entry = self.store.read(kind, key, tensors=kind == "cell")
            self._read[kind, key] = None if entry is None else entry[1]
        return self._read[kind, key]
