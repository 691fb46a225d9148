"""The records of a plan's cells and poisons, each read from the store and verified once."""

from __future__ import annotations

from typing import Any

from ..store.store import Store
from .cell import Cell, PoisonRef


class Records:
    """Reads records and remembers them, and which are missing, from planning to the page.

    After something has been computed, call `look_again`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[tuple[str, str], dict[str, Any] | None] = {}

    @staticmethod
    def of(source: Store | Records) -> Records:
        """Return the records of a store, or these records themselves."""
        return source if isinstance(source, Records) else Records(source)

    def look_again(self) -> None:
        """Ask the store once more for each record that was missing, when it is wanted next."""
        self._read = {key: record for key, record in self._read.items() if record is not None}

    def cell(self, cell: Cell) -> dict[str, Any] | None:
        """Return a cell's record, or None if it was not computed or is corrupted."""
        return None if cell.fault is not None else self._record("cell", cell.key)

    def poison(self, ref: PoisonRef) -> dict[str, Any] | None:
        """Return a poison's record, or None if it is clean data, was not crafted or is corrupted.

        Its images are not read.
        """
        return None if ref.is_clean else self._record("poison", ref.key)

    def _record(self, kind: str, key: str) -> dict[str, Any] | None:
        if (kind, key) not in self._read:
            # A cell's entry is verified as a whole, since its numbers end up in tables. Of a poison
            # only the record is: its images may take gigabytes, and are verified when they are used
            entry = self.store.read(kind, key, tensors=kind == "cell")
            self._read[kind, key] = None if entry is None else entry[1]
        return self._read[kind, key]
