"""Several tasks in one job of a cluster: a process for each of them, which share its devices."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from typing import Any

from .base import Orders, Report
from .local import hidden_main
from .notes import append, remote_work


def remote_pack(
    tasks: list[dict[str, Any]], orders: Orders, notes: list[str], devices: list[str]
) -> None:
    """Perform tasks at the same time on another machine; write what happens into their notes.

    A process that dies is reported, and the others continue. A single task needs no process of its
    own, because the job ends with it.

    Args:
        tasks: as `plain` describes them.
        orders: what they have in common.
        notes: the file of each task's reports.
        devices: the devices of the job, which tasks take in turn.
    """
    placed = [replace(orders, device=devices[i % len(devices)]) for i in range(len(tasks))]
    if len(tasks) == 1:
        remote_work(tasks[0], placed[0], notes[0])
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uebench.execute.worker"])
    processes = []
    for arguments in zip(tasks, placed, notes, strict=True):
        process = context.Process(target=remote_work, args=arguments)
        with hidden_main():
            process.start()
        processes.append(process)
    for task, process, note in zip(tasks, processes, notes, strict=True):
        process.join()
        if code := process.exitcode:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            append(note, Report("died", str(task["key"]), text=how))
