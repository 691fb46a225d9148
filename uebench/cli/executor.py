"""Where and how cells are computed, as options of the command line; and what ends a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


def executor_options(command: C) -> C:
    """Add the options that say where cells are computed, how many at a time, and how long."""
    for option in (
        click.option(
            "--executor",
            metavar="NAME[OPTION=VALUE,...]",
            default="local",
            show_default=True,
            help="What computes the cells: local, ray or slurm, with options such as "
            "ray[gpus=0.25] (see `uebench show executor slurm`).",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(1, 4096),
            help="Cells side by side; on slurm, in the queue at a time.",
        ),
        click.option(
            "--time-limit",
            type=click.FloatRange(min=0, min_open=True),
            metavar="MINUTES",
            help="Longest time of one cell or one poison, in minutes; a longer one fails.",
        ),
        click.option(
            "--stop-after",
            type=click.FloatRange(min=0, min_open=True),
            metavar="MINUTES",
            help="End the run so many minutes after its first cell began. Cells come in the order "
            "of the matrix; those that were not reached are `skipped`, the exit status is 1, and "
            "the same command goes on.",
        ),
        click.option(
            "--deterministic",
            is_flag=True,
            help="On GPUs, take slower kernels that give the same bits again; each record says "
            "what has none. CPUs give them anyway.",
        ),
    ):
        command = option(command)
    return command


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a polite `kill`, or a closed terminal, end a run as Ctrl-C does: workers are stopped."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    for number in wanted:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
