"""Write the results of a run into its folder: cells.csv, leaderboards and `run.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.drafts import clear_drafts, refuse_file_name
from ..common.errors import UserError
from ..common.json_file import RUN
from ..common.provenance import git_state, machine, mixed_versions, origins, versions
from ..common.text import write_text
from ..models import shown_arch
from ..report import conform_cells, write_leaderboards
from ..report.confusion import ConfusionMatrix
from ..report.records import origin_in_words, record_sha256
from ..store.store import Store
from .cell import SUPERVISED, Cell
from .config import Config
from .evidence import facts
from .failure import Failure
from .plan import table_titles
from .records import Records

MEASURED = (
    "test_acc",
    "test_acc_best",
    "best_epoch",
    "train_acc",
    "n_train",
    "n_test",
    "craft_seconds",
    "train_seconds",
    "peak_memory_mb",
    "device",
    "poison_sha256",
    "n_poisoned",
)
IF_ASKED = ("robust_acc", "robust_norm", "robust_radius", "dfr_acc", "weight_noise_acc")
"""Columns that are measured only if the protocol asks for them."""


class OutputError(UserError):
    """The output folder cannot be used; the message says why and what to do."""


def row(cell: Cell, record: Mapping[str, Any] | None, failure: Failure | None) -> dict[str, Any]:
    """Return a cell's row of cells.csv: `ok`, `failed` with the reason, or `skipped`."""
    status = "ok" if record is not None else "failed" if failure is not None else "skipped"
    names = cell.poison.dataset.class_names if cell.classes else ()
    return {
        "dataset": cell.poison.dataset.name,
        "arch": shown_arch(cell.arch),
        "protocol": cell.protocol.name,
        "attack": cell.poison.attack.info.name,
        "attack_options": cell.attack_options,
        "defense": cell.defense.info.name,
        "defense_options": cell.defense_options,
        "ratio": cell.ratio,
        "classes": ",".join(names[label] for label in cell.classes),
        "seed": cell.seed,
        "status": status,
        "precision": cell.precision,
        "key": cell.key,
        "error": failure.error if failure is not None else "",
        "poison_seed": cell.poison.seed,
        "epochs": cell.victim.epochs_of(cell.protocol),
        "recipe": cell.recipe_key,
        "attack_family": cell.poison.attack.info.family,
        "defense_family": cell.defense.info.family,
        "victim": "" if cell.victim == SUPERVISED else cell.victim_spec,
        **dict.fromkeys(MEASURED, None),
        **{"device": "", "poison_sha256": ""},
        **measured(record or {}),
        "record_sha256": record_sha256(record) if record is not None else "",
        "origin": origin_in_words((record or {}).get("reused") or {}),
        "protocol_epochs": cell.usual_epochs if cell.defense.times_epochs != 1 else None,
    }


def measured(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of cells.csv that come from a cell's record; none but these do."""
    versions_then = record.get("versions") or {}
    return {
        **{key: record.get(key) for key in MEASURED if record},
        **{key: record.get(key) for key in IF_ASKED},
        "suite_version": versions_then.get("uebench", ""),
        "torch_version": versions_then.get("torch", ""),
        "chance": ConfusionMatrix.read(record.get("confusion") or []).chance,
    }


def gather(
    cells: list[Cell], store: Store | Records, failures: Mapping[str, Failure] = {}
) -> pd.DataFrame:
    """Return the rows of cells.csv, from the store's records and from why other cells failed."""
    rows, records = [], Records.of(store)
    for cell in cells:
        rows.append(row(cell, records.cell(cell), failures.get(cell.key)))
    return conform_cells(pd.DataFrame(rows))


def version_warning(frame: pd.DataFrame) -> str | None:
    """Return a warning if the finished cells were computed by several versions, else None."""
    done = frame[frame["status"] == "ok"]
    return mixed_versions(zip(done["suite_version"], done["torch_version"], strict=True))


def check_folder(folder: Path) -> None:
    """Create the output folder, and check that a run may write into it.

    Raises:
        OutputError: it cannot be written, or it holds a cells.csv that no run wrote, which must not
            be overwritten.
    """
    refuse_file_name(folder)
    if folder.is_file():
        raise OutputError(f"--out {folder} is a file, not a folder; choose another name")
    try:
        clear_drafts(folder.resolve())  # before it is created: a kill may have left it to restore
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {folder} cannot be created: {error.strerror or error}; choose another folder"
        ) from None
    if not os.access(folder, os.W_OK):
        raise OutputError(f"--out {folder} cannot be written; choose another folder")
    if (folder / "cells.csv").exists() and not (folder / RUN).exists():
        raise OutputError(
            f"--out {folder} holds a cells.csv that no run wrote; choose another folder"
        )


def write_results(
    folder: Path,
    frame: pd.DataFrame,
    cells: list[Cell],
    config: Config,
    command: list[str],
    failures: Mapping[str, Failure],
    seconds: float,
    records: Records,
) -> None:
    """Write cells.csv, the leaderboards and run.json into a folder.

    Args:
        folder: an existing folder.
        frame: the rows of `gather`.
        cells: the planned cells, in the order of the rows.
        config: the configuration that was planned.
        command: the command line, as a list of arguments.
        failures: why cells failed, by key.
        seconds: duration of the run.
        records: the records of the cells and their poisons.
    """
    computed = [cell for cell in cells if cell.fault is None]
    by_key = {c.key: record for c in computed if (record := records.cell(c)) is not None}
    poisons, other_poisons = records.all_poisons(computed)
    reused = {
        key: {name: value for name, value in record["reused"].items() if name != "poison"}
        for key, record in by_key.items()
        if "reused" in record
    }
    failed = {
        cell.key: {
            "cell": cell.describe(),
            "error": failures[cell.key].error,
            "traceback": failures[cell.key].traceback,
        }
        for cell in cells
        if cell.key in failures
    }
    content = {
        "command": command,
        "config": config.model_dump(),
        "versions": versions(),
        "git": git_state(),
        "origins": origins(by_key),
        "machine": {**machine("cpu"), "cores": os.cpu_count()},
        "seconds": round(seconds, 1),
        "recipes": {cell.key: cell.recipe() for cell in cells},
        "poisons": poisons,
        **({"other_poisons": other_poisons} if other_poisons else {}),
        **({"reused": reused} if reused else {}),
        "failures": failed,
        **facts(cells),
    }
    write_text(folder / RUN, json.dumps(content, indent=1, default=str) + "\n")
    write_leaderboards(frame, folder, table_titles(cells))
