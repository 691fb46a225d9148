"""Whose folder it is: the process that signed one, and whether that still lives.

A process is distinguished from a later one with the same number by its start time.
What another machine, or another container, has signed cannot be looked up here: its
signature is fresh as long as it lives, since `refresh` touches it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

SIGNATURE = "owner.json"
REFRESH_S = 600.0
"""Seconds after which a signature is to be refreshed."""


def sign(folder: Path) -> None:
    """Say that a folder belongs to this process."""
    signature = {"place": _place(), "pid": os.getpid(), "began": _began(os.getpid())}
    (folder / SIGNATURE).write_text(json.dumps(signature))


def refresh(folder: Path) -> None:
    """Show those on other machines that this process lives."""
    with contextlib.suppress(OSError):
        os.utime(folder / SIGNATURE)


def lives(folder: Path) -> bool | None:
    """Return whether the process lives that signed a folder; None where that is unknown."""
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
        pass  # another user's
    return bool(_began(pid) == began)


def _place() -> list[str]:
    """Return what process numbers belong to: the host since it was started, and the container."""
    parts = [socket.gethostname(), "", ""]
    with contextlib.suppress(OSError):
        parts[1] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        parts[2] = str(Path("/proc/self/ns/pid").readlink())
    return parts


def _began(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks; None where that is unknown."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
