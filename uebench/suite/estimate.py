"""Print the plan of a matrix, which cells are computed already, and how long the rest takes.

The estimate of `--dry-run` measures a few training steps of each network and defense on this
machine (on a CPU with small batches), at epochs spread over the training, since a defense may cost
more in some of them. From these it projects the time on more devices of this kind. Two bounds hold:
the work divided by the number of devices, and the longest poison followed by the slowest training
that waits for it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table

from ..cells.cell import SUPERVISED, Cell
from ..cells.compute import training_run
from ..common.text import counted, duration, one_line, plain_text, stdout_console
from ..execute.tasks import Task, pending
from ..learn.stopwatch import Stopwatch
from ..learn.threads import one_thread
from ..methods.checked import loss_of
from ..methods.faults import blamed, blamed_for_its_code
from ..models import shown_arch
from .matrix import Matrix
from .run import reused_in_words

_CPU_BATCH = 16
"""Batch size of a measured step on a CPU. A GPU takes the protocol's, to be busy."""
_N_DEVICES = (1, 8, 64)
"""Numbers of devices for which the time is projected."""
_N_EPOCHS = 4
"""Number of epochs at which a step is measured."""


def print_estimate(matrix: Matrix) -> None:
    """Print the plan to stdout."""
    console = stdout_console()
    tasks = pending(matrix.cells, matrix.records, keep_models=matrix.keep_models)
    missing = {task.key for task in tasks}
    table = Table("dataset", "attack", "defense", "network", "ratio", "seed", "state", box=None)
    for cell in matrix.cells:
        table.add_row(
            cell.poison.dataset.name,
            one_line(cell.attack_spec),
            one_line(cell.defense_spec),
            shown_arch(cell.arch) + ("" if cell.victim == SUPERVISED else f", {cell.victim_spec}"),
            f"{cell.ratio:g}",
            str(cell.seed),
            "to do" if cell.key in missing else "reused" if cell.key in matrix.reused else "known",
        )
    console.print(table)
    if matrix.reused:
        console.print(plain_text(reused_in_words(matrix)))
    todo = sum(task.kind == "cell" for task in tasks)
    if matrix.devices[0] != "cpu" and not torch.cuda.is_available():
        console.print(
            f"{counted(len(matrix.cells), 'cell')}, {todo} to do by {matrix.executor.name}; "
            "the time cannot be estimated on this machine, because it has no GPU"
        )
        return
    measured: dict[Any, float] = {}
    with one_thread(matrix.devices[0]):
        seconds = {task: _seconds(task, matrix, measured) for task in tasks}
    train = sum(s for task, s in seconds.items() if task.kind == "cell")
    craft = sum(s for task, s in seconds.items() if task.kind == "poison")
    kind = "/".join(sorted({d.partition(":")[0] for d in matrix.devices}))
    console.print(
        f"{counted(len(matrix.cells), 'cell')}, {todo} to do on {matrix.jobs} x {kind}: about "
        f"{duration(projected(seconds, matrix.jobs))} "
        f"(in one process: {duration(train)} of training and {duration(craft)} of crafting)"
    )
    crafting = [task.cell.poison.attack for task in tasks if task.kind == "poison"]
    for name, left_out in sorted({(a.info.name, a.uncounted) for a in crafting if a.uncounted}):
        console.print(plain_text(f"{name}: the estimate leaves out {left_out}"))
    if matrix.stop_after_s is not None:
        console.print(f"the run stops after {duration(matrix.stop_after_s)} (--stop-after)")
    if tasks:
        times = ", ".join(f"{n}: {duration(projected(seconds, n))}" for n in _N_DEVICES)
        console.print(f"projected time by the number of parallel processes: {times}")


def projected(seconds: dict[Task, float], processes: int) -> float:
    """Return a lower bound on the time of tasks in a number of parallel processes.

    A cell waits for its poison, and a mixture for its parts, so the run takes at least as long as
    the longest such chain.
    """
    tasks = {task.key: task for task in seconds}

    def ended(task: Task) -> float:
        before = [ended(tasks[key]) for key in task.needs if key in tasks]
        return seconds[task] + max(before, default=0.0)

    longest = max((ended(task) for task in seconds), default=0.0)
    return max(sum(seconds.values()) / max(1, processes), longest)


def _seconds(task: Task, matrix: Matrix, measured: dict[Any, float]) -> float:
    """Return the estimated time of a cell's training or of a poison's crafting."""
    cell, device = task.cell, matrix.devices[0]
    shape, n = cell.poison.dataset.shape, _size(matrix, cell)
    if task.kind == "poison":
        with blamed(cell.poison.attack, "image_passes"):
            passes = cell.poison.attack.image_passes(n)
        arch = getattr(cell.poison.attack, "surrogate", cell.arch)
        if not passes:
            return 0.0
        step: Any = ("craft", arch, shape)
        if step not in measured:
            measured[step] = _time_step(cell, arch, device, plain=True)
        return passes * measured[step]
    step = ("train", cell.arch, shape, str(cell.defense), cell.defense, cell.protocol.epochs)
    if step not in measured:
        with blamed_for_its_code(cell.defense):
            measured[step] = _time_step(cell, cell.arch, device, plain=False)
    return cell.victim.effort(cell.protocol) * cell.protocol.epochs * n * measured[step]


def _size(matrix: Matrix, cell: Cell) -> int:
    """Return the number of training images of a cell's data set."""
    fingerprint = cell.poison.dataset.fingerprint
    return next(len(d.train) for d in matrix.datasets if d.fingerprint == fingerprint)


def _time_step(cell: Cell, arch: str, device: str, plain: bool) -> float:
    """Return the seconds per image of one training step, averaged over the measured epochs."""
    ref, run = cell.poison.dataset, training_run(cell, device)
    model = run.network(arch)
    n = _CPU_BATCH if device == "cpu" else cell.protocol.batch_size
    images = torch.rand(n, *ref.shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(n, device=device) % ref.n_classes
    middles = {(2 * i + 1) * run.epochs // (2 * _N_EPOCHS) for i in range(_N_EPOCHS)}
    measured = [0] if plain else sorted(middles)
    stopwatch = Stopwatch(run.device)
    for i, epoch in enumerate([measured[0], *measured]):
        run.epoch = epoch
        with stopwatch:
            with run.autocast():
                loss = (
                    F.cross_entropy(model(images).float(), labels)
                    if plain
                    else loss_of(cell.defense, model, images, labels, run)
                )
            loss.backward()
        if not i:
            stopwatch.taken()  # the first step only warms up
    return stopwatch.taken() / len(measured) / n
