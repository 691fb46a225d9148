"""Progress on stderr: bars on a terminal, one line an event elsewhere."""

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
"""Least time between two plain lines about one task's progress."""


class ProgressDisplay:
    """Listens to an executor and shows what goes on; use it as a context."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total = total
        self.quiet = quiet
        self.done = 0
        self.started: dict[str, float] = {}
        self.told: dict[str, float] = {}
        self.bars: dict[str, TaskID] = {}
        # rich's highlighter takes minutes for a long error message that a stranger's method wrote
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
        text = one_line(text)  # it may quote what strangers wrote
        if self.progress is not None:
            self._bar(kind, task, share, text)
        else:
            self._line(kind, task, share, text)

    def _bar(self, kind: str, task: Task, share: float, text: str) -> None:
        """Keep a bar a running task."""
        assert self.progress is not None
        if kind == "start" and task.key in self.bars:  # it died and is begun again
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
        """Print a line for what is worth one."""
        now = time.monotonic()
        if kind == "start":
            self.started[task.key] = self.told[task.key] = now
            return
        if kind == "progress":
            if now - self.told.get(task.key, now) >= LINE_EVERY_S:
                self.told[task.key] = now
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
