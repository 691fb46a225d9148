"""Identify a process, and find out whether it is still running.

Process numbers are reused, so an identity also holds the start time of the process. A process of
another machine or container cannot be looked up from here.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


def place() -> list[str]:
    """Return the scope of process numbers: the host, its current boot, and the container."""
    parts = [socket.gethostname(), "", ""]
    with contextlib.suppress(OSError):
        parts[1] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        parts[2] = str(Path("/proc/self/ns/pid").readlink())
    return parts


def start_time(pid: int) -> int | None:
    """Return when a process was started, in the kernel's ticks; None if that is unknown."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def runs(pid: int, began: int | None) -> bool:
    """Return whether a process of this place is running that was started at `began`."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # the process exists and belongs to another user
    return start_time(pid) == began
