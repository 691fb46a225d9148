"""The local executor: a process a task, as many at a time as there are cores or GPU slots.

Workers come from a forkserver that has torch loaded, so a task starts in some hundredths of a
second. A worker that dies is started again once; a task that fails harms only what waits for it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from ..registry import plugin_files
from ..store import Store
from .tasks import Failure, Listener, Task, perform, plain

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc gives large blocks back at once by default, and every batch pays for fresh pages:
    # without this a training step took 1.2 times as long (2 cores, AVX2, torch 2.15, one run each)
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}
RETRIES = 1
"""How often a task whose process died is started again."""


@dataclass
class Worker:
    """A running process, the end of its pipe, its task and its device."""

    task: Task
    device: str
    process: ForkServerProcess
    inbox: Connection
    last: tuple[str, Any] | None = None


@dataclass
class Queue:
    """What is still to be done, what runs, and what failed."""

    waiting: list[Task]
    running: list[Worker] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)

    def next_ready(self) -> Task | None:
        """Return the first task whose poison is not still being crafted, and take it out."""
        busy = {t.key for t in self.waiting if t.kind == "poison"}
        busy |= {w.task.key for w in self.running if w.task.kind == "poison"}
        for i, task in enumerate(self.waiting):
            if task.kind == "poison" or task.cell.poison.key not in busy:
                return self.waiting.pop(i)
        return None

    def give_up(self, task: Task, why: Failure) -> list[tuple[Task, Failure]]:
        """Record a failure; return it with those of the cells that waited for this poison."""
        lost = [(task, why)]
        if task.kind == "poison":
            stuck = [t for t in self.waiting if t.cell.poison.key == task.key]
            self.waiting = [t for t in self.waiting if t.cell.poison.key != task.key]
            told = Failure(f"crafting failed: {why.error}", why.traceback)
            lost += [(t, told) for t in stuck]
        self.failed |= {t.key: f for t, f in lost}
        return lost


def run_tasks(
    tasks: list[Task], store: Store, devices: list[str], jobs: int, listen: Listener
) -> dict[str, Failure]:
    """Do all tasks, `jobs` at a time, spread over devices; return the failures by key.

    Raises:
        KeyboardInterrupt: after the workers were stopped; what they had finished is kept.
    """
    queue = Queue(list(tasks))
    if any(
        "session" in (t.cell.poison.attack.info.origin, t.cell.defense.info.origin) for t in tasks
    ):
        return _run_here(queue, store, devices[0], listen)
    context = _forkserver()
    slots = [devices[i % len(devices)] for i in range(jobs)]
    try:
        while queue.waiting or queue.running:
            while len(queue.running) < jobs and (task := queue.next_ready()) is not None:
                taken = [w.device for w in queue.running]
                device = min(slots, key=taken.count)
                queue.running.append(_start(context, task, store, device))
                listen(("start", task, 0.0, ""))
            _listen_once(queue, listen)
    finally:
        for worker in queue.running:
            worker.process.terminate()
        for worker in queue.running:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
    return queue.failed


def _listen_once(queue: Queue, listen: Listener) -> None:
    """Wait for the next report or death and deal with it."""
    ready = wait([w.inbox for w in queue.running] + [w.process.sentinel for w in queue.running])
    for worker in list(queue.running):
        if worker.inbox in ready or worker.process.sentinel in ready:
            _read(worker, listen)
        if worker.process.sentinel in ready:
            _read(worker, listen)
            queue.running.remove(worker)
            _ended(queue, worker, listen)


def _read(worker: Worker, listen: Listener) -> None:
    """Take in all that a worker has said so far."""
    with contextlib.suppress(EOFError, OSError):
        while worker.inbox.poll():
            kind, content, text = worker.inbox.recv()
            if kind == "progress":
                listen(("progress", worker.task, content, text))
            else:
                worker.last = (kind, content)


def _ended(queue: Queue, worker: Worker, listen: Listener) -> None:
    """Deal with a process that has ended: done, failed, or died and to be started again."""
    worker.process.join()
    worker.inbox.close()
    task = worker.task
    if worker.last is not None and worker.last[0] == "done":
        listen(("done", task, 1.0, ""))
        return
    if worker.last is not None:
        why: Failure = worker.last[1]
    else:
        code = worker.process.exitcode or 0
        queue.deaths[task.key] = queue.deaths.get(task.key, 0) + 1
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if queue.deaths[task.key] <= RETRIES:
            listen(("progress", task, 0.0, f"the process died ({how}); starting it again"))
            queue.waiting.insert(0, task)
            return
        memory = "; it may have run out of memory" if code == -9 else ""
        why = Failure(f"the process died {queue.deaths[task.key]} times ({how}){memory}")
    for lost, reason in queue.give_up(task, why):
        listen(("failed", lost, 1.0, reason.error))


def _start(context: Any, task: Task, store: Store, device: str) -> Worker:
    """Start a process for a task."""
    from .worker import work

    inbox, outbox = context.Pipe(duplex=False)
    plugins = [str(path) for path in plugin_files()]
    process = context.Process(
        target=work, args=(plain(task), str(store.root), device, plugins, outbox), daemon=True
    )
    with _nameless_main():
        process.start()
    outbox.close()
    return Worker(task, device, process, inbox)


def _run_here(queue: Queue, store: Store, device: str, listen: Listener) -> dict[str, Failure]:
    """Do the tasks in this process, one by one: methods of a session exist nowhere else."""
    from .worker import one_thread

    with one_thread(device):
        while (task := queue.next_ready()) is not None:
            listen(("start", task, 0.0, ""))
            current = task

            def progress(fraction: float, text: str, task: Task = current) -> None:
                listen(("progress", task, fraction, text))

            why = perform(task, store, device, progress)
            if why is None:
                listen(("done", task, 1.0, ""))
                continue
            for lost, reason in queue.give_up(task, why):
                listen(("failed", lost, 1.0, reason.error))
    return queue.failed


def _forkserver() -> Any:
    """Return the context whose forkserver has torch loaded, with one thread a process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uebench.execute.worker"])
    wanted = WORKER_ENVIRONMENT
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return context


@contextlib.contextmanager
def _nameless_main() -> Iterator[None]:
    """Hide the caller's script, which a worker would otherwise import, and run, once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def usable_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1
