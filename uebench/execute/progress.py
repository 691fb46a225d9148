"""Progress with the time left: bars in a notebook and on a terminal, otherwise lines on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from ..common.notebook import in_notebook
from ..common.text import duration, one_line
from ..methods.run import ShowProgress
from .notebook_bars import NotebookBars
from .tasks import Event, Task, effort_of

LINE_EVERY_S = 15.0
"""Shortest time between two plain lines about one task's progress."""


class Pace:
    """How fast one task goes. Its share may fall: a search begins when its network is trained."""

    def __init__(self, now: float) -> None:
        self.start = now
        self.phase = now
        """When the phase began that the share belongs to."""
        self.seen = now
        self.share = 0.0

    def note(self, share: float, now: float) -> None:
        """Take a share of the phase into account; one below the last begins another phase."""
        if share < self.share:
            self.phase = self.seen
        self.share, self.seen = share, now

    def left(self, now: float) -> float | None:
        """Return the seconds that the phase still needs; None before anything of it is done."""
        return (now - self.phase) * (1 - self.share) / self.share if self.share else None


class TimeLeft:
    """Estimates when the tasks of a run will be done, from what has been done of each kind.

    All poisons are taken to need the same time, and all trainings a time that is proportional to
    their epochs and to the effort that their defense declares.
    """

    def __init__(self, tasks: Sequence[Task], jobs: int) -> None:
        self.jobs = jobs
        kinds = ("poison", "cell")
        self.left = {k: sum(_work(task) for task in tasks if task.kind == k) for k in kinds}
        self.done = dict.fromkeys(kinds, 0.0)
        self.spent = dict.fromkeys(kinds, 0.0)
        self.running: dict[str, tuple[Event, Pace]] = {}
        """The last event of each task under way, and its pace."""

    def note(self, event: Event) -> None:
        """Take an event of the run into account."""
        kind, task = event.kind, event.task
        now = time.monotonic()
        pace = Pace(now) if kind == "start" else self.running.get(task.key, (event, Pace(now)))[1]
        if kind in ("start", "progress"):
            pace.note(event.share, now)
            self.running[task.key] = event, pace
        elif kind in ("done", "failed"):
            self.left[task.kind] -= _work(task)
            if self.running.pop(task.key, None):
                self.done[task.kind] += _work(task)
                self.spent[task.kind] += now - pace.start

    @property
    def at_most(self) -> bool:
        """Whether the estimate is a bound, since a task under way may end sooner than its share."""
        return any(event.at_most for event, _ in self.running.values())

    def seconds(self) -> float | None:
        """Return the estimate; None while a kind of task that remains has not been measured."""
        now = time.monotonic()
        left, done, spent = dict(self.left), dict(self.done), dict(self.spent)
        for event, pace in self.running.values():
            kind, work = event.task.kind, event.share * _work(event.task)
            left[kind] -= work
            done[kind] += work
            spent[kind] += now - pace.phase
        kinds = [kind for kind, work in left.items() if work > 1e-9]
        if not all(done[kind] for kind in kinds):
            return None
        return sum(spent[kind] / done[kind] * left[kind] for kind in kinds) / self.jobs


def _work(task: Task) -> float:
    return effort_of(task.cell) * task.cell.protocol.epochs if task.kind == "cell" else 1.0


def left_in_words(seconds: float | None, at_most: bool = False) -> str:
    """Return an estimated time as `about 12 min left`; nothing if it is unknown or 0.

    `at_most` says that it is a bound: a search may end sooner.
    """
    return f"{'at most' if at_most else 'about'} {duration(seconds)} left" if seconds else ""


@contextmanager
def step_display(title: str, quiet: bool) -> Iterator[ShowProgress]:
    """Yield a function that shows how far one long task is."""
    last_line = time.monotonic()
    pace = Pace(last_line)
    console = Console(stderr=True, highlight=False, force_jupyter=False)
    bars = None if quiet else _bars(console)
    bar = bars.add_task(one_line(title), total=100, text="") if bars is not None else None

    def show(share: float, text: str, at_most: bool = False) -> None:
        nonlocal last_line
        now = time.monotonic()
        pace.note(share, now)
        left = left_in_words(pace.left(now), at_most)
        words = ", ".join(filter(None, (one_line(text), left)))
        if bars is not None and bar is not None:
            bars.update(bar, completed=round(100 * share), text=words)
        elif not quiet and now - last_line >= LINE_EVERY_S:
            last_line = now
            print(f"{one_line(title)}: {share:.0%} {words}", file=sys.stderr, flush=True)

    if bars is None:
        yield show
    else:
        with bars:
            yield show
            if bar is not None:
                bars.update(bar, completed=100, text="")


def _bars(console: Console) -> Progress | NotebookBars | None:
    """Return empty bars, or None where there is neither a notebook nor a terminal to show them."""
    if in_notebook():
        return NotebookBars(console)
    if not console.is_terminal:
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        transient=True,
    )


class ProgressDisplay:
    """Shows the events of a run as they happen; use it as a context manager.

    Args:
        total: the number of tasks.
        quiet: whether to show nothing.
        time_left: what estimates the time left; by default it is not shown.
    """

    def __init__(self, total: int, quiet: bool = False, time_left: TimeLeft | None = None) -> None:
        self.total = total
        self.time_left = time_left
        self.quiet = quiet
        self.done = 0
        self.paces: dict[str, Pace] = {}
        self.last_line: dict[str, float] = {}
        self.bars: dict[str, TaskID] = {}
        # rich's highlighter takes minutes for a very long error message, which a plug-in may raise
        self.console = Console(stderr=True, highlight=False, force_jupyter=False)
        self.progress = None if quiet or not total else _bars(self.console)

    def __enter__(self) -> ProgressDisplay:
        if self.progress is not None:
            self.progress.start()
            self.main = self.progress.add_task("matrix", total=self.total, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.update(self.main, text="")  # no time is left
            self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self.time_left is not None:
            self.time_left.note(event)
        if self.quiet:
            return
        kind, task, share, text, at_most = event
        text = one_line(text)  # it may quote the message of somebody's method
        now = time.monotonic()
        if kind == "start":
            self.paces[task.key] = Pace(now)
        elif kind == "progress" and task.key in self.paces:
            pace = self.paces[task.key]
            pace.note(share, now)
            left = left_in_words(pace.left(now), at_most)
            text = ", ".join(filter(None, (text, left)))
        if self.progress is not None:
            self._bar(kind, task, share, text)
        else:
            self._line(kind, task, share, text)

    def _left(self) -> str:
        if self.time_left is None:
            return ""
        return left_in_words(self.time_left.seconds(), self.time_left.at_most)

    def _bar(self, kind: str, task: Task, share: float, text: str) -> None:
        """Show one bar per running task."""
        assert self.progress is not None
        self.progress.update(self.main, text=self._left())
        if kind == "start" and task.key in self.bars:  # its process died and was started again
            self.progress.update(self.bars[task.key], completed=0, text="")
        elif kind == "start":
            bar = self.progress.add_task(f"  {one_line(task.describe())}", total=100, text="")
            self.bars[task.key] = bar
        elif kind == "progress" and task.key in self.bars:
            self.progress.update(self.bars[task.key], completed=round(100 * share), text=text)
        elif kind == "again":
            self.progress.console.print(f"{task.describe()}: {text}", markup=False)
        elif kind in ("done", "failed"):
            if task.key in self.bars:
                self.progress.remove_task(self.bars.pop(task.key))
            self.progress.advance(self.main)
            if kind == "failed":
                self.progress.console.print(
                    one_line(f"failed: {task.describe()}: {text}"), markup=False, style="red"
                )

    def _line(self, kind: str, task: Task, share: float, text: str) -> None:
        """Print a line for an event, but not for every small step of progress."""
        now = time.monotonic()
        if kind == "start":
            self.last_line[task.key] = now
            return
        if kind == "progress":
            if now - self.last_line.get(task.key, now) >= LINE_EVERY_S:
                self.last_line[task.key] = now
                self._print(f"        {task.describe()}: {share:.0%} {text}")
            return
        if kind == "again":
            self._print(f"        {task.describe()}: {text}")
            return
        self.done += 1
        seconds = now - self.paces[task.key].start if task.key in self.paces else 0.0
        outcome = f"{seconds:.1f} s" if kind == "done" else f"failed: {text}"
        left = f", {self._left()}" if self.done < self.total and self._left() else ""
        self._print(f"[{self.done}/{self.total}] {task.describe()}: {outcome}{left}")

    @staticmethod
    def _print(text: str) -> None:
        indent = " " * (len(text) - len(text.lstrip(" ")))
        print(f"{indent}{one_line(text)}", file=sys.stderr, flush=True)
