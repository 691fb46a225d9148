"""The slurm executor: array jobs by submitit, one element a cell.

Slurm may run without accounting, so its word is not asked for what is done: notes and store say
that. `squeue` says what is alive. What died, or was lost with its node, is submitted again.
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
from typing import Annotated, ClassVar

from pydantic import Field

from ..cells.failure import Failure
from ..common.spec import printable
from ..store.store import Store
from .base import Executor, ExecutorError, Orders, Pool, Report, worker_environment
from .devices import remote_devices
from .notes import Notes
from .remote import remote_work
from .tasks import Task, plain

log = logging.getLogger(__name__)
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
LOST = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "REVOKED"}
"""Ends that are not the cell's fault."""
MARGIN_MIN = 5
"""Minutes that Slurm is told beyond a cell's time limit, which counts from its first step."""
LEAVE_S = 15.0
"""Longest wait for the run's last jobs to leave the queue, before their folder goes."""
GRACE_LOOKS = 2
"""Looks at the queue for which a job must be gone: files of other machines appear late."""


class Slurm(Executor):
    """Array jobs on a Slurm cluster; run the command where `sbatch` is.

    The store (`UEBENCH_HOME`) and this installation must lie on a file system that all nodes share.
    """

    name: ClassVar[str] = "slurm"
    title: ClassVar[str] = "array jobs on a Slurm cluster (needs uebench[slurm])"

    partition: str | None = None
    """Partition; none: the cluster's default."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that a node must have."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """CPU cores that a cell is given."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs that a cell is given; Slurm gives whole ones."""
    hours: Annotated[float, Field(gt=0)] = 24.0
    """Longest time of one job in hours, where --time-limit does not say."""
    poll_s: Annotated[float, Field(ge=0.2)] = 5.0
    """Seconds between two looks at the queue."""

    def check(self) -> None:
        """See that submitit and Slurm's commands are there."""
        if find_spec("submitit") is None:
            raise ExecutorError(
                "--executor slurm needs submitit, which is not installed; "
                "type pip install 'uebench[slurm]'"
            )
        missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
        if missing:
            raise ExecutorError(
                f"--executor slurm needs {' and '.join(missing)}, which this machine lacks; "
                "type the command on a login node of the cluster"
            )

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
    """A task in the queue: its number there, its note, and the looks for which it was gone."""

    task: Task
    number: str
    stderr: Path
    gone: int = 0


class SlurmPool(Pool):
    """Jobs of one run."""

    busy_wait_s = 30.0

    def __init__(
        self, executor: Slurm, orders: Orders, jobs: int, time_limit_s: float | None
    ) -> None:
        import submitit

        self.slots = jobs
        self.orders = orders
        self.poll_s = executor.poll_s
        self.store = Store(orders.store)
        self.notes = Notes(orders.store)
        self.jobs: dict[str, Job] = {}
        self.reasons: dict[str, str] = {}
        self.died = False
        self.numbers: set[str] = set()
        minutes = 60 * executor.hours if time_limit_s is None else time_limit_s / 60 + MARGIN_MIN
        self.minutes = max(1, math.ceil(minutes))
        self.executor = submitit.SlurmExecutor(self.notes.folder / "slurm", max_num_timeout=0)
        wanted = {
            "partition": executor.partition,
            "account": executor.account,
            "qos": executor.qos,
            "constraint": executor.constraint,
            "gpus_per_node": executor.gpus or None,
            "mem": None
            if executor.memory_gb is None
            else f"{math.ceil(executor.memory_gb * 1000)}M",
        }
        self.executor.update_parameters(
            job_name="uebench",
            time=self.minutes,
            cpus_per_task=executor.cpus,
            setup=[f"export {name}={value}" for name, value in worker_environment().items()],
            **{name: value for name, value in wanted.items() if value is not None},
        )

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submit tasks as one array job.

        Raises:
            ExecutorError: Slurm refuses it.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        self.executor.update_parameters(array_parallelism=len(tasks))
        notes = [self.notes.begin(task.key) for task in tasks]
        data = [plain(task) for task in tasks]
        try:
            made = self.executor.map_array(remote_work, data, [self.orders] * len(tasks), notes)
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
            why = printable(" ".join(str(error).split()))
            raise ExecutorError(
                f"sbatch refuses the job: {why}; see the options by `uebench show executor slurm`"
            ) from error
        for task, job in zip(tasks, made, strict=True):
            self.jobs[task.key] = Job(task, str(job.job_id), Path(job.paths.stderr))
            self.numbers.add(str(job.job_id))

    def reports(self, timeout_s: float) -> list[Report]:
        """Look at the notes and the queue until there is something to tell."""
        deadline = time.monotonic() + timeout_s
        while True:
            time.sleep(min(self.poll_s, max(0.0, deadline - time.monotonic())))
            queue = _queue() if self.jobs else {}
            said = [r for job in list(self.jobs.values()) for r in self._look(job, queue)]
            if said or time.monotonic() >= deadline:
                return said

    def _look(self, job: Job, queue: dict[str, tuple[str, str]] | None) -> list[Report]:
        """Return a job's news; where it has ended, the last of them says how."""
        key = job.task.key
        said = self.notes.news(key)
        if said and said[-1].kind in ("done", "failed", "busy"):
            del self.jobs[key]
            return said
        if queue is None:
            return said  # the queue does not answer, which says nothing about a job
        state, reason = queue.get(job.number, ("", ""))
        if state and state not in ENDED:
            job.gone = 0
            if state == "PENDING" and reason != self.reasons.get(key):
                self.reasons[key] = reason
                said.append(Report("progress", key, 0.0, f"waits in the queue ({reason})"))
            return said
        job.gone += 1
        if job.gone >= GRACE_LOOKS:
            del self.jobs[key]
            said.append(self._ended(job, state))
        return said

    def _ended(self, job: Job, state: str) -> Report:
        """Return how a job ended that did not tell it."""
        key, kind = job.task.key, job.task.kind
        if self.store.has(kind, key):
            return Report("done", key)
        self.died = True
        if state == "TIMEOUT":
            why = f"it took longer than the {self.minutes} min that Slurm was told"
            return Report("failed", key, failure=Failure(f"{why}; raise hours or --time-limit"))
        if state == "OUT_OF_MEMORY":
            why = "out of memory: it took more than Slurm gave it; raise memory_gb of the executor"
            return Report("failed", key, failure=Failure(why))
        words = (state or "gone from the queue").lower().replace("_", " ")
        how = f"job {job.number} {words}{_last_line(job.stderr)}"
        return Report("lost" if state in LOST else "died", key, text=how)

    def cancel(self, key: str) -> None:
        """Take a job out of the queue, or end it."""
        _scancel([self.jobs.pop(key).number])

    def check(self) -> None:
        """See that notes can be written: a worker on a full disk dies without a word."""
        self.store.check_writable()

    def close(self) -> None:
        """Cancel what is left; keep Slurm's logs where something died."""
        _scancel([job.number for job in self.jobs.values()])
        deadline = time.monotonic() + LEAVE_S
        while time.monotonic() < deadline and self._alive():
            time.sleep(0.5)
        if self.died:
            log.warning("what the lost jobs wrote is in %s", self.notes.folder / "slurm")
        else:
            self.notes.remove()

    def _alive(self) -> bool:
        """Return whether a job of this run is still in the queue."""
        queue = _queue() or {}
        return any(queue.get(number, ("COMPLETED",))[0] not in ENDED for number in self.numbers)


def _queue() -> dict[str, tuple[str, str]] | None:
    """Return state and reason of this user's jobs by number; None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
    try:
        told = subprocess.run(
            [*command, "--format=%i|%T|%r"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not answer (%s); asking again", type(error).__name__)
        return None
    rows = (line.strip().split("|", 2) for line in told.stdout.splitlines())
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def _scancel(numbers: list[str]) -> None:
    """Cancel jobs; those that have ended do not mind."""
    if numbers:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", *numbers], capture_output=True, timeout=60)


def _last_line(path: Path) -> str:
    """Return the last line that a job wrote, to be put behind what became of it."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f": {printable(lines[-1].strip())}" if lines else ""
