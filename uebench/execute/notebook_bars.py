"""Progress bars in a notebook: plain HTML that replaces itself, which every front end can show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape

from rich.console import Console
from rich.progress import TaskID

from ..common.notebook import display
from ..common.text import duration

REDRAW_EVERY_S = 0.25
"""Shortest time between two drawings; a front end is slower than a training step."""


@dataclass
class _Bar:
    title: str
    total: float
    text: str
    done: float = 0.0


class NotebookBars:
    """Bars with those methods of `rich.progress.Progress` that this package uses.

    rich's own bars need ipywidgets in a notebook, and complain where these are missing.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: dict[TaskID, _Bar] = {}
        self._n_added = 0
        self._start = self._drawn = time.monotonic()
        self._handle = display(self, display_id=True)

    def __enter__(self) -> NotebookBars:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Do nothing: the bars are there as soon as they are made."""

    def stop(self) -> None:
        """Draw the bars a last time."""
        self._draw(at_once=True)

    def add_task(self, description: str, total: float, text: str = "") -> TaskID:
        """Add a bar and return its number."""
        self._n_added += 1
        number = TaskID(self._n_added)
        self._bars[number] = _Bar(description, total, text)
        self._draw()
        return number

    def update(
        self, number: TaskID, completed: float | None = None, text: str | None = None
    ) -> None:
        """Change how far a bar is, or the text next to it."""
        bar = self._bars[number]
        bar.done = bar.done if completed is None else completed
        bar.text = bar.text if text is None else text
        self._draw()

    def advance(self, number: TaskID) -> None:
        """Move a bar on by one."""
        self.update(number, self._bars[number].done + 1)

    def remove_task(self, number: TaskID) -> None:
        """Remove a bar."""
        del self._bars[number]
        self._draw()

    def __repr__(self) -> str:
        return "\n".join(f"{bar.title}: {self._words(bar)}" for bar in self._bars.values())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align: left">{escape(bar.title)}</td>'
            f'<td><progress value="{bar.done:g}" max="{bar.total or 1:g}"></progress></td>'
            f'<td style="text-align: left">{escape(self._words(bar))}</td></tr>'
            for bar in self._bars.values()
        )
        return f"<table>{rows}</table>"

    def _words(self, bar: _Bar) -> str:
        seconds = duration(time.monotonic() - self._start)
        return ", ".join(filter(None, (f"{bar.done:g} of {bar.total:g}", seconds, bar.text)))

    def _draw(self, at_once: bool = False) -> None:
        now = time.monotonic()
        # a front end that cannot replace what it shows has no handle, and keeps the first drawing
        if self._handle is not None and (at_once or now - self._drawn >= REDRAW_EVERY_S):
            self._drawn = now
            self._handle.update(self)
