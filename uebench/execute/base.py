"""The interface of an executor: the options that a user may set, and a pool that performs tasks.

An executor only starts processes and reports what happens to them. Order, retries, time limits and
dependencies on poisons are the same for all executors (`drive.py`), and only the store decides
whether something is done. The same matrix therefore gives the same table on each of them.
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
"""The value to which we set PYTHONSAFEPATH. Python accepts any value, so a worker can recognise
ours and remove it, and leaves the variable alone if the user has set it."""

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # by default glibc returns large blocks to the system immediately, and every batch pays for
    # new pages: a training step took 1.2 times as long without these settings
    # (2 cores, AVX2, torch 2.15, one run each)
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}


def worker_environment() -> dict[str, str]:
    """Return the environment variables that every executor sets before a worker's Python starts.

    Without PYTHONSAFEPATH, a forkserver or a job's Python imports from the directory it is started
    in, where a copy of this project would take precedence over the installed one. (Ray adds that
    directory by itself.)
    """
    return _ENVIRONMENT | {"PYTHONSAFEPATH": os.environ.get("PYTHONSAFEPATH") or SAFE_PATH}


class ExecutorError(UserError):
    """An executor cannot be used; the message says why and what to do about it."""


@dataclass(frozen=True)
class Orders:
    """What every worker of a run needs to know in addition to its task."""

    store: str
    """Absolute path of the store, because a method may change the working directory."""
    device: str
    plugins: tuple[str, ...] = ()
    """The files given with `--plugin`."""
    deterministic: bool = False
    memory_gb: float | None = None
    """The most private memory that a worker may use, in GB; None means no limit."""
    sharers: int = 1
    """Number of workers that share the machine's memory, where that is known."""


class Report(NamedTuple):
    """What a pool reports about one of its tasks."""

    kind: Literal["start", "progress", "done", "failed", "died", "lost", "busy"]
    """`died`: its process ended without reporting a result, perhaps through its own fault.
    `lost`: its machine failed or a queue removed it. `busy`: another driver's worker is computing
    it."""
    key: str
    share: float = 0.0
    """How much of the task is done, from 0 to 1."""
    text: str = ""
    """Progress in words, or how a process died."""
    at_most: bool = False
    """Whether the task may end before its share is 1."""
    failure: Failure | None = None
    """Why the task failed."""
    killed: bool = False
    """Whether its process was killed from outside, as happens when the machine runs out of
    memory."""


class Pool(ABC):
    """Performs the tasks of one run and reports on them."""

    slots: int
    """How many tasks the pool accepts at a time."""
    busy_wait_s: float = 1.0
    """Seconds until a task that another driver's worker is computing is tried again."""

    @abstractmethod
    def submit(self, tasks: Sequence[Task]) -> None:
        """Start or queue tasks, at most as many as there are free slots."""

    @abstractmethod
    def reports(self, timeout_s: float) -> list[Report]:
        """Return what has happened, after waiting at most `timeout_s` for the first report."""

    @abstractmethod
    def cancel(self, key: str) -> None:
        """Stop a task; no report about it follows."""

    def check(self) -> None:  # noqa: B027
        """Check that workers can still report; called before a death is blamed on its task.

        Raises:
            FullError: their disk is full.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop everything that still runs and leave no process behind."""


class Executor(BaseModel, ABC):
    """Where cells are computed; its fields are options, as in `ray[gpus=0.25]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    name: ClassVar[str]
    title: ClassVar[str]

    memory_gb: Annotated[float | None, Field(gt=0)] = None
    """Memory per cell in GB; there is no limit by default. A cell on a CPU that needs more fails
    with an out-of-memory error."""

    @abstractmethod
    def devices(self, asked: str) -> list[str]:
        """Return the devices that cells compute on, for `--device ASKED`."""

    @abstractmethod
    def jobs(self, devices: list[str]) -> int:
        """Return how many cells run at the same time unless the user sets a number."""

    def check(self) -> None:
        """Check that the executor can be used on this machine.

        Raises:
            ExecutorError: something is missing.
        """

    @abstractmethod
    def open(
        self, orders: Orders, devices: list[str], jobs: int, time_limit_s: float | None
    ) -> Pool:
        """Return a pool for one run.

        Raises:
            ExecutorError: the cluster cannot be reached.
        """
