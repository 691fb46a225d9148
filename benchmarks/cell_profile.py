"""Where the time of a cell goes, what share of the machine's speed it reaches, and what could help.

A short training is profiled under each defense: the share of each kind of operation, and the
operations of its products and convolutions per second beside what a large product in the same
precision reaches in the same run. Then standard training is timed with one thing changed, in turn
with the training as it is, in processor time of one thread.

    python benchmarks/cell_profile.py --protocol sprint --arch resnet8 --images 4096
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from steps import Bench, epoch_under, machine_name, processor_seconds
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from uebench.cells.plan import resolve_precision

KINDS = {
    "convolutions and products": ("conv", "mm", "linear", "addmm", "bmm"),
    "normalisation": ("norm",),
    "pooling and activation": ("pool", "relu", "gelu", "silu", "threshold"),
    "optimiser": ("Optimizer", "_foreach", "_fused"),
    "copies, types and indexing": ("copy", "index", "gather", "cat", "stack", "to_copy", "fill"),
    "augmentation by a grid": ("grid_sampler", "affine_grid"),
}
"""Kinds of operations, by parts of the names that torch gives them; the first that fits counts."""
PRODUCT = 2048
"""Rows and columns of the product that says what the machine reaches."""


def main() -> None:
    """Print one block per defense, and one line per thing that was tried."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--protocol", default="sprint")
    parser.add_argument("--arch", default="", help="another network than the protocol's")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--defenses", default="standard,ueraser_max", help="separated by commas")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    precision = resolve_precision("auto", "cpu")
    bench = Bench(cpu, precision, args.arch, 0, args.rounds)
    peak = speed_of_a_product(precision)
    print(
        f"torch {torch.__version__}, {machine_name(cpu)}, {precision}, one thread; a product of "
        f"{PRODUCT} x {PRODUCT} reaches {peak / 1e12:.3f} TFLOP/s"
    )
    for name in args.defenses.split(","):
        epoch = epoch_under(name, bench, args)
        epoch()  # warms up
        shares, speed = profiled(epoch)
        print(f"\n{name}: {speed / 1e12:.3f} TFLOP/s, {speed / peak:.0%} of the product's")
        for kind, share in sorted(shares.items(), key=lambda item: -item[1]):
            print(f"  {share:6.1%}  {kind}")
    epoch = epoch_under("standard", bench, args)
    print("\nstandard training with one thing changed: its time over that of the training as it is")
    for title, change in CHANGES.items():
        ratios = []
        for _ in range(args.rounds):
            as_it_is = processor_seconds(epoch)
            with change():
                ratios.append(processor_seconds(epoch) / as_it_is)
        low, high = min(ratios), max(ratios)
        print(f"  {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})  {title}", flush=True)


class Operations(TorchDispatchMode):
    """Counts the operations of products and convolutions, as torch's own counter does.

    Torch's counter follows modules too, and fails where a defense asks for gradients of images.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def profiled(call: Callable[[], None]) -> tuple[dict[str, float], float]:
    """Return the share of each kind of operation, and operations of products per second."""
    counter = Operations()
    with counter:
        call()
    seconds = processor_seconds(call)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    totals: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = next(
            (k for k, parts in KINDS.items() if any(p in event.key for p in parts)),
            "arithmetic and the rest",
        )
        totals[kind] += event.self_cpu_time_total
    whole = sum(totals.values())
    shares = {kind: total / whole for kind, total in totals.items()}
    return shares, counter.total / seconds


def speed_of_a_product(precision: str) -> float:
    """Return the operations per second of a large product in a precision."""
    matrix = torch.rand(PRODUCT, PRODUCT)
    matrix = matrix.bfloat16() if precision == "bf16" else matrix
    times = []
    for _ in range(4):
        start = time.process_time()
        matrix @ matrix
        times.append(time.process_time() - start)
    return 2 * PRODUCT**3 / min(times)


@contextmanager
def flush_to_zero() -> Iterator[None]:
    """Take numbers that are too small for a normal float for zero."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def fused_sgd() -> Iterator[None]:
    """Let SGD change all parameters in one kernel on the CPU, too."""
    plain = torch.optim.SGD

    def fused(*parameters: object, **options: object) -> torch.optim.Optimizer:
        return plain(*parameters, **{**options, "fused": True})  # type: ignore[arg-type]

    with mock.patch("torch.optim.SGD", fused):
        yield


@contextmanager
def rows_first() -> Iterator[None]:
    """Keep images in NCHW instead of channels-last."""
    with mock.patch("torch.channels_last", torch.contiguous_format):
        yield


CHANGES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "nothing (how far two equal trainings differ)": nullcontext,
    "denormal numbers flushed to zero": flush_to_zero,
    "SGD in one fused kernel": fused_sgd,
    "images in NCHW": rows_first,
}

if __name__ == "__main__":
    main()
