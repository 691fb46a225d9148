"""The Python API: `run`, `craft` and `train`, which the command line calls too."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from .api import Facts, Run
from .cell import Cell, DatasetRef, PoisonRef
from .checkpoint import interval as checkpoint_interval
from .compute import fetch_poison, keep_dataset
from .data import Dataset, load_dataset
from .evidence import keep_evidence
from .execute import DeviceError as DeviceError
from .execute import Executor, ExecutorError, Orders, build_executor, run_tasks, usable_devices
from .execute.local import Local, run_here
from .execute.tasks import Failure, Listener, Task, pending
from .execute.worker import one_thread
from .files import audit_poison
from .imported import imported_recipe
from .importing import Reading, read_poison
from .importing.interpret import Kind, Rounding, Scale
from .importing.names import bind, check_free, checked_name, remember
from .memory import gathered
from .models import parse_arch
from .paper_table import paper_grid, write_table
from .plan import Config, dataset_specs, make_config, plan, resolve_precision, table_titles
from .poison import Poison, PoisonError, measure, poisoned, tensors_sha256
from .progress import ProgressDisplay
from .protocol import Protocol, named_protocol
from .registry import build_attack, build_defense, plugin_files
from .report import read_results, write_page
from .results import check_folder, gather, write_results
from .robust import ball_of, robust_record
from .spec import printable
from .storage import tidy
from .store import Store, key_of, seed_of
from .trainer import train_model

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A planned matrix: the configuration, its data sets and cells, and where they are kept."""

    config: Config
    datasets: list[Dataset]
    cells: list[Cell]
    store: Store
    devices: list[str]
    jobs: int
    executor: Executor = field(default_factory=Local)
    time_limit_s: float | None = None
    """Longest time of one cell, or of one poison; none: no limit."""
    deterministic: bool = False
    """Whether GPUs compute with kernels that give the same bits again."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run ended with: the rows of cells.csv, and why cells failed, by key."""

    cells: pd.DataFrame
    failures: dict[str, Failure]
    seconds: float


def run(
    attacks: Sequence[str] | str = ("none", "em", "lsp", "ar"),
    defenses: Sequence[str] | str = ("standard", "ueraser", "iss", "at"),
    dataset: str | Sequence[str] = "synthetic",
    *,
    out: Path | str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    executor: Executor | str = "local",
    time_limit_s: float | None = None,
    deterministic: bool = False,
    data_dir: Path | str | None = None,
    download: bool = False,
    quiet: bool = True,
    **fields: Any,
) -> pd.DataFrame:
    """Return a matrix of attacks and defenses as a pandas table, a row a cell.

    What the store has is not computed again.

    Args:
        attacks: specs such as `em` or `em[eps=16/255]`.
        defenses: specs such as `ueraser` or `iss[quality=30]`.
        dataset: one or several data sets, such as `cifar10` or `npz:FILE`.
        out: a folder for cells.csv, leaderboards and run.json.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        jobs: cells side by side; by default one a core, or one a GPU.
        executor: `local`, `ray` or `slurm` with options, such as `ray[gpus=0.25]`.
        time_limit_s: longest time of one cell or one poison in seconds; a longer one fails.
        deterministic: let GPUs compute with kernels that give the same bits again.
        data_dir: where torchvision's data sets lie.
        download: fetch a data set that is missing.
        quiet: show no progress.
        **fields: any other field of `uebench.plan.Config`, such as `seeds=[0, 1, 2]`.

    Returns:
        The columns of cells.csv; accuracies in [0, 1], `status` ok or failed.

    Raises:
        KeyError, ValueError: an unknown name or a bad value, before anything is computed.
        StoreError: a disk is full; what is done is kept, and the same call goes on.
    """
    config = make_config({"attacks": attacks, "defenses": defenses, "dataset": dataset, **fields})
    how: dict[str, Any] = {
        "executor": executor,
        "time_limit_s": time_limit_s,
        "deterministic": deterministic,
    }
    matrix = prepare(config, device, jobs, data_dir, download, **how)
    if out is not None:
        check_folder(Path(out))
    outcome = execute(matrix, quiet)
    if out is not None:
        save(matrix, outcome, Path(out), [])
    return outcome.cells


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
    deterministic: bool = False,
    outline: bool = False,
) -> Matrix:
    """Return the planned matrix; data sets are read, and no results are written.

    With `outline` it can be looked at and not executed: no data set is decoded for it.
    """
    chosen = build_executor(executor) if isinstance(executor, str) else executor
    chosen.check()
    devices = chosen.devices(device)
    checkpoint_interval()  # what is wrong with it is told before anything is computed
    store = store or Store()
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}; leave it out for one a core or GPU")
    if time_limit_s is not None and not time_limit_s > 0:
        raise ValueError(f"the time limit must be above 0 s, got {time_limit_s}; leave it out")
    jobs = jobs or chosen.jobs(devices)
    specs = dataset_specs(config)
    datasets = [load_dataset(spec, data_dir, download, outline=outline) for spec in specs]
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two data sets are called {max(names, key=names.count)}, and tables could not tell "
            "them apart; rename a file or folder, or run them one by one"
        )
    refs = [(dataset, dataset_ref(dataset)) for dataset in datasets]
    cells = plan(config, refs, devices[0], store)
    matrix = Matrix(
        config, datasets, cells, store, devices, jobs, chosen, time_limit_s, deterministic
    )
    if _of_this_session(cells) and (time_limit_s is not None or chosen.memory_gb is not None):
        raise ExecutorError(
            "a method that was typed into this session runs in this process, which has no limits "
            "of time or memory; write it into a file and load that with --plugin"
        )
    if _of_this_session(cells) and chosen.name != "local":
        raise ExecutorError(
            f"a method that was typed into this session cannot reach the workers of {chosen.name}; "
            "write it into a file and load that with --plugin, or use the executor local"
        )
    return matrix


def execute(matrix: Matrix, quiet: bool = True) -> Outcome:
    """Compute what the store lacks; return all cells of the matrix."""
    start = time.perf_counter()
    tasks = pending(matrix.cells, matrix.store)
    if tasks:
        matrix.store.check_writable()
        tidy(matrix.store)
    for dataset in matrix.datasets if tasks else []:
        keep_dataset(matrix.store, dataset)
    with ProgressDisplay(len(tasks), quiet) as display:
        failures = _compute(matrix, tasks, display) if tasks else {}
    frame = gather(matrix.cells, matrix.store, failures)
    return Outcome(frame, failures, time.perf_counter() - start)


def _compute(matrix: Matrix, tasks: list[Task], listen: Listener) -> dict[str, Failure]:
    """Do a matrix's tasks where its executor does them; return the failures by key."""
    orders = Orders(
        str(matrix.store.root.resolve()),
        matrix.devices[0],
        tuple(str(path) for path in plugin_files()),
        matrix.deterministic,
        matrix.executor.memory_gb,
    )
    if _of_this_session(matrix.cells):
        return run_here(tasks, orders, matrix.devices[0], listen)
    pool = matrix.executor.open(orders, matrix.devices, matrix.jobs, matrix.time_limit_s)
    return run_tasks(tasks, pool, listen, matrix.time_limit_s)


def _of_this_session(cells: list[Cell]) -> bool:
    """Return whether a method exists in this process alone."""
    return any(
        "session" in (cell.poison.attack.info.origin, cell.defense.info.origin) for cell in cells
    )


def save(matrix: Matrix, outcome: Outcome, folder: Path, command: list[str]) -> None:
    """Write a run's results into a folder."""
    poisons = {}
    for cell in matrix.cells:
        found = matrix.store.read("poison", cell.poison.key, tensors=False)
        if found is not None:
            poisons[cell.poison.key] = found[1]
    reads = {c.key: matrix.store.read("cell", c.key, tensors=False) for c in matrix.cells}
    write_results(
        folder,
        outcome.cells,
        matrix.cells,
        matrix.config,
        command,
        outcome.failures,
        outcome.seconds,
        poisons,
        {key: found[1] for key, found in reads.items() if found is not None},
    )
    keep_evidence(folder, matrix.cells, matrix.datasets, matrix.store)
    write_page(read_results(folder))
    if matrix.config.table is not None:
        titles = table_titles(matrix.cells)
        try:
            write_table(paper_grid(matrix.config, matrix.cells, outcome.cells, titles), folder)
        except ValueError as error:  # flags added an axis that the table's layout does not have
            log.warning("no table of %s: %s", folder, error)


def craft(
    attack: str,
    dataset: Dataset | str,
    *,
    seed: int = 0,
    protocol: str = "paper",
    device: str = "auto",
    store: Store | None = None,
    quiet: bool = True,
) -> Poison:
    """Return the poison that an attack makes of a data set's training images.

    It is kept in the store: the same attack, options, seed and data give the same poison at once.

    Args:
        attack: a spec such as `lsp` or `em[eps=16/255]`.
        dataset: a data set or its name.
        seed: what the poison is crafted from.
        protocol: whose surrogate network an attack takes that is not told another one.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        store: where it is kept; by default `$UEBENCH_HOME` or the platform's cache folder.
        quiet: show no progress.

    Raises:
        KeyError, ValueError: an unknown name, a bad option, or a budget that is not kept.
    """
    device = usable_devices(device)[0]
    loaded = load_dataset(dataset) if isinstance(dataset, str) else dataset
    chosen = named_protocol(protocol, loaded.name.partition("[")[0])
    surrogate = parse_arch(chosen.surrogate)[0]
    family = loaded.name.partition("[")[0]
    facts = Facts(family, loaded.n_classes, loaded.shape, chosen.epochs, surrogate)
    store = store or Store()
    made = bind(build_attack(attack), store, loaded.name, loaded.fingerprint).resolve(facts)
    precision = resolve_precision(chosen.precision, device)
    ref = PoisonRef(dataset_ref(loaded), made, seed, precision)

    def told(share: float, text: str) -> None:
        if not quiet:
            print(f"{made.info.name}: {share:.0%} {text}", file=sys.stderr, flush=True)

    with one_thread(device):
        return fetch_poison(store, ref, loaded.train, device, told)


def import_poison(
    path: Path | str,
    dataset: Dataset | str,
    name: str,
    *,
    kind: Kind = "auto",
    scale: Scale = "auto",
    rounding: Rounding = "round",
    key: str | None = None,
    replace: bool = False,
    store: Store | None = None,
) -> Poison:
    """Return the poison in a file of somebody else's and keep it as the attack `imported:NAME`.

    Nothing in the file is run. Its `meta` says how it was read and what was measured. The labels
    stay those of the clean set; training images that it does not cover stay clean.

    Args:
        path: a folder or zip of `<index>.png`, .npy, .npz, .safetensors, .pt, a pickle of arrays.
        dataset: the data set that it was made from, or its name.
        name: what it is called from now on.
        kind: poisoned `images`, or `deltas`, which are added to the clean ones.
        scale: `unit` where 1 is white, `levels` where 255 is.
        rounding: of levels that are not whole: `round`, or `truncate` as a cast to uint8 does.
        key: the array's name, where the file has several.
        replace: give a name another content than it has.
        store: where it is kept; by default `$UEBENCH_HOME` or the platform's cache folder.

    Raises:
        ValueError: the file cannot be read or trusted, does not fit the data set, could be read in
            two ways, or changes nothing; or the name is taken.
    """
    called = checked_name(name)
    loaded = load_dataset(dataset) if isinstance(dataset, str) else dataset
    found, read = read_poison(Path(path), loaded, Reading(kind, scale, rounding, key))
    audit = audit_poison(found, loaded)
    if not audit["linf_max"]:
        raise PoisonError(f"{path} changes no image of {loaded.name}; is it the clean data set?")
    order = found.index.argsort()
    index = found.index[order]
    images = gathered(found.images, order, found.images.device)
    poison = Poison(images, loaded.train.labels[index], index)
    sha256 = tensors_sha256(poison)
    recipe = imported_recipe(loaded.fingerprint, sha256)
    told = {
        **read,
        **audit,
        "sha256": sha256,
        "file": printable(Path(path).name),
        "dataset": loaded.name,
    }
    budget = {"norm": "linf", "eps": audit["linf_max"] / 255}
    meta = {**told, "recipe": recipe, "budget": budget, "author_record": found.meta}
    store = store or Store()
    check_free(store, called, loaded.fingerprint, sha256, replace)
    tensors = {"images": poison.images, "labels": poison.labels, "index": poison.index}
    store.get_or_make("poison", key_of(recipe), lambda: (tensors, meta))
    remember(store, called, loaded.fingerprint, told, replace)
    return Poison(poison.images, poison.labels, poison.index, meta)


def train(
    poison: Poison,
    defense: str,
    dataset: Dataset | str,
    *,
    arch: str | None = None,
    protocol: str | Protocol = "quick",
    seed: int = 0,
    device: str = "auto",
    **protocol_options: Any,
) -> dict[str, Any]:
    """Return the record of a target model trained on a poison under a defense.

    The poison may come from `craft`, from a file or from anywhere else. Nothing is kept. Where no
    budget is recorded with it, adversarial training takes half of the linf that it measures.

    Args:
        poison: the poisoned images; training images that it does not cover stay clean.
        defense: a spec such as `ueraser`.
        dataset: where the test set and the class names come from.
        arch: the target network; by default the protocol's.
        protocol: its name, or one of your own.
        seed: seed of the training.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        **protocol_options: fields of the protocol that are changed, such as `epochs=5`.

    Returns:
        test_acc, test_acc_best, best_epoch, train_acc in [0, 1]; curve, confusion, train_seconds;
        with `robust=True` robust_acc, robust_norm and robust_radius.
    """
    device = usable_devices(device)[0]
    loaded = load_dataset(dataset) if isinstance(dataset, str) else dataset
    family = loaded.name.partition("[")[0]
    if isinstance(protocol, Protocol):
        chosen = Protocol.model_validate(protocol.model_dump() | protocol_options)
    else:
        chosen = named_protocol(protocol, family, **protocol_options)
    facts = Facts(family, loaded.n_classes, loaded.shape, chosen.epochs, chosen.surrogate)
    facts = replace(facts, **_budget_of(poison, loaded))
    made = build_defense(defense).resolve(facts)
    data = poisoned(loaded.train, poison)
    work = Run(
        shape=loaded.shape,
        n_classes=loaded.n_classes,
        seed=seed_of("train", seed),
        device=device,
        epochs=chosen.epochs,
        precision=resolve_precision(chosen.precision, device),
    )
    with one_thread(device):
        data = made.prepare(data.to(device), work)
        trained = train_model(
            data, loaded.test.to(device), arch or chosen.arch, made.adjust(chosen), made, work
        )
        if not chosen.robust:
            return trained.record
        norm, radius = ball_of(made, facts.norm, facts.eps)
        judged = robust_record(trained.model, loaded.test.to(device), norm, radius, work)
    return trained.record | judged


def _budget_of(poison: Poison, dataset: Dataset) -> dict[str, Any]:
    """Return norm and eps of a poison: as recorded, else its measured linf; nothing if clean."""
    match poison.meta.get("budget"):
        case {"norm": "linf" | "l2" as norm, "eps": float(eps)} if eps > 0:
            return {"norm": norm, "eps": eps}
    measured = measure(dataset.train.images, poison.images, poison.index)
    levels = measured.linf.max().item()
    return {"norm": "linf", "eps": levels / 255} if levels else {}


def dataset_ref(dataset: Dataset) -> DatasetRef:
    """Return what names a data set by content."""
    return DatasetRef(
        dataset.name, dataset.fingerprint, dataset.n_classes, dataset.shape, dataset.class_names
    )
