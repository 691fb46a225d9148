"""What a run writes on request: the weights of target models, and curves for TensorBoard."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import save_file

from ..cells.cell import Cell
from ..cells.records import Records
from ..common.drafts import replaced_file
from ..common.errors import UserError
from ..common.text import write_text
from ..report.canvas import slug
from ..store.store import Store

LOGS = ("tensorboard",)
"""What curves can be written for."""


def check_log(log: str | None) -> None:
    """Check that curves can be written, before anything is computed.

    Raises:
        UserError: there is no such log, or its package is not installed.
    """
    if log is None:
        return
    if log not in LOGS:
        raise UserError(f"log must be {' or '.join(LOGS)}, got {log!r}")
    if find_spec("tensorboard") is None:
        raise UserError(
            "--log tensorboard needs the package tensorboard, which is not installed; run "
            "pip install 'uebench[tensorboard]'"
        )


def write_models(folder: Path, cells: list[Cell], store: Store) -> None:
    """Write each stored model as KEY.safetensors, and its record as KEY.json.

    The record holds the recipe, the accuracies of this very model, the versions and the machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        entry = store.read("model", cell.key)
        if entry is not None:
            tensors, record = entry
            record = {
                "attack": cell.attack_spec,
                "defense": cell.defense_spec,
                "arch": cell.arch,
                "image_shape": cell.poison.dataset.shape,
                "n_classes": cell.poison.dataset.n_classes,
                **record,
            }
            write_text(folder / f"{cell.key}.json", json.dumps(record, indent=1) + "\n")
            with replaced_file(folder / f"{cell.key}.safetensors") as draft:
                save_file(tensors, draft)


def write_tensorboard(folder: Path, cells: list[Cell], records: Records) -> None:
    """Write the curves of all finished cells as event files, one folder for each cell.

    A cell's folder is written again as a whole, so that a repeated run adds nothing twice.
    """
    from torch.utils.tensorboard import SummaryWriter

    for cell in cells:
        record = records.cell(cell)
        if record is None:
            continue
        target = folder / f"{slug(cell.describe())}-{cell.key[:8]}"
        shutil.rmtree(target, ignore_errors=True)
        with SummaryWriter(str(target)) as writer:
            for row in record["curve"]:
                for name, value in row.items():
                    if name != "epoch" and value is not None:
                        writer.add_scalar(name, value, int(row["epoch"]))
