"""Run a matrix: `run` for Python, and its steps, which `uebench run` calls one by one."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd

from ..cells.cell import Cell, dataset_ref
from ..cells.config import Config, dataset_specs, make_config, merged_fields
from ..cells.evidence import keep_evidence
from ..cells.failure import Failure
from ..cells.paper_table import paper_grid, write_table
from ..cells.plan import plan, table_titles
from ..cells.records import Records
from ..cells.results import check_folder, gather, write_results
from ..common.drafts import replaced_folder
from ..common.errors import UserError
from ..data import load_dataset
from ..data.dataset import keep_dataset
from ..execute.base import Executor, ExecutorError, Orders
from ..execute.choose import build_executor
from ..execute.drive import run_tasks
from ..execute.local import InProcessPool
from ..execute.progress import ProgressDisplay, TimeLeft
from ..execute.tasks import Event, Listener, Task, pending
from ..learn.checkpoint import interval as checkpoint_interval
from ..methods.meanings import known_meanings
from ..methods.registry import load_file, plugin_files
from ..methods.source import exists_only_here
from ..report import read_results, write_page
from ..report.detection import write_detection
from ..report.display import ResultTable
from ..report.folder import is_result
from ..share.known import results_folders, reusable
from ..store.prune import tidy
from ..store.store import Store
from .detect_poisons import asked_detectors, check_all_detectable, detect_poisons
from .extras import check_log, write_models, write_tensorboard
from .matrix import Matrix, RunOutcome

log = logging.getLogger(__name__)


def run(
    attacks: Sequence[str] | str | None = None,
    defenses: Sequence[str] | str | None = None,
    dataset: str | Sequence[str] | None = None,
    *,
    out: Path | str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    executor: Executor | str = "local",
    time_limit: float | None = None,
    stop_after: float | None = None,
    time_limit_s: float | None = None,
    stop_after_s: float | None = None,
    deterministic: bool = False,
    keep_models: bool = False,
    log: str | None = None,
    detect: bool = False,
    detectors: str | Sequence[str] | None = None,
    data_dir: Path | str | None = None,
    download: bool = False,
    plugin: Sequence[Path | str] | Path | str = (),
    reuse: Sequence[Path | str] | Path | str = (),
    dry_run: bool = False,
    quiet: bool = False,
    **fields: Any,
) -> pd.DataFrame:
    """Compute a matrix of attacks and defenses, and return it as a table with one row per cell.

    Cells that are in the store are not computed again. Arguments have the names and the meaning of
    the flags of `uebench run`: without attacks, defenses, data set, network and protocol, the
    matrix is that of the configuration `quick`, and otherwise what is left out has its default in
    `uebench.cells.config.Config`.

    Args:
        attacks: specs such as `em` or `em[eps=16/255]`; by default none, EM, LSP and AR.
        defenses: specs such as `iss[quality=30]`; by default standard, UEraser, ISS and AT.
        dataset: one or more data sets, such as `cifar10` or `npz:FILE`; by default `synthetic`.
        out: a folder for cells.csv, leaderboards and run.json; by default nothing is written.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        jobs: number of cells that are computed at the same time; by default one per core or GPU.
        executor: `local`, `ray` or `slurm` with options, such as `ray[gpus=0.25]`.
        time_limit: time limit for one cell or one poison in minutes; a longer one fails.
        stop_after: time limit for the whole run in minutes. Cells are then computed in the order
            of the matrix, those that are not reached are `skipped`, and the same call continues.
        time_limit_s: `time_limit` in seconds; give one of the two.
        stop_after_s: `stop_after` in seconds; give one of the two.
        deterministic: whether GPUs use deterministic kernels only.
        keep_models: whether to write the weights of target models into `out`/models. Cells whose
            model is not in the store are trained again.
        log: `tensorboard` writes the curves of all cells into `out`/tensorboard.
        detect: whether to ask detectors about every poison; their answers are written into `out`.
        detectors: with `detect`, the detectors to ask; by default linear, edge_pixels and noise.
        data_dir: directory of torchvision's data sets.
        download: whether to download a missing data set.
        plugin: Python files to load methods from.
        reuse: results folders, published bundles or folders of them. A cell that one of them has is
            not computed: its record is copied into the store, and the column `origin` says where
            it came from.
        dry_run: whether to return the planned cells without computing or writing anything; those
            that are not in the store are `skipped`.
        quiet: whether to hide progress.
        **fields: any other field of `uebench.cells.config.Config`, such as `seeds=[0, 1, 2]`,
            `epochs=30`, or `times_epochs=1.5` for a multiple of the protocol's epochs.

    Returns:
        The columns of cells.csv as a DataFrame that shows itself as leaderboards. Accuracies lie in
        [0, 1]; `status` is ok, failed or skipped.

    Raises:
        UserError: a name is unknown or a value is bad; nothing has been computed yet.
        ConflictError: folders of `reuse` disagree on a cell; nothing has been computed yet.
        StoreError: a disk is full. Finished cells are kept, and the same call continues.
    """
    for file in [plugin] if isinstance(plugin, str | Path) else plugin:
        load_file(Path(file))
    given = {"attacks": attacks, "defenses": defenses, "dataset": dataset, **fields}
    given = {name: value for name, value in given.items() if value is not None}
    config = make_config(merged_fields(None, given))
    how: dict[str, Any] = {
        "executor": executor,
        "time_limit_s": _in_seconds("time_limit", time_limit, time_limit_s),
        "stop_after_s": _in_seconds("stop_after", stop_after, stop_after_s),
        "deterministic": deterministic,
        "keep_models": keep_models,
        "log": log,
        "outline": dry_run,
        "reuse": [reuse] if isinstance(reuse, str | Path) else reuse,
    }
    asked = asked_detectors(detect, detectors)
    if asked and out is None and not dry_run:
        raise UserError("detect writes its answers into the results; give their folder, out=FOLDER")
    if (keep_models or log) and out is None and not dry_run:
        name = "keep_models" if keep_models else "log"
        raise UserError(f"{name} writes into the folder of the results; give it, out=FOLDER")
    matrix = prepare(config, device, jobs, data_dir, download, **how)
    if asked:
        check_all_detectable(matrix)
    if dry_run:
        planned = gather(matrix.cells, matrix.records)
        return ResultTable.of(planned, table_titles(matrix.cells))
    if out is not None:
        check_folder(Path(out))
    outcome = execute(matrix, quiet)
    if asked:
        outcome = replace(outcome, detection=detect_poisons(matrix, outcome.failures, asked, quiet))
    if out is not None:
        save(matrix, outcome, Path(out), [])
    return ResultTable.of(outcome.cells, table_titles(matrix.cells))


def _in_seconds(name: str, minutes: float | None, seconds: float | None) -> float | None:
    """Return a limit that is given in minutes or in seconds, None if it is not given.

    Raises:
        UserError: it is given in both, or is no number.
    """
    if minutes is not None and seconds is not None:
        raise UserError(f"{name} is given in minutes and in seconds ({name}_s); give one of them")
    if minutes is None:
        return seconds
    if not isinstance(minutes, Real):
        raise UserError(f"{name} must be a number of minutes, got {minutes!r}")
    return 60 * minutes


def prepare(
    config: Config,
    device: str = "auto",
    jobs: int | None = None,
    data_dir: Path | str | None = None,
    download: bool = False,
    store: Store | None = None,
    *,
    executor: Executor | str = "local",
    time_limit_s: float | None = None,
    stop_after_s: float | None = None,
    deterministic: bool = False,
    keep_models: bool = False,
    log: str | None = None,
    outline: bool = False,
    reuse: Sequence[Path | str] = (),
) -> Matrix:
    """Load the data sets, plan the cells and return the matrix; nothing is computed or written.

    With `outline` no data set is decoded: the matrix can be inspected, but not executed.

    Raises:
        UserError: a name is unknown, a value is bad, a folder of `reuse` cannot be used, or the
            executor cannot be used.
        ConflictError: folders of `reuse` disagree on a cell, with each other or with the store.
    """
    chosen = build_executor(executor) if isinstance(executor, str) else executor
    chosen.check()
    devices = chosen.devices(device)
    check_log(log)
    checkpoint_interval()  # reports a bad value of its variable before anything is computed
    store = store or Store()
    _check_limits(jobs, time_limit_s, stop_after_s)
    jobs = jobs or chosen.jobs(devices)
    specs = dataset_specs(config)
    datasets = [load_dataset(spec, data_dir, download, outline=outline) for spec in specs]
    _check_names([dataset.name for dataset in datasets])
    refs = [(dataset, dataset_ref(dataset)) for dataset in datasets]
    cells = plan(config, refs, devices[0], store)
    if _of_this_session(cells):
        _check_session(chosen, (time_limit_s, stop_after_s, chosen.memory_gb))
    return Matrix(
        config,
        datasets,
        cells,
        store,
        devices,
        jobs,
        chosen,
        time_limit_s,
        stop_after_s,
        deterministic,
        keep_models,
        log,
        reusable(reuse, cells, Records(store)),
        tuple(results_folders(reuse)) if reuse else (),
    )


def reused_in_words(matrix: Matrix) -> str:
    """Return how many cells of a matrix are taken from which folders."""
    folders = Counter(str(record["reused"]["folder"]) for record in matrix.reused.values())
    each = ", ".join(f"{n} from {folder}" for folder, n in folders.items())
    return f"{len(matrix.reused)} of {len(matrix.cells)} cells are reused: {each}"


def _check_names(names: list[str]) -> None:
    """Refuse data sets that share a name, since no table could distinguish them.

    Raises:
        UserError: a name occurs twice.
    """
    if len(set(names)) < len(names):
        raise UserError(
            f"two data sets are called {max(names, key=names.count)}, so tables could not tell "
            "them apart; rename a file or folder, or run them separately"
        )


def _check_limits(jobs: int | None, time_limit_s: float | None, stop_after_s: float | None) -> None:
    """Refuse numbers that no run can keep to; None means no limit.

    Raises:
        UserError: a value is no number, or not positive.
    """
    if jobs is not None and (not isinstance(jobs, Integral) or jobs < 1):
        raise UserError(
            f"jobs must be a whole number of at least 1, got {jobs!r}; leave it out for one job "
            "per core or GPU"
        )
    for what, limit_s in (("time limit", time_limit_s), ("time to stop after", stop_after_s)):
        if limit_s is not None and not (isinstance(limit_s, Real) and limit_s > 0):
            raise UserError(
                f"the {what} must be a number above 0 s, got {limit_s!r}; leave it out for no limit"
            )


def execute(matrix: Matrix, quiet: bool = True, listen: Listener | None = None) -> RunOutcome:
    """Compute the cells that are missing from the store, and return all cells of the matrix.

    Args:
        matrix: what to compute.
        quiet: whether to hide progress.
        listen: called with each event, after it is displayed.

    Raises:
        StoreError: a disk is full; finished cells are kept.
        ExecutorError: the executor cannot be reached.
        KeyboardInterrupt: after the workers were stopped; finished cells are kept.
    """
    start = time.perf_counter()
    for key, record in matrix.reused.items():
        matrix.store.write("cell", key, record)
    limited = matrix.stop_after_s is not None
    stop_at = time.monotonic() + (matrix.stop_after_s or math.inf)
    tasks = pending(matrix.cells, matrix.records, limited, matrix.keep_models)
    if tasks:
        matrix.store.check_writable()
        tidy(matrix.store)
    for dataset in matrix.datasets if tasks else []:
        keep_dataset(matrix.store, dataset)
    with ProgressDisplay(len(tasks), quiet, TimeLeft(tasks, matrix.jobs)) as display:

        def show(event: Event) -> None:
            display(event)
            if listen is not None:
                listen(event)

        failures = _compute(matrix, tasks, show, stop_at) if tasks else {}
    matrix.records.look_again()
    failures |= {cell.key: cell.fault for cell in matrix.cells if cell.fault is not None}
    frame = gather(matrix.cells, matrix.records, failures)
    return RunOutcome(frame, failures, time.perf_counter() - start)


def _compute(
    matrix: Matrix, tasks: list[Task], listen: Listener, stop_at: float
) -> dict[str, Failure]:
    """Perform a matrix's tasks with its executor; return the failures by key."""
    orders = Orders(
        str(matrix.store.root.resolve()),
        matrix.devices[0],
        tuple(str(path) for path in plugin_files()),
        matrix.deterministic,
        matrix.executor.memory_gb,
    )
    if _of_this_session(matrix.cells):
        return run_tasks(tasks, InProcessPool(orders, listen), listen)
    pool = matrix.executor.open(orders, matrix.devices, matrix.jobs, matrix.time_limit_s)
    return run_tasks(tasks, pool, listen, matrix.time_limit_s, stop_at)


def _check_session(executor: Executor, limits: tuple[float | None, ...]) -> None:
    """Refuse what cannot be done with methods that exist only in this session.

    Raises:
        ExecutorError: the executor has workers of its own, or a limit is set.
    """
    if limits != (None, None, None):
        raise ExecutorError(
            "a method that was defined or changed in this session can only run in this process, "
            "where time and memory cannot be limited; put it into a file and load the file with "
            "--plugin"
        )
    if executor.name != "local":
        raise ExecutorError(
            "a method that was defined or changed in this session cannot reach the workers of "
            f"{executor.name}; put it into a file and load the file with --plugin, or use the "
            "executor local"
        )


def _of_this_session(cells: list[Cell]) -> bool:
    """Return whether a method was defined or changed in this session: no worker can load that."""
    methods = {type(m): m for cell in cells for m in cell.all_methods}
    return any(exists_only_here(method) for method in methods.values())


def save(matrix: Matrix, outcome: RunOutcome, folder: Path, command: list[str]) -> None:
    """Write a run's results and its page into a folder, all of them or none.

    What the folder holds besides the files of a run stays there.
    """
    cells, records = [c for c in matrix.cells if c.fault is None], matrix.records
    with replaced_folder(folder, is_result) as draft:
        write_results(
            draft,
            outcome.cells,
            matrix.cells,
            matrix.config,
            command,
            outcome.failures,
            outcome.seconds,
            records,
        )
        if outcome.detection:
            write_detection(outcome.detection, draft)
        theirs = [read_results(other).pictures for other in matrix.reuse]
        keep_evidence(draft, cells, matrix.datasets, records, folder, theirs)
        write_page(replace(read_results(draft), folder=folder), draft, known_meanings())
        if matrix.config.table is not None:
            titles = table_titles(matrix.cells)
            try:
                write_table(paper_grid(matrix.config, matrix.cells, outcome.cells, titles), draft)
            except ValueError as error:  # flags added an axis that the table's layout lacks
                log.warning("%s gets no table: %s", folder, error)
    if matrix.keep_models:
        write_models(folder / "models", cells, matrix.store)
    if matrix.log is not None:
        write_tensorboard(folder / "tensorboard", cells, records)
