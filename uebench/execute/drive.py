"""Drive a pool through the tasks of a run: order, retries, time limits and failures.

A cell waits for its poison. A task whose process died is started again up to `RETRIES` times, and
one that was lost with its machine up to `LOSS_RETRIES` times. A failure affects only the tasks that
depend on it. Only the monotonic clock is read, because the wall clock may jump. A full disk is not
the fault of any task: it ends the run without failing the tasks that were running, and the next run
resumes them.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator

from ..cells.failure import Failure
from ..store.store import FullError
from .agenda import Agenda
from .base import Pool, Report
from .tasks import Event, Listener, Task

RETRIES = 1
"""How often a task is started again after its process died."""
LOSS_RETRIES = 5
"""How often a task is started again after its machine failed or a queue removed it."""


def run_tasks(
    tasks: list[Task],
    pool: Pool,
    listen: Listener,
    time_limit_s: float | None = None,
    stop_at: float = math.inf,
) -> dict[str, Failure]:
    """Perform all tasks in a pool, close it, and return the failures by key.

    Tasks that still run at `stop_at`, on the monotonic clock, are stopped. They do not count as
    failures, and the next run resumes them from their checkpoints.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C; the workers have been stopped, and finished work
            is in the store.
        FullError: a disk is full; the same holds.
    """
    agenda = Agenda(tasks)
    try:
        while not agenda.is_finished and time.monotonic() < stop_at:
            ready = agenda.take(pool.slots - len(agenda.running))
            if ready:
                pool.submit(ready)
            for report in pool.reports(agenda.patience(stop_at)):
                if report.key in agenda.running:
                    _handle(report, agenda, pool, listen, time_limit_s)
            _end_overdue(agenda, pool, listen, time_limit_s)
    finally:
        with _ctrl_c_ignored():
            pool.close()
    return agenda.failed


def _handle(
    report: Report, agenda: Agenda, pool: Pool, listen: Listener, time_limit_s: float | None
) -> None:
    """Act on a pool's report about a running task."""
    key, task = report.key, agenda.running[report.key]
    match report.kind:
        case "start":
            if time_limit_s is not None:
                agenda.due[key] = time.monotonic() + time_limit_s
            listen(Event("start", task))
        case "progress":
            listen(Event("progress", task, report.share, report.text, report.at_most))
        case "done":
            agenda.finish(key)
            listen(Event("done", task, 1.0))
        case "failed":
            why = report.failure or Failure("no reason was given")
            if why.full:
                raise FullError(why.error)
            _give_up(agenda, key, why, listen)
        case "busy":
            agenda.again(key, pool.busy_wait_s)
            listen(Event("progress", task, text="waiting for another run that is computing it"))
        case "died":
            _after_death(report, agenda, pool, listen)
        case "lost":
            agenda.losses[key] += 1
            if agenda.losses[key] > LOSS_RETRIES:
                why = Failure(f"it was lost {agenda.losses[key]} times ({report.text})")
                _give_up(agenda, key, why, listen)
                return
            agenda.again(key)
            listen(Event("again", task, text=f"lost ({report.text}); starting it again"))


def _after_death(report: Report, agenda: Agenda, pool: Pool, listen: Listener) -> None:
    """Restart a task whose process died, or give it up."""
    key, task, how = report.key, agenda.running[report.key], report.text
    agenda.deaths[key] += 1
    if agenda.deaths[key] <= RETRIES:
        agenda.again(key)
        listen(Event("again", task, text=f"the process died ({how}); starting it again"))
        return
    # a worker on a full disk dies without being able to report why, so rule that out first
    pool.check()
    # the kernel kills a process that needs more memory than the machine has
    memory = "; it may have run out of memory" if report.killed else ""
    why = Failure(f"the process died {agenda.deaths[key]} times ({how}){memory}")
    _give_up(agenda, key, why, listen)


def _end_overdue(agenda: Agenda, pool: Pool, listen: Listener, limit_s: float | None) -> None:
    """Stop and fail the tasks that have exceeded their time limit."""
    now = time.monotonic()
    for key in [key for key, moment in agenda.due.items() if moment <= now]:
        pool.cancel(key)
        why = f"it took longer than its time limit of {(limit_s or 0) / 60:g} min (--time-limit)"
        _give_up(agenda, key, Failure(why), listen)


def _give_up(agenda: Agenda, key: str, why: Failure, listen: Listener) -> None:
    """Record and announce a failure and those that follow from it."""
    for task, reason in agenda.give_up(key, why):
        listen(Event("failed", task, 1.0, reason.error))


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignore Ctrl-C while workers are being stopped, so that none is left behind."""
    # Python sets signal handlers in the main thread only; Ctrl-C never reaches another one
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
