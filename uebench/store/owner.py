"""Record which process owns a folder, and find out whether that process is still running.

Process numbers are reused, so the signature also holds the start time of the process. A process
of another machine or container cannot be looked up from here. It calls `refresh` regularly, so
the age of its signature shows whether it is still running.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

SIGNATURE = "owner.json"
REFRESH_S = 600.0
"""Seconds after which the owner refreshes its signature."""


def sign(folder: Path) -> None:
    """Record in a folder that it belongs to this process."""
    signature = {"place": _place(), "pid": os.getpid(), "began": _start_time(os.getpid())}
    (folder / SIGNATURE).write_text(json.dumps(signature))


def refresh(folder: Path) -> None:
    """Show other machines that this process is still running."""
    with contextlib.suppress(OSError):
        os.utime(folder / SIGNATURE)


def is_running(folder: Path) -> bool | None:
    """Return whether the process that signed a folder is running; None if that is unknown."""
    try:
        signature = json.loads((folder / SIGNATURE).read_text())
        place, pid, began = signature["place"], int(signature["pid"]), signature["began"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if place != _place() or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # the process exists and belongs to another user
    return bool(_start_time(pid) == began)


def _place() -> list[str]:
    """Return the scope of process numbers: the host, its current boot, and the container."""
    parts = [socket.gethostname(), "", ""]
    with contextlib.suppress(OSError):
        parts[1] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        parts[2] = str(Path("/proc/self/ns/pid").readlink())
    return parts


def _start_time(pid: int) -> int | None:
    """Return when a process was started, in the kernel's ticks; None if that is unknown."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
