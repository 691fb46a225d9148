"""The slurm executor: array jobs through submitit, with one array element per cell.

Slurm may run without accounting, so it is not asked what has finished: the notes and the store say
that, and `squeue` says which jobs are alive. Jobs that died or were lost with their node are
submitted again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from ..cells.failure import Failure
from ..common.spec import printable
from ..store.store import Store
from .base import Executor, ExecutorError, Orders, Pool, Report, worker_environment
from .devices import remote_devices
from .notes import Notes
from .pack import remote_pack
from .sbatch import (
    AFTER_A_FAULT,
    OPTION_OF,
    SBATCH_S,
    checked_sbatch,
    refusal_in_words,
    sbatch_words,
    without_brackets,
)
from .tasks import Task, plain

log = logging.getLogger(__name__)
LOST_STATES = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "REVOKED"}
"""Final states that are not the cell's fault."""
FINAL_STATES = {"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}
FINAL_STATES |= LOST_STATES
MARGIN_MIN = 5
"""Minutes requested in addition to a cell's time limit, which counts from its first step."""
LEAVE_S = 15.0
"""Longest wait for the last jobs of a run to leave the queue before their folder is removed."""
GRACE_LOOKS = 2
"""A job has ended only when this many looks at the queue in a row have missed it, because files
written on other machines become visible late."""


class Slurm(Executor):
    """Array jobs on a Slurm cluster; run the command where `sbatch` is.

    The store (`UEBENCH_HOME`) and this installation must lie on a file system that all nodes share.
    """

    name: ClassVar[str] = "slurm"
    title: ClassVar[str] = "array jobs on a Slurm cluster (needs uebench[slurm])"

    partition: str | None = None
    """Partition; by default the cluster's own default."""
    account: str | None = None
    """Account that the jobs are charged to."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that a node must have."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """CPU cores per cell."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs per cell, a whole number."""
    cells_per_job: Annotated[int, Field(ge=1, le=1024)] = 1
    """Cells that a job computes at the same time. They share its GPUs; cores and memory are
    requested for each of them."""
    hours: Annotated[float, Field(gt=0)] = 24.0
    """Time limit of one job in hours, unless --time-limit is given."""
    setup: Annotated[str, AfterValidator(without_brackets)] = ""
    """Shell commands that each job runs first, such as module load cuda; brackets around them
    protect commas."""
    sbatch: Annotated[str, AfterValidator(checked_sbatch)] = ""
    """Further options of sbatch, such as --gres=gpu:a100:1 --exclusive; brackets around them
    protect commas."""
    poll_s: Annotated[float, Field(ge=0.2)] = 5.0
    """Seconds between two looks at the queue."""

    def check(self) -> None:
        """Check that submitit and Slurm's commands are installed."""
        if find_spec("submitit") is None:
            raise ExecutorError(
                "--executor slurm needs submitit, which is not installed; "
                "run pip install 'uebench[slurm]'"
            )
        missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
        if missing:
            raise ExecutorError(
                f"--executor slurm needs {' and '.join(missing)}, which this machine lacks; "
                "run the command on a login node of the cluster"
            )
        command = ["sbatch", "--test-only", "--wrap=true", *self._flags()]
        try:
            refused = subprocess.run(command, capture_output=True, text=True, timeout=SBATCH_S)
        except subprocess.TimeoutExpired:
            raise ExecutorError(
                f"sbatch has not answered in {SBATCH_S} s; {AFTER_A_FAULT}"
            ) from None
        if refused.returncode:
            raise ExecutorError(self.refusal(refused.stderr))

    def parameters(self) -> dict[str, Any]:
        """Return what is asked of sbatch, by the names of its options."""
        n = self.cells_per_job
        memory = None if self.memory_gb is None else f"{math.ceil(self.memory_gb * n * 1000)}M"
        named = {
            name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")
        }
        named |= {"gpus-per-node": self.gpus or None, "mem": memory}
        named["cpus-per-task"] = self.cpus * n
        return {name: value for name, value in named.items() if value is not None}

    def _flags(self) -> list[str]:
        flags = [f"--{name}={value}" for name, value in self.parameters().items()]
        return [*flags, f"--time={math.ceil(60 * self.hours)}", *sbatch_words(self.sbatch)]

    def refusal(self, words: str) -> str:
        """Return why sbatch refuses a job, with the options that were set and may be the cause."""
        given = {
            name: f"{name}={getattr(self, name)}"
            for name in OPTION_OF.values()
            if name in self.model_fields_set
        }
        given |= {word: f"sbatch={word}" for word in sbatch_words(self.sbatch)}
        return refusal_in_words(words, given)

    def devices(self, asked: str) -> list[str]:
        """Return the device as a cell sees it."""
        return remote_devices(asked, self.gpus)

    def jobs(self, devices: list[str]) -> int:
        """Return how many jobs may be in the queue at a time."""
        return 64

    def open(
        self, orders: Orders, devices: list[str], jobs: int, time_limit_s: float | None
    ) -> SlurmPool:
        """Return a pool of Slurm jobs."""
        return SlurmPool(self, orders, jobs, time_limit_s)


@dataclass
class Job:
    """A task in Slurm's queue."""

    task: Task
    number: str
    """Its number in the queue, such as 17_3."""
    stderr: Path
    missed: int = 0
    """How many looks in a row have not found it in the queue."""


class SlurmPool(Pool):
    """Runs each task of a run as a Slurm job."""

    busy_wait_s = 30.0

    def __init__(
        self, executor: Slurm, orders: Orders, jobs: int, time_limit_s: float | None
    ) -> None:
        import submitit

        self.slots = jobs * executor.cells_per_job
        self.settings = executor
        self.orders = orders
        self.poll_s = executor.poll_s
        self.store = Store(orders.store)
        self.notes = Notes(orders.store)
        self.jobs: dict[str, Job] = {}
        self.reasons: dict[str, str] = {}
        self.died = False
        self.numbers: set[str] = set()
        self.cancelled: set[str] = set()
        """Jobs that were cancelled because of one of their cells."""
        minutes = 60 * executor.hours if time_limit_s is None else time_limit_s / 60 + MARGIN_MIN
        self.minutes = max(1, math.ceil(minutes))
        self.executor = submitit.SlurmExecutor(self.notes.folder / "slurm", max_num_timeout=0)
        exports = [f"export {name}={value}" for name, value in worker_environment().items()]
        words = [word.removeprefix("--").partition("=") for word in sbatch_words(executor.sbatch)]
        self.executor.update_parameters(
            job_name="uebench",
            time=self.minutes,
            setup=[*exports, *([executor.setup] if executor.setup else [])],
            additional_parameters={
                name: value if equals else True for name, equals, value in words
            },
            **{name.replace("-", "_"): value for name, value in executor.parameters().items()},
        )

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submit tasks as one array job, as many in each element as the executor packs.

        Raises:
            ExecutorError: Slurm refuses it.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        n = self.settings.cells_per_job
        packs = [tasks[i : i + n] for i in range(0, len(tasks), n)]
        self.executor.update_parameters(array_parallelism=len(packs))
        notes = [[self.notes.begin(task.key) for task in pack] for pack in packs]
        data = [[plain(task) for task in pack] for pack in packs]
        devices = [f"cuda:{i}" for i in range(self.settings.gpus)] or [self.orders.device]
        try:
            jobs = self.executor.map_array(
                remote_pack, data, [self.orders] * len(packs), notes, [devices] * len(packs)
            )
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
            raise ExecutorError(self.settings.refusal(str(error))) from error
        for pack, job in zip(packs, jobs, strict=True):
            self.numbers.add(str(job.job_id))
            for task in pack:
                self.jobs[task.key] = Job(task, str(job.job_id), Path(job.paths.stderr))

    def reports(self, timeout_s: float) -> list[Report]:
        """Look at the notes and the queue until there is something to report."""
        deadline = time.monotonic() + timeout_s
        while True:
            time.sleep(min(self.poll_s, max(0.0, deadline - time.monotonic())))
            queue = _queue() if self.jobs else {}
            reports = [r for job in list(self.jobs.values()) for r in self._look(job, queue)]
            if reports or time.monotonic() >= deadline:
                return reports

    def _look(self, job: Job, queue: dict[str, tuple[str, str]] | None) -> list[Report]:
        """Return a job's new reports; if it has ended, the last of them says how."""
        key = job.task.key
        reports = self.notes.news(key)
        if reports and reports[-1].kind in ("done", "failed", "busy", "died"):
            self.died |= reports[-1].kind == "died"
            del self.jobs[key]
            return reports
        if queue is None:
            return reports  # the queue does not answer, which says nothing about a job
        state, reason = queue.get(job.number, ("", ""))
        if state and state not in FINAL_STATES:
            job.missed = 0
            if state == "PENDING" and reason != self.reasons.get(key):
                self.reasons[key] = reason
                reports.append(Report("progress", key, 0.0, f"waiting in the queue ({reason})"))
            return reports
        job.missed += 1
        if job.missed >= GRACE_LOOKS:
            del self.jobs[key]
            reports.append(self._ended(job, state))
        return reports

    def _ended(self, job: Job, state: str) -> Report:
        """Return how a job ended that did not report it itself."""
        key = job.task.key
        if job.task.is_done(self.store):
            return Report("done", key)
        if job.number in self.cancelled:
            return Report("lost", key, text="another cell of its job exceeded its time limit")
        self.died = True
        if state == "TIMEOUT":
            why = f"it took longer than the {self.minutes} min requested from Slurm"
            return Report("failed", key, failure=Failure(f"{why}; raise hours or --time-limit"))
        if state == "OUT_OF_MEMORY":
            why = "out of memory: it used more than Slurm allows; raise memory_gb of the executor"
            return Report("failed", key, failure=Failure(why))
        words = f"ended as {state}" if state else "disappeared from the queue"
        how = f"job {job.number} {words}{_last_line(job.stderr)}"
        return Report("lost" if state in LOST_STATES else "died", key, text=how)

    def cancel(self, key: str) -> None:
        """Remove a task's job from the queue, or kill it; its other tasks are started again."""
        number = self.jobs.pop(key).number
        self.cancelled.add(number)
        _scancel([number])

    def check(self) -> None:
        """Check that notes can be written: a worker on a full disk dies without a report."""
        self.store.check_writable()

    def close(self) -> None:
        """Cancel the jobs that are left; keep Slurm's logs if any of them died."""
        _scancel([job.number for job in self.jobs.values()])
        deadline = time.monotonic() + LEAVE_S
        while time.monotonic() < deadline and self._alive():
            time.sleep(0.5)
        if self.died:
            log.warning("the logs of the jobs that died are in %s", self.notes.folder / "slurm")
        else:
            self.notes.remove()

    def _alive(self) -> bool:
        """Return whether a job of this run is still in the queue."""
        queue = _queue() or {}
        states = (queue.get(number, ("COMPLETED",))[0] for number in self.numbers)
        return any(state not in FINAL_STATES for state in states)


def _queue() -> dict[str, tuple[str, str]] | None:
    """Return state and reason of this user's jobs by number, or None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
    try:
        listing = subprocess.run(
            [*command, "--format=%i|%T|%r"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not answer (%s); trying again", type(error).__name__)
        return None
    rows = (line.strip().split("|", 2) for line in listing.stdout.splitlines())
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def _scancel(numbers: list[str]) -> None:
    """Cancel jobs; for those that have ended nothing happens."""
    if numbers:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", *numbers], capture_output=True, timeout=60)


def _last_line(path: Path) -> str:
    """Return `: ` and the last line that a job wrote, or nothing if there is none."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f": {printable(lines[-1].strip())}" if lines else ""
