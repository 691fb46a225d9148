"""What a run leaves for the report beside its numbers: `records.json`, and pictures of its poisons.

With them a results folder tells its whole story without the store, on another machine too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..data.pictures import strip, write_strip
from ..data.poison import Poison
from ..report.folder import PICTURES_FOLDER
from ..report.records import write_records
from ..store.store import Store
from .cell import Cell, PoisonRef
from .records import Records

log = logging.getLogger(__name__)


def keep_evidence(
    folder: Path, cells: Sequence[Cell], datasets: Sequence[Dataset], records: Records
) -> None:
    """Write `records.json` and `pictures/` of what the store has of these cells."""
    by_key = {cell.key: records.cell(cell) for cell in cells}
    write_records(folder / "records.json", {key: r for key, r in by_key.items() if r is not None})
    by_fingerprint = {dataset.fingerprint: dataset for dataset in datasets}
    poisons = {cell.poison.key: cell.poison for cell in cells if not cell.poison.is_clean}
    for ref in poisons.values():
        path = folder / PICTURES_FOLDER / picture_name(ref)
        dataset = by_fingerprint.get(ref.dataset.fingerprint)
        if dataset is not None and not path.exists() and records.poison(ref) is not None:
            _draw(ref, dataset, path, records.store)


def picture_name(ref: PoisonRef) -> str:
    """Return the name of a poison's picture: the attack's, and the first digits of its key."""
    attack = re.sub(r"[^A-Za-z0-9]+", "-", ref.attack.info.name).strip("-")
    return f"{attack}-{ref.key[:8]}.png"


def facts(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return what `run.json` tells of data sets and methods, so that no reader needs them here."""
    methods: list[Any] = [m for cell in cells for m in (cell.poison.attack, cell.defense)]
    refs = {cell.poison.dataset.name: cell.poison.dataset for cell in cells}
    return {
        "datasets": {
            name: {
                "class_names": list(ref.class_names),
                "fingerprint": ref.fingerprint,
                "shape": list(ref.shape),
            }
            for name, ref in refs.items()
        },
        "methods": {
            method.info.name: {"title": method.info.title, "source": method.info.source}
            for method in methods
        },
    }


def _draw(ref: PoisonRef, dataset: Dataset, path: Path, store: Store) -> None:
    """Draw a poison of the store; one that is spoiled has no picture, and says so."""
    found = store.read("poison", ref.key)
    if found is None:
        log.warning("no picture of %s: its poison is gone; run again to make it", path.stem)
        return
    tensors, record = found
    poison = Poison(tensors["images"], tensors["labels"], tensors["index"], record)
    write_strip(strip(poison, dataset), path)
