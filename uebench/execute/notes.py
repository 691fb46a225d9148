"""How a worker on another machine tells what happens: lines of JSON in the store's folder.

The store is shared by all machines anyway. A file has one writer, a task's attempt, and one reader,
the driver, which reads on from where it was; nothing depends on the time of a file. The folder of a
driver that was killed is swept by a later one (`store/prune.py`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from dataclasses import asdict
from pathlib import Path

from ..cells.failure import Failure
from ..store.owner import REFRESH_S, refresh, sign
from ..store.prune import NOTES
from ..store.store import StoreError
from .base import Report

PROGRESS_EVERY_S = 1.0
"""Least time between two lines of progress."""


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
        """Return what a task has told since the last look; a line that is half there is left."""
        if time.monotonic() - self._refreshed > REFRESH_S:
            self._refreshed = time.monotonic()
            refresh(self.folder)
        try:
            with self._files[key].open("rb") as file:
                file.seek(self._read[key])
                text, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return []  # not begun, or not visible yet
        self._read[key] += len(text) + len(end)
        said = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                fields = json.loads(line)
                why = fields.pop("failure")
                said.append(Report(**fields, failure=Failure(**why) if why else None))
        return said

    def remove(self) -> None:
        """Remove the notes, when the run has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def append(path: str, report: Report) -> None:
    """Append a report to a note; where its folder is gone nobody reads it, and the work goes on."""
    fields = report._asdict() | {"failure": asdict(report.failure) if report.failure else None}
    with contextlib.suppress(FileNotFoundError), Path(path).open("a") as file:
        file.write(json.dumps(fields) + "\n")
