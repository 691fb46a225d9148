"""The inside of a worker process: one task, then it ends, so that nothing leaks into the next.

Importing this module loads torch and the methods; a forkserver does it once for all workers.
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
    del os.environ["PYTHONSAFEPATH"]  # what a method starts finds its own folder as ever
PROGRESS_EVERY_S = 0.2
PR_SET_PDEATHSIG = 1

Tell = Callable[[Report], None]


def work(data: dict[str, Any], orders: Orders, out: Connection) -> None:
    """Do one task and tell `out` what happens; the whole life of a local worker process.

    It leads a process group, so that what a method starts can be ended with it, and dies with the
    forkserver, which ends when the driver is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    _die_with_parent()

    def tell(report: Report) -> None:
        try:
            out.send(tuple(report))
        except OSError:
            os._exit(1)  # nobody listens any more

    do(data, orders, tell)


def do(
    data: dict[str, Any], orders: Orders, tell: Tell, progress_every_s: float = PROGRESS_EVERY_S
) -> None:
    """Do one task in this process, which is its own, and tell how it went.

    What a method prints reaches stderr, since stdout is for data. A method that forks and lets
    its child run on has that child end here: one process tells, and no other.
    """
    key, own = str(data["key"]), os.getpid()
    sys.stdout.flush()
    os.dup2(2, 1)
    told = -progress_every_s

    def progress(share: float, text: str) -> None:
        nonlocal told
        if os.getpid() != own:
            os._exit(0)
        now = time.monotonic()
        if now - told >= progress_every_s:
            told = now
            tell(Report("progress", key, share, text))

    try:
        for plugin in orders.plugins:
            registry.load_file(Path(plugin))
        task = from_plain(data)
        device = torch.device(orders.device)
        share_memory(orders.sharers)
        if device.type == "cpu" and orders.memory_gb is not None:
            _limit_memory(orders.memory_gb)
    except Exception as error:
        tell(Report("failed", key, failure=Failure(f"{type(error).__name__}: {error}")))
        return
    with one_thread(orders.device), determinism(device, orders.deterministic):
        ended = perform_alone(task, Store(orders.store), orders.device, progress)
    if os.getpid() != own:
        os._exit(0)
    if isinstance(ended, Failure):
        tell(Report("failed", key, failure=ended))
    else:
        tell(Report(ended, key))


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends (Linux; elsewhere nothing happens).

    Otherwise a worker notices a killed driver when it next tells its progress, and one that hangs
    never does.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _limit_memory(memory_gb: float) -> None:
    """Let this process take no more private memory than so many GB, code and libraries aside."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(memory_gb * 1e9)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
