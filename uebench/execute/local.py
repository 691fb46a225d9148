"""The local executor: one process per task, as many at a time as there are cores or GPUs.

Workers are forked from a forkserver that has already loaded torch, so a task starts within a few
hundredths of a second. Each worker leads a process group of its own, so that the processes that a
method starts can be killed together with it.
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
from .tasks import Event, Listener, Task, perform_alone, plain

NO_FORKSERVER = (ConnectionError, EOFError)
"""What starting a process raises if the forkserver is dead or dies in the meantime."""

PRELOADED = ["uebench.execute.worker"]
"""What a forkserver imports when it starts, so that no worker has to."""

START_PATIENCE_S = 10.0
"""Longest wait for a forkserver that accepts connections."""


class Local(Executor):
    """Processes on this machine."""

    name: ClassVar[str] = "local"
    title: ClassVar[str] = "processes on this machine"

    def devices(self, asked: str) -> list[str]:
        """Return this machine's devices."""
        return usable_devices(asked)

    def jobs(self, devices: list[str]) -> int:
        """Return one per GPU, or else one per core."""
        return len(devices) if devices[0] != "cpu" else usable_cores()

    def open(
        self, orders: Orders, devices: list[str], jobs: int, time_limit_s: float | None
    ) -> LocalPool:
        """Return a pool of processes."""
        return LocalPool(orders, devices, jobs)


@dataclass
class Worker:
    """A running process with its task, its device and our end of its pipe."""

    task: Task
    device: str
    process: ForkServerProcess
    inbox: Connection
    last: Report | None = None
    """Its final report, which is passed on only when the process has ended."""

    def stop(self) -> None:
        """Kill the process and everything it has started."""
        self.process.kill()
        self.process.join(10)
        self.clean_up()

    def clean_up(self) -> None:
        """Close the pipe of a process that has ended, and kill what it has left behind."""
        self.inbox.close()
        with contextlib.suppress(OSError):
            # a method may have forked. The number of a process group stays reserved as long as the
            # group has a member, so this cannot hit an unrelated process
            os.killpg(self.process.pid or 0, signal.SIGKILL)


class LocalPool(Pool):
    """Processes on this machine, spread over its devices."""

    def __init__(self, orders: Orders, devices: list[str], jobs: int) -> None:
        self.orders = replace(orders, sharers=jobs)
        self.slots = jobs
        self.places = [devices[i % len(devices)] for i in range(jobs)]
        self.workers: dict[str, Worker] = {}
        self.queued: list[Report] = []
        self.patience_s = START_PATIENCE_S

    def submit(self, tasks: Sequence[Task]) -> None:
        """Start a process for each task, on the device that has the fewest of them."""
        for task in tasks:
            used = [worker.device for worker in self.workers.values()]
            device = min(self.places, key=used.count)
            orders = replace(self.orders, device=device)
            try:
                self.workers[task.key] = _start(task, orders, self.patience_s)
            except NO_FORKSERVER as error:
                why = f"no worker process can be started: {error}"
                self.queued.append(Report("died", task.key, text=why))
                # the tasks that follow do not wait as well, until a start has succeeded
                self.patience_s = 0.0
            else:
                self.queued.append(Report("start", task.key))
                self.patience_s = START_PATIENCE_S

    def reports(self, timeout_s: float) -> list[Report]:
        """Return what the workers have sent, and how those that have ended did."""
        reports, self.queued = self.queued, []
        workers = list(self.workers.values())
        waited_for = [w.inbox for w in workers] + [w.process.sentinel for w in workers]
        ready = wait(waited_for, 0 if reports else timeout_s)
        for worker in workers:
            if worker.inbox in ready or worker.process.sentinel in ready:
                reports += self._read(worker)
            if worker.process.sentinel in ready:
                # it may have written more between that read and its end
                reports += self._read(worker)
                reports.append(self._ended(worker))
        return reports

    def cancel(self, key: str) -> None:
        """Kill the worker of a task."""
        self.workers.pop(key).stop()

    def close(self) -> None:
        """Kill the workers that still run."""
        for worker in self.workers.values():  # all at once, before waiting for any of them
            worker.process.kill()
        for worker in self.workers.values():
            worker.stop()
        self.workers.clear()

    @staticmethod
    def _read(worker: Worker) -> list[Report]:
        """Return the progress that a worker has sent; keep its final report for later."""
        progress = []
        with contextlib.suppress(EOFError, OSError):
            while worker.inbox.poll():
                report = Report(*worker.inbox.recv())
                if report.kind == "progress":
                    progress.append(report)
                else:
                    worker.last = report
        return progress

    def _ended(self, worker: Worker) -> Report:
        """Return the final report of a worker, or that it died without one."""
        worker.process.join()
        worker.clean_up()
        del self.workers[worker.task.key]
        if worker.last is not None:
            return worker.last
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Report("died", worker.task.key, text=how, killed=code == -signal.SIGKILL)


def _start(task: Task, orders: Orders, patience_s: float) -> Worker:
    """Start a process for a task, waiting for a new forkserver if the old one has been killed.

    A killed forkserver refuses connections until the system has reaped it; only then does
    multiprocessing start another one.
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
    """Start a process for a task; raise one of NO_FORKSERVER if that is not possible yet."""
    from .worker import work

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    inbox, outbox = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(plain(task), orders, outbox), daemon=True)
    with outbox:
        try:
            # this may start a forkserver, which passes its environment on to all workers
            with _worker_variables(), hidden_main():
                process.start()
        except BaseException:
            inbox.close()
            raise
    return Worker(task, orders.device, process, inbox)


class InProcessPool(Pool):
    """Performs tasks in this process, one at a time.

    It serves methods that were defined in an interactive session and exist in no other process.
    """

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
        if task is None:  # another process is computing everything that is left
            time.sleep(timeout_s)
            return []
        if not self.is_announced:
            self.is_announced = True
            return [Report("start", task.key)]

        def progress(share: float, text: str, at_most: bool = False) -> None:
            # passed on directly, because nothing is returned before the task has ended
            self.listen(Event("progress", task, share, text, at_most))

        self.task = None
        device = self.orders.device
        with one_thread(device), determinism(device, self.orders.deterministic):
            result = perform_alone(task, self.store, device, progress)
        if isinstance(result, Failure):
            return [Report("failed", task.key, failure=result)]
        return [Report(result, task.key)]

    def cancel(self, key: str) -> None:
        """Forget a task that has not begun; one that is being performed cannot be stopped."""
        self.task = None

    def close(self) -> None:
        """Do nothing, since there are no processes to stop."""


@contextlib.contextmanager
def _worker_variables() -> Iterator[None]:
    """Set the environment variables that a new forkserver and all its workers inherit."""
    variables = worker_environment()
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def hidden_main() -> Iterator[None]:
    """Hide the caller's script, which a worker would otherwise import and thereby run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
