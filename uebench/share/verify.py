"""Recomputes a sample of a results folder's cells in a store of its own, and compares.

On a CPU of the machine type that made a cell its numbers must come out bit for bit; elsewhere they
must lie within a tolerance, since rounding differs and training amplifies it.
"""

from __future__ import annotations

import contextlib
import math
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..cells.cell import LATER_FIELDS, Cell, dataset_ref
from ..cells.failure import Failure
from ..cells.plan import Config, dataset_specs, make_config, plan
from ..cells.results import row
from ..common.errors import UserError
from ..common.json_file import RUN, read_run_json
from ..common.provenance import same_machine_type
from ..data import load_dataset
from ..execute.choose import build_executor
from ..execute.devices import usable_devices
from ..learn.protocol import Protocol
from ..methods.imported import ImportedPoison
from ..report import read_cells
from ..store.store import Store
from ..suite import run as frontend

ACCURACIES = ("test_acc", "test_acc_best", "train_acc", "robust_acc")
EXACT = (*ACCURACIES, "best_epoch", "n_train", "n_test", "poison_sha256")
"""Columns that must be equal on the same machine type; of other columns, such as times, none."""

Outcome = Literal["same", "close", "differs", "lost"]


@dataclass(frozen=True)
class Verdict:
    """What came of one cell.

    Attributes:
        cell: the cell in a few words.
        key: its key.
        recorded: test accuracy in the results, in [0, 1].
        recomputed: test accuracy now, or None.
        outcome: `same` bit for bit, `close` within the tolerance, `differs`, or `lost` where it
            could not be recomputed.
        told: what differs, or why it was lost.
    """

    cell: str
    key: str
    recorded: float
    recomputed: float | None
    outcome: Outcome
    told: str


def verify(
    folder: Path,
    *,
    sample: int = 3,
    seed: int = 0,
    tolerance: float = 0.05,
    device: str = "auto",
    jobs: int | None = None,
    data_dir: str | None = None,
    quiet: bool = True,
) -> list[Verdict]:
    """Return what came of a sample of a results folder's cells.

    Args:
        folder: what `uebench run --out` wrote.
        sample: number of finished cells, drawn at random; 0: all.
        seed: what draws them.
        tolerance: largest difference of an accuracy where the machine type is another one.
        device: `auto` takes what the cells were computed on.
        jobs: cells side by side.
        data_dir: where torchvision's data sets lie.
        quiet: show no progress.

    Raises:
        UserError: the folder holds no results, or its data set is not there.
    """
    told = read_run_json(folder, ("config",))
    frame = read_cells(folder)
    done = frame[frame["status"] == "ok"]
    if done.empty:
        raise UserError(f"{folder} has no finished cell; there is nothing to verify")
    rows = sampled(done.to_dict("records"), sample, seed)
    on_cpu = all(str(r["device"]) in ("cpu", "") for r in rows)
    devices = usable_devices("cpu" if device == "auto" and on_cpu else device)
    config = _config(told, folder)
    cells, datasets = _planned(config, rows, told, devices[0], data_dir)
    found = {cell.key: cell for cell in cells if cell.key in {r["key"] for r in rows}}
    with tempfile.TemporaryDirectory(prefix="uebench-verify-") as place:
        store = Store(place)
        _lend_imported(list(found.values()), Store(), store)
        workers = jobs or build_executor("local").jobs(devices)
        matrix = frontend.Matrix(config, datasets, list(found.values()), store, devices, workers)
        outcome = frontend.execute(matrix, quiet)
        return [
            _judge(r, told, found.get(r["key"]), cells, store, outcome.failures, tolerance)
            for r in rows
        ]


def sampled(rows: list[dict[Any, Any]], size: int, seed: int) -> list[dict[Any, Any]]:
    """Return so many rows drawn at random; all where the size is 0 or there are not so many."""
    return random.Random(seed).sample(rows, size) if 0 < size < len(rows) else rows


def _config(told: dict[str, Any], folder: Path) -> Config:
    """Return the configuration that a run was made with."""
    try:
        return make_config({str(k): v for k, v in told["config"].items()})
    except ValueError as error:
        raise UserError(f"{folder / RUN}: {error}") from None


def _planned(
    config: Config,
    rows: list[dict[Any, Any]],
    told: Mapping[str, Any],
    device: str,
    data_dir: str | None,
) -> tuple[list[Cell], list[Any]]:
    """Return the cells of a configuration in the precisions that the rows were computed in.

    A protocol is its fields: where what a name stands for has changed since, the recorded fields
    are taken. A data set that no row is about is not decoded.
    """
    wanted = {str(r["dataset"]) for r in rows}
    datasets = []
    for spec in dataset_specs(config):
        dataset = load_dataset(spec, data_dir, outline=True)
        if dataset.train.images.is_meta and dataset.name in wanted:
            dataset = load_dataset(spec, data_dir)
        datasets.append(dataset)
    refs = [(dataset, dataset_ref(dataset)) for dataset in datasets]
    cells: dict[str, Cell] = {}
    planned: list[dict[str, Any]] = []

    def add(precision: str, **fields: Any) -> None:
        options = {**config.protocol_options, **fields, "precision": precision}
        if options not in planned:
            planned.append(options)
            same = config.model_copy(update={"protocol_options": options})
            cells.update({cell.key: cell for cell in plan(same, refs, device)})

    for precision in sorted({str(r["precision"]) for r in rows}):
        add(precision)
    for r in rows:
        if r["key"] not in cells:
            with contextlib.suppress(ValueError):  # a strange record makes its own cell lost
                add(str(r["precision"]), **_recorded_protocol(told, r["key"]))
    return list(cells.values()), [d for d in datasets if d.name in wanted]


def _recorded_protocol(told: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return the fields of the protocol that a cell was trained under, where its recipe tells."""
    found = _recorded_recipe(told, key).get("protocol")
    if not isinstance(found, dict):
        return {}
    fields = {name: value for name, value in found.items() if name in Protocol.model_fields}
    return LATER_FIELDS | fields  # the recipe leaves these out where they change nothing


def _recorded_recipe(told: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return a cell's recipe as run.json has it; empty where it has none."""
    recipes = told.get("recipes")
    found = recipes.get(key) if isinstance(recipes, dict) else None
    return found if isinstance(found, dict) else {}


def _lend_imported(cells: list[Cell], mine: Store, fresh: Store) -> None:
    """Copy imported poisons, which nobody can recompute, into the fresh store."""
    for cell in cells:
        if isinstance(cell.poison.attack, ImportedPoison):
            entry = mine.read("poison", cell.poison.key)
            if entry is not None:
                fresh.write("poison", cell.poison.key, entry[1], entry[0])


def _judge(
    recorded: Mapping[Any, Any],
    told: Mapping[str, Any],
    cell: Cell | None,
    cells: list[Cell],
    store: Store,
    failures: Mapping[str, Failure],
    tolerance: float,
) -> Verdict:
    """Return the verdict on one row."""
    key, name = str(recorded["key"]), _name(recorded)
    accuracy = float(recorded["test_acc"])
    if cell is None:
        why = _other_recipe(recorded, told, cells)
        return Verdict(name, key, accuracy, None, "lost", why)
    found = store.read("cell", key)
    if found is None:
        failed = failures.get(key)
        why = failed.error if failed else "it was not computed"
        return Verdict(name, key, accuracy, None, "lost", why)
    again = row(cell, found[1], None)
    differing = [c for c in EXACT if not _equal(recorded[c], again[c])]
    if not differing:
        return Verdict(name, key, accuracy, again["test_acc"], "same", "")
    shown = ", ".join(f"{c} {_shown(recorded[c])} now {_shown(again[c])}" for c in differing)
    if same_machine_type(_origin(told, key), found[1]["provenance"]):
        return Verdict(name, key, accuracy, again["test_acc"], "differs", shown)
    far = [c for c in differing if c in ACCURACIES and _apart(recorded[c], again[c]) > tolerance]
    counts = [c for c in differing if c in ("n_train", "n_test")]
    outcome: Outcome = "differs" if far or counts else "close"
    return Verdict(name, key, accuracy, again["test_acc"], outcome, f"other machine: {shown}")


def _origin(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return where a cell was computed, as run.json says; nothing where it does not."""
    groups = told.get("origins")
    for group in groups if isinstance(groups, list) else []:
        keys = group.get("cells") if isinstance(group, dict) else None
        if isinstance(keys, list) and key in keys:
            return dict(group)
    return {}


def _other_recipe(recorded: Mapping[Any, Any], told: Mapping[str, Any], cells: list[Cell]) -> str:
    """Return why the plan has no cell of this key: what its recipe says and ours does not."""
    old = _recorded_recipe(told, recorded["key"])
    alike = next((c for c in cells if _name(row(c, None, None)) == _name(recorded)), None)
    if not old or alike is None:
        return "the configuration in run.json has no such cell"
    before, now = _flat(old), _flat(alike.recipe())
    names = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
    shown = ", ".join(f"{n} {_shown(before.get(n))} now {_shown(now.get(n))}" for n in names[:4])
    return f"its recipe is another one here: {shown}"


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a recipe's values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _name(r: Mapping[Any, Any]) -> str:
    """Return a row's cell in a few words; rows of one results folder have different ones."""
    attack = f"{r['attack']}[{r['attack_options']}]" if r["attack_options"] else str(r["attack"])
    defense = (
        f"{r['defense']}[{r['defense_options']}]" if r["defense_options"] else str(r["defense"])
    )
    seeds = f"seed {r['seed']}"
    if not pd.isna(r["poison_seed"]) and r["poison_seed"]:
        seeds += f", poison seed {r['poison_seed']}"
    share = "" if r["ratio"] == 1 else f", ratio {r['ratio']:g}"
    classes = f", classes {r['classes']}" if r["classes"] else ""
    return f"{attack} x {defense}, {r['dataset']}, {r['arch']}, {seeds}{share}{classes}"


def _equal(first: Any, second: Any) -> bool:
    """Return whether two values of a column are the same bits, or both missing."""
    none = [value is None or value == "" or bool(pd.isna(value)) for value in (first, second)]
    return all(none) if any(none) else bool(first == second)


def _apart(first: Any, second: Any) -> float:
    """Return the difference of two numbers; infinite where one is missing."""
    try:
        gap = abs(float(first) - float(second))
    except (TypeError, ValueError):
        return math.inf
    return math.inf if math.isnan(gap) else gap


def _shown(value: Any) -> str:
    """Return a value in few characters."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else text[:12] + "..."
