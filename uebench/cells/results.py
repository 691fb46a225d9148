"""What a run leaves in its folder: rows of cells.csv, leaderboards, and `run.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.errors import UserError
from ..common.json_file import RUN
from ..common.provenance import git_state, machine, mixed_versions, origins, versions
from ..models import shown_arch
from ..report import conform_cells, write_leaderboards
from ..store.store import Store
from .cell import Cell
from .evidence import facts
from .failure import Failure
from .plan import Config, table_titles
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
)
IF_ASKED = ("robust_acc", "robust_norm", "robust_radius")
"""Measured where the protocol asks for it."""


class OutputError(UserError):
    """The output folder cannot be used: one sentence says why and what to do."""


def row(cell: Cell, record: Mapping[str, Any] | None, failure: Failure | None) -> dict[str, Any]:
    """Return a cell as a row of cells.csv: `ok`, `failed` with the reason, or `skipped`."""
    status = "ok" if record is not None else "failed" if failure is not None else "skipped"
    names = cell.poison.dataset.class_names if cell.classes else ()
    measured = {key: record.get(key) for key in MEASURED} if record is not None else {}
    told = (record or {}).get("versions") or {}
    measured |= {key: (record or {}).get(key) for key in IF_ASKED}
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
        "epochs": cell.protocol.epochs,
        "recipe": cell.recipe_key,
        **dict.fromkeys(MEASURED, None),
        **{"device": "", "poison_sha256": ""},
        "suite_version": told.get("uebench", ""),
        "torch_version": told.get("torch", ""),
        **measured,
    }


def gather(
    cells: list[Cell], store: Store | Records, failures: Mapping[str, Failure] = {}
) -> pd.DataFrame:
    """Return the checked rows of cells: what the store has, and why the others are missing."""
    rows, records = [], Records.of(store)
    for cell in cells:
        rows.append(row(cell, records.cell(cell), failures.get(cell.key)))
    return conform_cells(pd.DataFrame(rows))


def told_versions(frame: pd.DataFrame) -> str | None:
    """Return a sentence where the finished cells come from several versions."""
    done = frame[frame["status"] == "ok"]
    return mixed_versions(zip(done["suite_version"], done["torch_version"], strict=True))


def check_folder(folder: Path) -> None:
    """Make the output folder and see that it can be written and is ours to write.

    Raises:
        OutputError: it cannot be written, or holds a cells.csv that no run of ours made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {folder} cannot be made: {error.strerror or error}; choose another folder"
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
    poisons: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, Mapping[str, Any]] = {},
) -> None:
    """Write cells.csv, the leaderboards and run.json into a folder.

    `poisons` and `records` are what the store says of the poisons and of the cells, by key.
    """
    failed = {
        cell.key: {
            "cell": cell.describe(),
            "error": failures[cell.key].error,
            "traceback": failures[cell.key].traceback,
        }
        for cell in cells
        if cell.key in failures
    }
    told = {
        "command": command,
        "config": config.model_dump(),
        "versions": versions(),
        "git": git_state(),
        "origins": origins(records),
        "machine": {**machine("cpu"), "cores": os.cpu_count()},
        "seconds": round(seconds, 1),
        "recipes": {cell.key: cell.recipe() for cell in cells},
        "poisons": dict(poisons),
        "failures": failed,
        **facts(cells),
    }
    draft = folder / f".{RUN}.part"
    draft.write_text(json.dumps(told, indent=1, default=str) + "\n")
    draft.replace(folder / RUN)
    write_leaderboards(frame, folder, table_titles(cells))
