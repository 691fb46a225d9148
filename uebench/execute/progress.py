"""Progress on stderr: bars on a terminal, otherwise one line per event."""

from __future__ import annotations

import sys
import time
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

from ..common.text import one_line
from .tasks import Event, Task

LINE_EVERY_S = 15.0
"""Shortest time between two plain lines about one task's progress."""


class ProgressDisplay:
    """Shows the events of a run as they happen; use it as a context manager."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total = total
        self.quiet = quiet
        self.done = 0
        self.started: dict[str, float] = {}
        self.last_line: dict[str, float] = {}
        self.bars: dict[str, TaskID] = {}
        # rich's highlighter takes minutes for a very long error message, which a plug-in may raise
        self.console = Console(stderr=True, highlight=False)
        self.progress: Progress | None = None
        if self.console.is_terminal and not quiet:
            self.progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=self.console,
                transient=True,
            )

    def __enter__(self) -> ProgressDisplay:
        if self.progress is not None:
            self.progress.start()
            self.main = self.progress.add_task("matrix", total=self.total, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self.quiet:
            return
        kind, task, share, text = event
        text = one_line(text)  # it may quote the message of somebody's method
        if self.progress is not None:
            self._bar(kind, task, share, text)
        else:
            self._line(kind, task, share, text)

    def _bar(self, kind: str, task: Task, share: float, text: str) -> None:
        """Show one bar per running task."""
        assert self.progress is not None
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
            self.started[task.key] = self.last_line[task.key] = now
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
        seconds = now - self.started.get(task.key, now)
        outcome = f"{seconds:.1f} s" if kind == "done" else f"failed: {text}"
        self._print(f"[{self.done}/{self.total}] {task.describe()}: {outcome}")

    @staticmethod
    def _print(text: str) -> None:
        indent = " " * (len(text) - len(text.lstrip(" ")))
        print(f"{indent}{one_line(text)}", file=sys.stderr, flush=True)
