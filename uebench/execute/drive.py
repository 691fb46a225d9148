"""Drives a pool through the tasks of a run: order, retries, time limits, and what is given up.

A cell waits for its poison. A task whose process died is started again `RETRIES` times, one that
was taken away with its machine `LOST` times. What fails harms only what waits for it. Nothing here
looks at the wall clock, which may jump. A full disk is no task's fault and ends the run: what was
in work is not failed, and the next run goes on with it.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..cells.failure import Failure
from ..store.store import FullError
from .base import Pool, Report
from .tasks import Listener, Task

RETRIES = 1
"""How often a task whose process died is started again."""
LOST = 5
"""How often a task is started again whose machine, or place in a queue, was lost."""
PATIENCE_S = 5.0
"""Longest wait for a report; a pool that has something to say returns at once."""


@dataclass
class Agenda:
    """What is still to be done, what runs, and what failed."""

    waiting: list[Task]
    running: dict[str, Task] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    not_before: dict[str, float] = field(default_factory=dict)
    """When a task may be tried again that another driver holds, on the monotonic clock."""
    due: dict[str, float] = field(default_factory=dict)
    """When the time limit of a running task ends, on the monotonic clock."""

    def take(self, room: int) -> list[Task]:
        """Return at most `room` tasks whose poison is there, which run from now on."""
        now = time.monotonic()
        busy = {t.key for t in (*self.waiting, *self.running.values()) if t.kind == "poison"}
        ready = [
            task
            for task in self.waiting
            if (task.kind == "poison" or task.cell.poison.key not in busy)
            and self.not_before.get(task.key, now) <= now
        ][: max(0, room)]
        taken = {task.key for task in ready}
        self.waiting = [task for task in self.waiting if task.key not in taken]
        self.running |= {task.key: task for task in ready}
        return ready

    def again(self, key: str, after_s: float = 0.0) -> Task:
        """Put a running task back, first of all; it is not tried again for `after_s` seconds.

        First, since cells wait for a poison that another driver holds, perhaps the longest task.
        """
        task = self.end(key)
        if after_s:
            self.not_before[key] = time.monotonic() + after_s
        self.waiting.insert(0, task)
        return task

    def end(self, key: str) -> Task:
        """Take a task out of those that run."""
        self.due.pop(key, None)
        return self.running.pop(key)

    def give_up(self, key: str, why: Failure) -> list[tuple[Task, Failure]]:
        """Record a failure; return it with those of the cells that waited for this poison."""
        task = self.end(key)
        lost = [(task, why)]
        if task.kind == "poison":
            stuck = [t for t in self.waiting if t.cell.poison.key == task.key]
            self.waiting = [t for t in self.waiting if t.cell.poison.key != task.key]
            told = Failure(f"crafting failed: {why.error}", why.traceback)
            lost += [(t, told) for t in stuck]
        self.failed |= {t.key: f for t, f in lost}
        return lost

    def patience(self, stop_at: float = math.inf) -> float:
        """Return how long to wait for reports until something else is due."""
        moments = [*self.due.values(), *(self.not_before.get(t.key, 0.0) for t in self.waiting)]
        now = time.monotonic()
        later = [moment - now for moment in moments if moment > now]
        return max(0.05, min([PATIENCE_S, stop_at - now, *later]))


def run_tasks(
    tasks: list[Task],
    pool: Pool,
    listen: Listener,
    time_limit_s: float | None = None,
    stop_at: float = math.inf,
) -> dict[str, Failure]:
    """Do all tasks in a pool, close it, and return the failures by key.

    At `stop_at`, on the monotonic clock, what still runs is ended: it goes on from its checkpoint
    another time, and is no failure.

    Raises:
        KeyboardInterrupt: after the workers were stopped; what they had finished is kept.
        FullError: a disk is full; likewise.
    """
    agenda = Agenda(list(tasks))
    try:
        while (agenda.waiting or agenda.running) and time.monotonic() < stop_at:
            ready = agenda.take(pool.slots - len(agenda.running))
            if ready:
                pool.submit(ready)
            for report in pool.reports(agenda.patience(stop_at)):
                if report.key in agenda.running:
                    _deal_with(report, agenda, pool, listen, time_limit_s)
            _end_overdue(agenda, pool, listen, time_limit_s)
    finally:
        with _undisturbed():
            pool.close()
    return agenda.failed


def _deal_with(
    report: Report, agenda: Agenda, pool: Pool, listen: Listener, time_limit_s: float | None
) -> None:
    """Deal with what a pool tells of a running task."""
    key, task = report.key, agenda.running[report.key]
    match report.kind:
        case "start":
            if time_limit_s is not None:
                agenda.due[key] = time.monotonic() + time_limit_s
            listen(("start", task, 0.0, ""))
        case "progress":
            listen(("progress", task, report.share, report.text))
        case "done":
            agenda.end(key)
            listen(("done", task, 1.0, ""))
        case "failed":
            why = report.failure or Failure("no reason was given")
            if why.full:
                raise FullError(why.error)
            _give_up(agenda, key, why, listen)
        case "busy":
            agenda.again(key, pool.busy_wait_s)
            listen(("progress", task, 0.0, "another run computes it; waiting"))
        case "died":
            _after_death(report, agenda, pool, listen)
        case "lost":
            agenda.losses[key] += 1
            if agenda.losses[key] > LOST:
                how = f"it was lost {agenda.losses[key]} times ({report.text})"
                _give_up(agenda, key, Failure(how), listen)
                return
            agenda.again(key)
            listen(("again", task, 0.0, f"lost ({report.text}); starting it again"))


def _after_death(report: Report, agenda: Agenda, pool: Pool, listen: Listener) -> None:
    """Start a task again whose process died, or give it up."""
    key, task, how = report.key, agenda.running[report.key], report.text
    agenda.deaths[key] += 1
    if agenda.deaths[key] <= RETRIES:
        agenda.again(key)
        listen(("again", task, 0.0, f"the process died ({how}); starting it again"))
        return
    pool.check()
    memory = "; it may have run out of memory" if "signal 9" in how else ""
    why = Failure(f"the process died {agenda.deaths[key]} times ({how}){memory}")
    _give_up(agenda, key, why, listen)


def _end_overdue(agenda: Agenda, pool: Pool, listen: Listener, limit_s: float | None) -> None:
    """End the tasks that have taken longer than they may."""
    now = time.monotonic()
    for key in [key for key, moment in agenda.due.items() if moment <= now]:
        pool.cancel(key)
        why = f"it took longer than its time limit of {(limit_s or 0) / 60:g} min (--time-limit)"
        _give_up(agenda, key, Failure(why), listen)


def _give_up(agenda: Agenda, key: str, why: Failure, listen: Listener) -> None:
    """Record and tell a failure and those that follow from it."""
    for task, reason in agenda.give_up(key, why):
        listen(("failed", task, 1.0, reason.error))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold off Ctrl-C while workers are being stopped, so that none is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
