"""The local executor: a process a task, as many at a time as there are cores or GPU slots.

Workers come from a forkserver that has torch loaded, so a task starts in some hundredths of a
second. Each leads a process group of its own, which ends with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import ClassVar

from ..cells.determinism import determinism
from ..cells.failure import Failure
from ..learn.threads import one_thread
from ..store.store import Store
from .base import Executor, Orders, Pool, Report, worker_environment
from .devices import usable_cores, usable_devices
from .tasks import Listener, Task, perform_alone, plain

NO_FORKSERVER = (ConnectionError, EOFError)
"""What starting a process raises where the forkserver is dead or dies meanwhile."""

START_PATIENCE_S = 10.0
"""Longest wait for a forkserver that can be talked to."""


class Local(Executor):
    """Processes on this machine."""

    name: ClassVar[str] = "local"
    title: ClassVar[str] = "processes on this machine"

    def devices(self, asked: str) -> list[str]:
        """Return this machine's devices."""
        return usable_devices(asked)

    def jobs(self, devices: list[str]) -> int:
        """Return one a GPU, or one a core."""
        return len(devices) if devices[0] != "cpu" else usable_cores()

    def open(
        self, orders: Orders, devices: list[str], jobs: int, time_limit_s: float | None
    ) -> LocalPool:
        """Return a pool of processes."""
        return LocalPool(orders, devices, jobs)


@dataclass
class Worker:
    """A running process, the end of its pipe, its task and its device."""

    task: Task
    device: str
    process: ForkServerProcess
    inbox: Connection
    last: Report | None = None

    def stop(self) -> None:
        """End the process and what it has started, at once."""
        self.process.kill()
        self.process.join(10)
        self.buried()

    def buried(self) -> None:
        """Clear up after a process that has ended."""
        self.inbox.close()
        with contextlib.suppress(OSError):
            # a method may have forked; the group's number is taken as long as anyone is in it
            os.killpg(self.process.pid or 0, signal.SIGKILL)


class LocalPool(Pool):
    """Processes on this machine, spread over its devices."""

    def __init__(self, orders: Orders, devices: list[str], jobs: int) -> None:
        self.orders = replace(orders, sharers=jobs)
        self.slots = jobs
        self.places = [devices[i % len(devices)] for i in range(jobs)]
        self.workers: dict[str, Worker] = {}
        self.told: list[Report] = []
        self.patience_s = START_PATIENCE_S

    def submit(self, tasks: Sequence[Task]) -> None:
        """Start a process for each task, on the device that has the fewest."""
        for task in tasks:
            taken = [worker.device for worker in self.workers.values()]
            device = min(self.places, key=taken.count)
            orders = replace(self.orders, device=device)
            try:
                self.workers[task.key] = _start(task, orders, self.patience_s)
            except NO_FORKSERVER as error:
                why = f"what starts processes is gone: {error}"
                self.told.append(Report("died", task.key, text=why))
                self.patience_s = 0.0  # nobody else waits for it until one has come
            else:
                self.told.append(Report("start", task.key))
                self.patience_s = START_PATIENCE_S

    def reports(self, timeout_s: float) -> list[Report]:
        """Return what workers said, and which have ended."""
        said, self.told = self.told, []
        workers = list(self.workers.values())
        waited_for = [w.inbox for w in workers] + [w.process.sentinel for w in workers]
        ready = wait(waited_for, 0 if said else timeout_s)
        for worker in workers:
            if worker.inbox in ready or worker.process.sentinel in ready:
                said += self._read(worker)
            if worker.process.sentinel in ready:
                said += self._read(worker)
                said.append(self._ended(worker))
        return said

    def cancel(self, key: str) -> None:
        """Kill a worker."""
        self.workers.pop(key).stop()

    def close(self) -> None:
        """Kill the workers that still run."""
        for worker in self.workers.values():
            worker.process.kill()
        for worker in self.workers.values():
            worker.stop()
        self.workers.clear()

    @staticmethod
    def _read(worker: Worker) -> list[Report]:
        """Return the progress that a worker told; keep how it ended."""
        said = []
        with contextlib.suppress(EOFError, OSError):
            while worker.inbox.poll():
                report = Report(*worker.inbox.recv())
                if report.kind == "progress":
                    said.append(report)
                else:
                    worker.last = report
        return said

    def _ended(self, worker: Worker) -> Report:
        """Return how a process ended: as it said, or that it died."""
        worker.process.join()
        worker.buried()
        del self.workers[worker.task.key]
        if worker.last is not None:
            return worker.last
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Report("died", worker.task.key, text=how, killed=code == -signal.SIGKILL)


def _start(task: Task, orders: Orders, patience_s: float) -> Worker:
    """Start a process for a task.

    A forkserver that was killed refuses connections for the moment until the system has buried
    it; only then does multiprocessing start another one.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _start_once(task, orders)
        except NO_FORKSERVER:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _start_once(task: Task, orders: Orders) -> Worker:
    """Start a process for a task, or raise one of NO_FORKSERVER."""
    from .worker import work

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uebench.execute.worker"])
    inbox, outbox = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(plain(task), orders, outbox), daemon=True)
    with outbox:
        try:
            with _for_workers(), _nameless_main():  # a forkserver may be started by this, too
                process.start()
        except BaseException:
            inbox.close()
            raise
    return Worker(task, orders.device, process, inbox)


class InProcessPool(Pool):
    """Does tasks in this process, one at a time: a method of a session exists nowhere else."""

    slots = 1

    def __init__(self, orders: Orders, listen: Listener) -> None:
        self.orders = orders
        self.store = Store(orders.store)
        self.listen = listen
        self.task: Task | None = None
        self.is_announced = False

    def submit(self, tasks: Sequence[Task]) -> None:
        """Accept the next task; `reports` performs it."""
        (self.task,) = tasks
        self.is_announced = False

    def reports(self, timeout_s: float) -> list[Report]:
        """Return that the task starts, or perform it and return how it went."""
        task = self.task
        if task is None:  # another process holds what is left
            time.sleep(timeout_s)
            return []
        if not self.is_announced:
            self.is_announced = True
            return [Report("start", task.key)]

        def progress(share: float, text: str) -> None:
            # passed on at once, since nothing is returned before the task has ended
            self.listen(("progress", task, share, text))

        self.task = None
        device = self.orders.device
        with one_thread(device), determinism(device, self.orders.deterministic):
            result = perform_alone(task, self.store, device, progress)
        if isinstance(result, Failure):
            return [Report("failed", task.key, failure=result)]
        return [Report(result, task.key)]

    def cancel(self, key: str) -> None:
        """Forget a task that has not begun; one that is being performed cannot be ended."""
        self.task = None

    def close(self) -> None:
        """Leave nothing behind, since there are no processes."""


@contextlib.contextmanager
def _for_workers() -> Iterator[None]:
    """Set the environment that a new forkserver, and with it all workers, take over."""
    wanted = worker_environment()
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _nameless_main() -> Iterator[None]:
    """Hide the caller's script, which a worker would otherwise import, and run, once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
