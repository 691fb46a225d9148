"""The records of a plan's cells and poisons, each read from the store and verified once."""

from __future__ import annotations

from typing import Any

from ..store.store import Store
from .cell import Cell, PoisonRef


class Records:
    """Reads records and remembers them from planning to the page.

    Only what was there is remembered, so that a record is found as soon as it has been computed.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[tuple[str, str], dict[str, Any]] = {}

    @staticmethod
    def of(source: Store | Records) -> Records:
        """Return the records of a store, or these records themselves."""
        return source if isinstance(source, Records) else Records(source)

    def cell(self, cell: Cell) -> dict[str, Any] | None:
        """Return a cell's record, or None where it was not computed or is spoiled."""
        return None if cell.fault is not None else self._record("cell", cell.key)

    def poison(self, ref: PoisonRef) -> dict[str, Any] | None:
        """Return a poison's record, or None; the poison's images are not read."""
        return self._record("poison", ref.key)

    def _record(self, kind: str, key: str) -> dict[str, Any] | None:
        if (kind, key) not in self._read:
            entry = self.store.read(kind, key, tensors=kind == "cell")
            if entry is None:
                return None
            self._read[kind, key] = entry[1]
        return self._read[kind, key]
