"""The function that ray and Slurm run on another machine: one task, told in a note.

It imports nothing heavy by itself, so that a driver can hand it over before torch is needed.
"""

from __future__ import annotations

from typing import Any

from .base import Orders, Report
from .notes import PROGRESS_EVERY_S, append


def remote_work(data: dict[str, Any], orders: Orders, note: str) -> None:
    """Do one task and write what happens into a note."""
    append(note, Report("start", str(data["key"])))
    from .worker import do

    do(data, orders, lambda report: append(note, report), PROGRESS_EVERY_S)
