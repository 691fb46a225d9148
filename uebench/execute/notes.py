"""Reports from workers on other machines, as lines of JSON in the store's folder.

All machines share the store anyway. Each file has one writer, an attempt at a task, and one reader,
the driver, which continues where it last stopped reading; nothing depends on the modification time
of a file. The folder of a driver that was killed is removed by a later one (`store/prune.py`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cells.failure import Failure
from ..store.owner import REFRESH_S, refresh, sign
from ..store.prune import NOTES
from ..store.store import StoreError
from .base import Orders, Report

NOTE_EVERY_S = 1.0
"""Shortest time between two lines of progress about one task."""


class Notes:
    """The notes on all tasks of one run, as the driver reads them."""

    def __init__(self, store: str) -> None:
        self.folder = Path(store) / NOTES / uuid.uuid4().hex[:12]
        self._refreshed = time.monotonic()
        try:
            self.folder.mkdir(parents=True)
            sign(self.folder)
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {store}: {error.strerror or error}; "
                "set UEBENCH_HOME to a folder that can be written"
            ) from error
        self._files: dict[str, Path] = {}
        self._read: dict[str, int] = {}
        self._n_begun = 0

    def begin(self, key: str) -> str:
        """Return the path of a new note for a task that is started, or started again."""
        self._n_begun += 1
        self._files[key] = self.folder / f"{key[:16]}-{self._n_begun}.jsonl"
        self._read[key] = 0
        return str(self._files[key])

    def news(self, key: str) -> list[Report]:
        """Return a task's new reports; a line that is only half written is left for next time."""
        if time.monotonic() - self._refreshed > REFRESH_S:
            self._refreshed = time.monotonic()
            refresh(self.folder)
        try:
            with self._files[key].open("rb") as file:
                file.seek(self._read[key])
                text, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return []  # the task has not begun, or its note is not visible on this machine yet
        self._read[key] += len(text) + len(end)
        reports = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                fields = json.loads(line)
                why = fields.pop("failure")
                reports.append(Report(**fields, failure=Failure(**why) if why else None))
        return reports

    def remove(self) -> None:
        """Remove the notes after the run has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def append(path: str, report: Report) -> None:
    """Append a report to a note.

    If the folder is gone, its driver has ended and nobody reads the note; the work goes on.
    """
    fields = report._asdict() | {"failure": asdict(report.failure) if report.failure else None}
    with contextlib.suppress(FileNotFoundError), Path(path).open("a") as file:
        file.write(json.dumps(fields) + "\n")


def remote_work(data: dict[str, Any], orders: Orders, note: str) -> None:
    """Perform one task on another machine and write what happens into a note."""
    append(note, Report("start", str(data["key"])))
    # not imported by the driver: it takes seconds and changes the environment of its process
    from .worker import perform_here

    perform_here(data, orders, lambda report: append(note, report), NOTE_EVERY_S)
