"""The tasks that an executor runs: poisons first, then the cells that depend on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ..cells.cell import Cell
from ..cells.compute import compute, fetch_dataset, fetch_poison
from ..cells.failure import Failure, failure
from ..cells.records import Records
from ..common.errors import MethodError
from ..methods.run import ShowProgress
from ..methods.source import loaded_code, use_planned_source
from ..store.store import BusyError, Store, StoreError


@dataclass(frozen=True)
class Task:
    """One piece of work: its kind, its key in the store, and a cell that describes it."""

    kind: Literal["poison", "cell"]
    key: str
    cell: Cell
    keep_model: bool = False
    """Whether the weights of a cell's target model are stored as well."""

    @property
    def needs(self) -> list[str]:
        """The keys of the poisons that it is made from: a cell's own, or the parts of a mixture."""
        poison = self.cell.poison
        return [poison.key] if self.kind == "cell" else [part.key for part in poison.parts]

    def is_done(self, store: Store) -> bool:
        """Return whether the store has all that the task makes."""
        kinds = [self.kind, *(["model"] if self.keep_model else [])]
        return all(store.has(kind, self.key) for kind in kinds)

    def describe(self) -> str:
        """Return the task in a few words, for progress lines."""
        if self.kind == "poison":
            return f"craft {self.cell.attack_spec}"
        return self.cell.describe()


class Event(NamedTuple):
    """What happened to a task."""

    kind: Literal["start", "progress", "again", "done", "failed"]
    """`again`: the task is started again, and the text says why."""
    task: Task
    share: float = 0.0
    """How much of the task is done, from 0 to 1."""
    text: str = ""
    at_most: bool = False
    """Whether the task may end before its share is 1."""


Listener = Callable[[Event], None]


def pending(
    cells: list[Cell],
    source: Store | Records,
    as_listed: bool = False,
    keep_models: bool = False,
) -> list[Task]:
    """Return the poisons and cells that the store lacks, each once, poisons first.

    The cells that take longest come first, so that no core idles for long at the end. With
    `as_listed` the cells keep their order and each poison precedes its first cell, which suits a
    run that may not reach all of them. With `keep_models` a cell whose model is not stored is
    computed again.
    """
    records = Records.of(source)
    store, tasks = records.store, dict[str, Task]()
    # records are read and not only looked for, so that damaged ones are computed again
    missing = [
        cell
        for cell in cells
        if cell.fault is None
        and (records.cell(cell) is None or (keep_models and not store.has("model", cell.key)))
    ]
    for cell in missing:
        poison = cell.poison
        if not poison.is_clean and not store.has("poison", poison.key):
            for part in poison.parts:
                if not store.has("poison", part.key):
                    alone = replace(cell, poison=part, attack_options="")
                    tasks.setdefault(part.key, Task("poison", part.key, alone))
            tasks.setdefault(poison.key, Task("poison", poison.key, cell))
        if as_listed:
            tasks.setdefault(cell.key, Task("cell", cell.key, cell, keep_models))
    for cell in sorted(missing, key=lambda cell: -effort_of(cell)):
        tasks.setdefault(cell.key, Task("cell", cell.key, cell, keep_models))
    return list(tasks.values())


def effort_of(cell: Cell) -> float:
    """Return how long an epoch of a cell's training takes, relative to standard training."""
    return cell.defense.effort() * cell.victim.effort(cell.protocol)


def perform_alone(
    task: Task, store: Store, device: str, progress: ShowProgress | None
) -> Failure | Literal["done", "busy"]:
    """Perform a task, or return `busy` if a worker of another driver is performing it."""
    try:
        with store.lock("task", task.key, wait=False):
            if task.is_done(store):
                return "done"  # another driver has finished it since this one planned its run
            return perform(task, store, device, progress) or "done"
    except BusyError:
        return "busy"
    except (StoreError, MemoryError) as error:
        return failure(error)


def perform(task: Task, store: Store, device: str, progress: ShowProgress | None) -> Failure | None:
    """Perform a task in this process; return why it failed, or None."""
    try:
        if task.kind == "poison":
            train = fetch_dataset(store, task.cell.poison.dataset).train
            fetch_poison(store, task.cell.poison, train, device, progress)
        else:
            compute(task.cell, store, device, progress, keep_model=task.keep_model)
    except Exception as error:
        return failure(error)
    return None


def plain(task: Task) -> dict[str, Any]:
    """Return a task as plain data for another process."""
    cell = task.cell
    own, poison = cell.recipe(), cell.poison
    sources = [poison.recipe().get("source"), own.get("source"), own.get("victim_source")]
    sources = sources[: len(cell.methods)] + [part.recipe().get("source") for part in poison.parts]
    return {
        "kind": task.kind,
        "key": task.key,
        "keep_model": task.keep_model,
        "cell": cell.to_json(),
        "code": [loaded_code(method) for method in cell.all_methods],
        "sources": sources,
    }


def from_plain(data: dict[str, Any]) -> Task:
    """Return the task that `plain` described.

    Raises:
        MethodError: the code of a method is not the code that the task was planned with.
    """
    cell = Cell.from_json(data["cell"])
    for method, code, source in zip(cell.all_methods, data["code"], data["sources"], strict=True):
        if loaded_code(method) != code:
            raise MethodError(
                f"the code of {method.info.kind} {method.info.name} is not the code that this run "
                "was planned with; if you have changed a file, run the command again, and "
                "otherwise check that all machines have the same files"
            )
        if source is not None:
            use_planned_source(method, source)
    return Task(data["kind"], data["key"], cell, data["keep_model"])
