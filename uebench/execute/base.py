"""What an executor is: options that a user may give, and a pool that does tasks.

An executor only starts processes and tells what becomes of them. Order, retries, time limits and
what waits for a poison are the same for all of them (`drive.py`), and the store alone says that
something is done. So the same matrix gives the same table on each.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..cells.failure import Failure
from ..common.errors import UserError
from .tasks import Task

SAFE_PATH = "uebench"
"""Our value of PYTHONSAFEPATH, which any value turns on: a worker takes away this one alone."""

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc gives large blocks back at once by default, and every batch pays for fresh pages:
    # without this a training step took 1.2 times as long (2 cores, AVX2, torch 2.15, one run each)
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}


def worker_environment() -> dict[str, str]:
    """Return what every executor sets for its workers before Python starts.

    Without PYTHONSAFEPATH a forkserver, or a job's Python, imports from the folder that it is
    started in, where a copy of this project would stand before the installed one. (Ray adds that
    folder by itself.)
    """
    return _ENVIRONMENT | {"PYTHONSAFEPATH": os.environ.get("PYTHONSAFEPATH") or SAFE_PATH}


class ExecutorError(UserError):
    """An executor cannot be used: one sentence says why and what to do."""


@dataclass(frozen=True)
class Orders:
    """What every worker of a run is told besides its task."""

    store: str
    """The store's folder, absolute: a method may change the working directory."""
    device: str
    plugins: tuple[str, ...] = ()
    """Files given by `--plugin`."""
    deterministic: bool = False
    memory_gb: float | None = None
    """The most private memory that a worker may take, in GB; none: what there is."""
    sharers: int = 1
    """Workers that share a machine's memory, where that is known."""


class Report(NamedTuple):
    """What a pool tells of one of its tasks."""

    kind: Literal["start", "progress", "done", "failed", "died", "lost", "busy"]
    """`died`: its process ended without a word, which may be its own fault. `lost`: a machine or a
    queue took it away. `busy`: another driver's worker computes it."""
    key: str
    share: float = 0.0
    text: str = ""
    """Progress in words, or how a process died."""
    failure: Failure | None = None
    """Why it failed."""
    killed: bool = False
    """Whether its process was killed from outside, as happens where memory runs out."""


class Pool(ABC):
    """Takes tasks and reports on them; one run long."""

    slots: int
    """How many tasks may be with the pool at a time."""
    busy_wait_s: float = 1.0
    """Seconds until a task is tried again that another driver's worker holds."""

    @abstractmethod
    def submit(self, tasks: Sequence[Task]) -> None:
        """Begin tasks, or put them into a queue; at most as many as there are free slots."""

    @abstractmethod
    def reports(self, timeout_s: float) -> list[Report]:
        """Return what has happened, after waiting at most `timeout_s` for something."""

    @abstractmethod
    def cancel(self, key: str) -> None:
        """End a task of which no report shall come any more."""

    def check(self) -> None:  # noqa: B027
        """See that workers can still tell what happens; asked before a death is a task's fault.

        Raises:
            FullError: their disk is full.
        """

    @abstractmethod
    def close(self) -> None:
        """End what still runs and leave no process behind."""


class Executor(BaseModel, ABC):
    """Where cells are computed; its fields are options, as in `ray[gpus=0.25]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    name: ClassVar[str]
    title: ClassVar[str]

    memory_gb: Annotated[float | None, Field(gt=0)] = None
    """Memory of one cell in GB. On a CPU a cell that asks for more fails and says so; none: no
    limit."""

    @abstractmethod
    def devices(self, asked: str) -> list[str]:
        """Return the devices that cells compute on, for `--device ASKED`."""

    @abstractmethod
    def jobs(self, devices: list[str]) -> int:
        """Return how many cells run side by side where the user does not say."""

    def check(self) -> None:
        """See that the executor can be used here.

        Raises:
            ExecutorError: something is missing.
        """

    @abstractmethod
    def open(
        self, orders: Orders, devices: list[str], jobs: int, time_limit_s: float | None
    ) -> Pool:
        """Return the pool of a run.

        Raises:
            ExecutorError: the cluster cannot be reached.
        """
