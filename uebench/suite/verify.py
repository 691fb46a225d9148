"""Check all cells of a results folder against its files, and recompute a sample of them.

The check costs no training: keys, recipes, records and accuracies of a folder must agree. The
sample is computed again in a temporary store.

On a CPU of the type that computed a cell, its numbers must be identical bit for bit. Elsewhere they
must agree within a tolerance, since rounding differs between machines and training amplifies it.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..cells.cell import LATER_FIELDS, Cell, dataset_ref
from ..cells.config import Config, dataset_specs, make_config
from ..cells.plan import plan
from ..cells.results import row
from ..common.errors import UnknownNameError, UserError
from ..common.json_file import RUN, read_run_json
from ..common.provenance import same_machine_type
from ..data import load_dataset
from ..execute.choose import build_executor
from ..execute.devices import usable_devices
from ..learn.protocol import Protocol
from ..methods.imported import ImportedPoison
from ..methods.purified import PurifiedSet, copy_purified
from ..report import read_cells
from ..report.records import read_run
from ..share.agreement import PLACE, TOLERANCE, agreement, cell_name, shortened
from ..share.check_cells import absent_methods, flat, how_to_get
from ..share.validate import findings
from ..store.store import Store
from . import run as suite_run
from .matrix import Matrix

VerdictKind = Literal["same", "close", "differs", "lost", "contradicts"]


@dataclass(frozen=True)
class Verdict:
    """How a recomputed cell compares with the recorded one.

    The fields are also the keys of `uebench verify --json`.

    Attributes:
        cell: the cell in a few words.
        key: its key.
        recorded: test accuracy in the results, in [0, 1]; None for a contradiction.
        recomputed: test accuracy of the recomputed cell, or None.
        outcome: `same` if it is identical bit for bit, `close` if it is within the tolerance,
            `differs`, `lost` if it could not be recomputed, or `contradicts` if nothing had to be
            computed to see that files of the folder disagree.
        reason: what differs, or why it could not be recomputed.
    """

    cell: str
    key: str
    recorded: float | None
    recomputed: float | None
    outcome: VerdictKind
    reason: str


def contradictions(folder: Path) -> list[Verdict]:
    """Return where the files of a results folder disagree, over all of its cells.

    Raises:
        UserError: the folder holds no results.
    """
    of_cells = itertools.takewhile(lambda finding: finding.test != "displays", findings(folder))
    problems = [problem for finding in of_cells for problem in finding.problems]
    return [Verdict("", "", None, None, "contradicts", problem) for problem in problems]


def verify(
    folder: Path,
    *,
    sample: int = 3,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    device: str = "auto",
    jobs: int | None = None,
    data_dir: str | None = None,
    quiet: bool = True,
    reused_first: bool = False,
) -> list[Verdict]:
    """Recompute a sample of the cells of a results folder and return one verdict per cell.

    Args:
        folder: a folder that `uebench run --out` wrote.
        sample: number of finished cells, drawn at random; 0 means all.
        seed: seed of the random draw.
        tolerance: largest accepted difference of an accuracy on another type of machine.
        device: `auto` means the kind of device that the cells were computed on.
        jobs: number of cells that are computed at the same time.
        data_dir: directory of torchvision's data sets.
        quiet: whether to hide progress.
        reused_first: whether to draw cells that were taken from other folders before all others.

    Raises:
        UserError: the folder holds no results, or its data set cannot be found.
    """
    run_json = read_run_json(folder, ("config",))
    frame = read_cells(folder)
    done = frame[frame["status"] == "ok"]
    if done.empty:
        raise UserError(
            f"{folder} has no finished cell, so there is nothing to verify; finish its run first"
        )
    rows = sampled(done.to_dict("records"), sample, seed, reused_first)
    on_cpu = all(str(r["device"]) in ("cpu", "") for r in rows)
    devices = usable_devices("cpu" if device == "auto" and on_cpu else device)
    config = _config(run_json, folder)
    try:
        cells, datasets = _planned(config, rows, run_json, devices[0], data_dir)
    except UnknownNameError as error:
        raise UserError(how_to_get(absent_methods(read_run(folder))) or str(error)) from None
    keys = {r["key"] for r in rows}
    cells_by_key = {cell.key: cell for cell in cells if cell.key in keys}
    sampled_cells = list(cells_by_key.values())
    with tempfile.TemporaryDirectory(prefix="uebench-verify-") as directory:
        store = Store(directory)
        _copy_imported(sampled_cells, Store(), store)
        workers = jobs or build_executor("local").jobs(devices)
        matrix = Matrix(config, datasets, sampled_cells, store, devices, workers)
        outcome = suite_run.execute(matrix, quiet)
        verdicts = []
        for r in rows:
            cell = cells_by_key.get(r["key"])
            if cell is None:
                verdicts.append(_lost(r, _other_recipe(r, run_json, cells)))
            elif (record := matrix.records.cell(cell)) is None:
                failure = outcome.failures.get(cell.key)
                verdicts.append(_lost(r, failure.error if failure else "it was not computed"))
            else:
                verdicts.append(_judge(r, run_json, cell, record, tolerance))
        return verdicts


def sampled(
    rows: list[dict[Any, Any]], size: int, seed: int, reused_first: bool = False
) -> list[dict[Any, Any]]:
    """Return `size` rows drawn at random, or all of them if `size` is 0 or exceeds their number.

    With `reused_first`, rows with an origin are drawn before the others.
    """
    if not 0 < size < len(rows):
        return rows
    rng = random.Random(seed)
    if not reused_first:
        return rng.sample(rows, size)
    shuffled = rng.sample(rows, len(rows))
    return sorted(shuffled, key=lambda row: row["origin"] == "")[:size]


def _config(run_json: dict[str, Any], folder: Path) -> Config:
    try:
        return make_config({str(k): v for k, v in run_json["config"].items()})
    except ValueError as error:
        raise UserError(f"{folder / RUN}: {error}") from None


def _planned(
    config: Config,
    rows: list[dict[Any, Any]],
    run_json: Mapping[str, Any],
    device: str,
    data_dir: str | None,
) -> tuple[list[Cell], list[Any]]:
    """Return the cells of a configuration, and the data sets that the rows were computed on.

    The cells are planned in each precision that occurs in the rows. If the named protocol has
    changed since the results were computed, the protocol's recorded fields are used instead. A data
    set that occurs in no row is not decoded.
    """
    names = {str(r["dataset"]) for r in rows}
    datasets = []
    for spec in dataset_specs(config):
        dataset = load_dataset(spec, data_dir, outline=True)
        if dataset.train.images.is_meta and dataset.name in names:
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
            with contextlib.suppress(ValueError):  # a malformed record harms its own cell alone
                add(str(r["precision"]), **_recorded_protocol(run_json, r["key"]))
    return list(cells.values()), [d for d in datasets if d.name in names]


def _recorded_protocol(run_json: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return the fields of the protocol that a cell was trained under; empty if unknown."""
    protocol = _recorded_recipe(run_json, key).get("protocol")
    if not isinstance(protocol, dict):
        return {}
    fields = {name: value for name, value in protocol.items() if name in Protocol.model_fields}
    return LATER_FIELDS | fields  # recipes omit these at the values that change nothing


def _recorded_recipe(run_json: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return a cell's recipe from run.json; empty if it holds none."""
    recipes = run_json.get("recipes")
    recipe = recipes.get(key) if isinstance(recipes, dict) else None
    return recipe if isinstance(recipe, dict) else {}


def _copy_imported(cells: list[Cell], source: Store, target: Store) -> None:
    """Copy imported poisons and purified sets, which cannot be recomputed, into another store."""
    for cell in cells:
        for poison in (cell.poison, *cell.poison.parts):
            if isinstance(poison.attack, ImportedPoison):
                entry = source.read("poison", poison.key)
                if entry is not None:
                    target.write("poison", poison.key, entry[1], entry[0])
        if isinstance(cell.defense, PurifiedSet):
            copy_purified(cell.defense, source, target, cell.poison.key)


def _judge(
    recorded: Mapping[Any, Any],
    run_json: Mapping[str, Any],
    cell: Cell,
    record: Mapping[str, Any],
    tolerance: float,
) -> Verdict:
    """Compare a row of the results with the record of the recomputed cell."""
    key, accuracy = str(recorded["key"]), float(recorded["test_acc"])
    recomputed = row(cell, record, None)
    same_machine = same_machine_type(_origin(run_json, key), record["provenance"])
    outcome, text = agreement(recorded, recomputed, same_machine, tolerance)
    return Verdict(cell_name(recorded), key, accuracy, recomputed["test_acc"], outcome, text)


def _lost(recorded: Mapping[Any, Any], reason: str) -> Verdict:
    """Return the verdict on a row whose cell could not be recomputed."""
    accuracy = float(recorded["test_acc"])
    return Verdict(cell_name(recorded), str(recorded["key"]), accuracy, None, "lost", reason)


def _origin(run_json: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return where run.json says that a cell was computed; empty if it does not say."""
    groups = run_json.get("origins")
    for group in groups if isinstance(groups, list) else []:
        keys = group.get("cells") if isinstance(group, dict) else None
        if isinstance(keys, list) and key in keys:
            return dict(group)
    return {}


def _other_recipe(
    recorded: Mapping[Any, Any], run_json: Mapping[str, Any], cells: list[Cell]
) -> str:
    """Return why no planned cell has the recorded key: what differs between their recipes."""
    old = _recorded_recipe(run_json, recorded["key"])
    planned_rows = [(cell, row(cell, None, None)) for cell in cells]
    same_methods = [
        (sum(planned[name] == recorded[name] for name in PLACE), cell)
        for cell, planned in planned_rows
        if all(planned[name] == recorded[name] for name in ("attack", "defense", "victim"))
    ]
    _, alike = max(same_methods, key=lambda pair: pair[0], default=(0, None))
    if not old or alike is None:
        return "the configuration in run.json has no such cell"
    before, now = dict(flat(old)), dict(flat(alike.recipe()))
    names = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
    differences = ", ".join(
        f"{n} {shortened(before.get(n))} now {shortened(now.get(n))}" for n in names[:4]
    )
    return f"its recipe is different here: {differences}"
