"""Options that say where and how long cells are computed, and the signals that end a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import click

from .shared import options_of

executor_options = options_of(
    click.option(
        "--deterministic",
        is_flag=True,
        help="Use slower GPU kernels whose results are reproducible bit for bit; each record "
        "names the operations that have none. CPUs are always reproducible.",
    ),
    click.option(
        "--stop-after",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MINUTES",
        help="Stop the run this long after its first cell started. Cells are computed in the "
        "order of the matrix; those not reached get the status `skipped`, the exit status is "
        "1, and the same command continues the run.",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MINUTES",
        help="Time limit for each cell and each poison; one that takes longer fails.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1, 4096),
        help="Number of cells computed at the same time; with slurm, of jobs in the queue.",
    ),
    click.option(
        "--executor",
        metavar="NAME[OPTION=VALUE,...]",
        default="local",
        help="Where cells are computed: local, ray or slurm, with options such as "
        "ray[gpus=0.25]; `uebench show executor slurm` lists them.",
    ),
)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, or SIGHUP from a closed terminal, end a run as Ctrl-C does.

    Python's default action would end this process at once and leave its workers running.
    """

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {}
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
            previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
