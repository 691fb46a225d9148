"""Write what the report needs besides the numbers: `records.json` and pictures of the poisons.

With them, a report can be made from a results folder alone, without the store and on any machine.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..data.pictures import strip, write_strip
from ..data.poison import Poison
from ..methods.base import MethodInfo
from ..report.folder import PICTURES_FOLDER, Picture, picture_name
from ..report.records import write_records
from ..store.store import Store
from .cell import Cell, PoisonRef
from .records import Records

log = logging.getLogger(__name__)


def keep_evidence(
    folder: Path,
    cells: Sequence[Cell],
    datasets: Sequence[Dataset],
    records: Records,
    earlier: Path,
    reused: Sequence[Mapping[str, Picture]] = (),
) -> None:
    """Write `records.json` and `pictures/` from the store's records of these cells.

    Pictures that the folder of an earlier run has are taken from there: names hold the key. Those
    of poisons that the store lacks are taken from the folders whose cells are reused.
    """
    by_key = {cell.key: records.cell(cell) for cell in cells}
    write_records(folder / "records.json", {key: r for key, r in by_key.items() if r is not None})
    by_fingerprint = {dataset.fingerprint: dataset for dataset in datasets}
    poisons = {cell.poison.key: cell.poison for cell in cells if not cell.poison.is_clean}
    for ref in poisons.values():
        path = Path(PICTURES_FOLDER, picture_name(ref.attack.info.name, ref.key))
        dataset = by_fingerprint.get(ref.dataset.fingerprint)
        if (earlier / path).is_file():
            (folder / PICTURES_FOLDER).mkdir(exist_ok=True)
            shutil.copy2(earlier / path, folder / path)
        elif dataset is not None and records.poison(ref) is not None:
            _draw(ref, dataset, folder / path, records.store)
        elif theirs := next((each[ref.key[:8]] for each in reused if ref.key[:8] in each), None):
            (folder / PICTURES_FOLDER).mkdir(exist_ok=True)
            (folder / path).write_bytes(theirs.png)


def facts(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the description of data sets and methods in `run.json`.

    With it, a report needs neither the data sets nor the plug-ins.
    """
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
            method.info.name: _described(method.info) for cell in cells for method in cell.methods
        },
    }


def _described(info: MethodInfo) -> dict[str, str]:
    """Return a method's title and source and, if it is not the suite's, where it came from."""
    origin = f"{info.origin} of {info.package}" if info.package else info.origin
    elsewhere = {} if origin in ("built-in", "imported") else {"origin": origin}
    return {"title": info.title, "source": info.source, **elsewhere}


def _draw(ref: PoisonRef, dataset: Dataset, path: Path, store: Store) -> None:
    """Draw a poison from the store, or warn that its images are missing or corrupted."""
    entry = store.read("poison", ref.key)
    if entry is None:
        log.warning(
            "%s is not drawn, because its poison is missing from the store or corrupted; run the "
            "same command again to compute it",
            path.stem,
        )
        return
    tensors, record = entry
    poison = Poison(tensors["images"], tensors["labels"], tensors["index"], record)
    write_strip(strip(poison, dataset), path)
