"""What is still to be done in a run, what is running, and what failed.

A plan may have 100,000 cells, and the driver consults the agenda several times a second, so the
cost of one look depends on what has become ready or due since the last one and not on how many
tasks wait. Tasks that can start wait in a heap in the order of the plan, cells whose poison is
still being crafted wait in that poison's list, and tasks that are retried later wait in a heap
sorted by time.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter

from ..cells.failure import Failure
from .tasks import Task

PATIENCE_S = 5.0
"""Longest wait for a report; a pool that has something to report returns immediately."""
SHORTEST_WAIT_S = 0.05
"""Shortest wait for a report, so that a deadline that is almost due does not cause a busy loop."""


class Agenda:
    """The tasks of a run: waiting, running and failed. Times are read from the monotonic clock.

    Attributes:
        running: the tasks that the pool is working on, by key.
        failed: the reason why each abandoned task failed, by key.
        deaths: how often each task's process has died, by key.
        losses: how often each task was lost because its machine failed or a queue removed it.
        due: when the time limit of each running task expires, by key.
    """

    def __init__(self, tasks: list[Task]) -> None:
        self.running: dict[str, Task] = {}
        self.failed: dict[str, Failure] = {}
        self.deaths: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        self.due: dict[str, float] = {}
        self._ready: list[tuple[int, str]] = []
        self._later: list[tuple[float, int, str]] = []
        self._blocked: dict[str, list[str]] = {t.key: [] for t in tasks if t.kind == "poison"}
        self._n_needs: dict[str, int] = {}
        self._tasks = {task.key: task for task in tasks}
        self._ranks = {key: rank for rank, key in enumerate(self._tasks)}
        self._first_rank = 0
        for key, task in self._tasks.items():
            needs = [poison for poison in task.needs if poison in self._blocked]
            for poison in needs:
                self._blocked[poison].append(key)
            if needs:
                self._n_needs[key] = len(needs)
            else:
                # ranks are appended in rising order, so the list is already a valid heap
                self._ready.append((self._ranks[key], key))

    @property
    def is_finished(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not (self._ready or self._later or self.running)

    def take(self, n_free: int) -> list[Task]:
        """Return at most `n_free` tasks that can start; they count as running from now on."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, rank, key = heapq.heappop(self._later)
            heapq.heappush(self._ready, (rank, key))
        tasks = [
            self._tasks[heapq.heappop(self._ready)[1]]
            for _ in range(min(max(0, n_free), len(self._ready)))
        ]
        self.running |= {task.key: task for task in tasks}
        return tasks

    def again(self, key: str, after_s: float = 0.0) -> None:
        """Put a running task back at the front of the queue, to be retried after `after_s` seconds.

        It goes to the front because it may be a poison, for which many cells wait and which may
        take longer than any of them.
        """
        self._remove(key)
        self._first_rank -= 1
        if after_s:
            heapq.heappush(self._later, (time.monotonic() + after_s, self._first_rank, key))
        else:
            heapq.heappush(self._ready, (self._first_rank, key))

    def finish(self, key: str) -> None:
        """Remove a running task that is done and release the tasks that waited for it last."""
        self._remove(key)
        for waiting in self._blocked.pop(key, ()):
            self._n_needs[waiting] -= 1
            if not self._n_needs[waiting] and waiting not in self.failed:
                heapq.heappush(self._ready, (self._ranks[waiting], waiting))

    def give_up(self, key: str, why: Failure) -> list[tuple[Task, Failure]]:
        """Record a failure; return it together with those of the tasks that needed this poison."""
        given_up = [(self._remove(key), why)]
        self.failed[key] = why
        reason = why.error if why.names_method else f"crafting failed: {why.error}"
        consequence = Failure(reason, why.traceback, names_method=why.names_method)
        for task, _ in given_up:  # a mixture fails with one of its parts, and its cells with it
            for waiting in self._blocked.pop(task.key, ()):
                if waiting not in self.failed:
                    self.failed[waiting] = consequence
                    given_up.append((self._tasks[waiting], consequence))
        return given_up

    def patience(self, stop_at: float = math.inf) -> float:
        """Return how many seconds to wait for reports before something else is due."""
        now = time.monotonic()
        moments = [stop_at, *self.due.values()]
        if self._later:
            moments.append(self._later[0][0])
        # the driver checks for exceeded time limits after each wait, so one that has already
        # passed must not shorten the wait; the end of the whole run must
        waits = [moment - now for moment in moments if moment > now or moment == stop_at]
        return max(SHORTEST_WAIT_S, min([PATIENCE_S, *waits]))

    def _remove(self, key: str) -> Task:
        self.due.pop(key, None)
        return self.running.pop(key)
