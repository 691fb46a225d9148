"""The inside of a worker process: one task, then it ends, so that nothing leaks into the next.

Importing this module loads torch and the methods; a forkserver does it once for all workers.
"""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimizers import it at their first step: 4 s in every worker otherwise

from .. import registry
from ..store import Store
from .tasks import Failure, from_plain, perform

registry.load()
PROGRESS_EVERY_S = 0.2


def work(
    data: dict[str, Any], store: str, device: str, plugins: list[str], out: Connection
) -> None:
    """Do one task and tell `out` what happens; the whole life of a worker process.

    A method that prints reaches stderr, since stdout is for data. When the driver is gone, the
    next report ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    os.dup2(2, 1)
    told = 0.0

    def progress(fraction: float, text: str) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PROGRESS_EVERY_S:
            told = now
            try:
                out.send(("progress", fraction, text))
            except OSError:
                os._exit(1)

    try:
        for plugin in plugins:
            registry.load_file(Path(plugin))
        task = from_plain(data)
    except Exception as error:
        out.send(("failed", Failure(f"{type(error).__name__}: {error}"), ""))
        return
    with one_thread(device):
        failed = perform(task, Store(store), device, progress)
    out.send(("failed", failed, "") if failed else ("done", None, ""))


class one_thread:  # noqa: N801
    """Context: compute with one thread on a CPU, where two on busy cores wait for each other."""

    def __init__(self, device: str) -> None:
        self.wanted = 1 if device == "cpu" else torch.get_num_threads()

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.wanted)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
