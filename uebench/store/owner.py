"""Record which process owns a folder, and find out whether that process is still running.

A process of another machine or container cannot be looked up from here. It calls `refresh`
regularly, so the age of its signature shows whether it is still running.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ..common.process import place, runs, start_time

SIGNATURE = "owner.json"
REFRESH_S = 600.0
"""Seconds after which the owner refreshes its signature."""


def sign(folder: Path) -> None:
    """Record in a folder that it belongs to this process."""
    signature = {"place": place(), "pid": os.getpid(), "began": start_time(os.getpid())}
    (folder / SIGNATURE).write_text(json.dumps(signature))


def refresh(folder: Path) -> None:
    """Show other machines that this process is still running."""
    with contextlib.suppress(OSError):
        os.utime(folder / SIGNATURE)


def is_running(folder: Path) -> bool | None:
    """Return whether the process that signed a folder is running; None if that is unknown."""
    try:
        signature = json.loads((folder / SIGNATURE).read_text())
        home, pid, began = signature["place"], int(signature["pid"]), signature["began"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return runs(pid, began) if home == place() and pid > 0 else None
