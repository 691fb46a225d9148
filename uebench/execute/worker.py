"""What a worker process does: it performs one task and ends, so that no state leaks into the next.

Importing this module loads torch and the methods; the forkserver does it once for all workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimizers import it at their first step: 4 s in every worker otherwise

from ..cells.determinism import determinism
from ..cells.failure import Failure
from ..learn.threads import one_thread
from ..methods import registry
from ..store.arrays import share_memory
from ..store.store import Store
from .base import SAFE_PATH, Orders, Report
from .tasks import from_plain, perform_alone

registry.load()
if os.environ.get("PYTHONSAFEPATH") == SAFE_PATH:
    # programs that a method starts import from their own directory as usual
    del os.environ["PYTHONSAFEPATH"]
PIPE_EVERY_S = 0.2
"""Shortest time between two progress reports through a pipe."""
PR_SET_PDEATHSIG = 1
"""The option of Linux's prctl that sends a process a signal when its parent ends."""


def work(data: dict[str, Any], orders: Orders, out: Connection) -> None:
    """Perform one task and send its reports to `out`; this is all that a local worker does.

    It leads a process group, so that the processes that a method starts can be killed with it, and
    it dies with the forkserver, which ends when the driver does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    _die_with_parent()

    def send(report: Report) -> None:
        try:
            out.send(tuple(report))
        except OSError:
            os._exit(1)  # the driver has closed the pipe or is gone

    perform_here(data, orders, send, PIPE_EVERY_S)


def perform_here(
    data: dict[str, Any], orders: Orders, send: Callable[[Report], None], progress_every_s: float
) -> None:
    """Perform one task in this process, which exists for it alone, and send its reports.

    Whatever a method prints goes to stderr, because stdout is for data. If a method forks and lets
    the child run on, the child ends here, so that only one process sends reports.
    """
    key, own_pid = str(data["key"]), os.getpid()
    sys.stdout.flush()
    os.dup2(2, 1)
    last_sent = -progress_every_s

    def progress(share: float, text: str, at_most: bool = False) -> None:
        nonlocal last_sent
        if os.getpid() != own_pid:
            os._exit(0)
        now = time.monotonic()
        if now - last_sent >= progress_every_s:
            last_sent = now
            send(Report("progress", key, share, text, at_most))

    try:
        for plugin in orders.plugins:
            registry.load_file(Path(plugin))
        task = from_plain(data)
        device = torch.device(orders.device)
        share_memory(orders.sharers)
        if device.type == "cpu" and orders.memory_gb is not None:
            _limit_memory(orders.memory_gb)
    except Exception as error:
        send(Report("failed", key, failure=Failure(f"{type(error).__name__}: {error}")))
        return
    with one_thread(orders.device), determinism(device, orders.deterministic):
        result = perform_alone(task, Store(orders.store), orders.device, progress)
    if os.getpid() != own_pid:
        os._exit(0)
    if isinstance(result, Failure):
        send(Report("failed", key, failure=result))
    else:
        send(Report(result, key))


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends (on Linux only).

    Otherwise a worker would notice that its driver was killed only when it next reports progress,
    and one that hangs never would.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # the parent may have ended just before the call, and then no signal follows
        if os.getppid() != parent:
            os._exit(1)


def _limit_memory(memory_gb: float) -> None:
    """Limit the private memory of this process, which excludes code and shared libraries."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(memory_gb * 1e9)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
