"""Test a GPU in one run: its correctness, its speed, and a part of Table 2 on CIFAR-10.

The parts run in this order; each prints a short table and writes its figures to `--out`:

- machine: the rates that a large matrix product (bf16 and fp32) and a large copy reach here.
- correct: networks, augmentations and searches on the device compared with the CPU, both in
  float32, on the same inputs and random draws, as |out - ref| / |ref|.
- speed: training steps in images/s and as a share of the measured matrix product, and a UEraser
  step (K = 5) and a PGD-7 step compared with public code.
- attacks: a round of EM and a step of REM, and the time of the whole attack on 50,000 images.
- packing: cells per minute with one, two, ... cells on the device at a time.
- table: Table 2 under `--protocol`, most informative cells first, until `--minutes` have passed.
  Finished cells are kept in the store ($UEBENCH_HOME), so the same command resumes the run.

It needs no network; benchmarks/README.md says what to copy to a machine without one. Without a GPU
it runs on the CPU, where you should choose a smaller network and batch:

    python benchmarks/gpu.py --dataset npz:cifar10.npz --minutes 20 --out results/gpu
    python benchmarks/gpu.py --dataset synthetic --arch resnet8 --batch 64 --protocol quick
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import kornia
import torch
import torch.nn.functional as F
from steps import CLASSES, SHAPE, Bench, adversarial_loss, kornia_loss, machine_name
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uebench import Attack, Facts, Split, __version__, augment, pgd
from uebench.augment.color import Kornia
from uebench.augment.diamond_square import grow
from uebench.cells.cell import Cell
from uebench.cells.config import make_config
from uebench.cells.failure import Failure
from uebench.cells.plan import resolve_precision, table_titles
from uebench.cells.results import check_folder, gather
from uebench.common.spec import split_specs
from uebench.data.poison import quantise
from uebench.execute.devices import usable_devices
from uebench.execute.tasks import Event
from uebench.methods.registry import build_attack
from uebench.models import build_network
from uebench.report import leaderboards, to_markdown
from uebench.suite.matrix import RunOutcome
from uebench.suite.run import execute, prepare, save

PARTS = ("machine", "correct", "speed", "attacks", "packing", "table")
ATTACKS = "none,em,lsp,ar,hypo,rem"
DEFENSES = "standard,ueraser,ueraser_lite,iss,at,ueraser_max"
BEHAVIOUR: Kornia = "0.6" if kornia.__version__ < "0.9" else "0.9"
K = 5
SAVE_EVERY_S = 60.0
"""Shortest time between two writes of the growing table, in seconds."""
TOLERANCE = 1e-3
"""Largest accepted relative error of float32 results on the device."""


def machine() -> dict[str, float]:
    """Measure the peak rates: TFLOP/s of a matrix product and GB/s of a copy."""
    n = 8192 if bench.device.type == "cuda" else 1024
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(2, n, n, device=bench.device).to(dtype)
        a @ b
        taken = [bench.seconds(lambda a=a, b=b: a @ b, 3) for _ in range(bench.rounds)]  # type: ignore[misc]
        found[f"{name}_tflops"] = 2 * n**3 / statistics.median(taken) / 1e12
    source = torch.rand((2**30 if bench.device.type == "cuda" else 2**26) // 4, device=bench.device)
    target = torch.empty_like(source)
    taken = [bench.seconds(lambda: target.copy_(source), 3) for _ in range(bench.rounds)]
    found["copy_gbs"] = 2 * source.nbytes / statistics.median(taken) / 1e9
    print(
        f"  product {n}: bf16 {found['bf16_tflops']:.2f}, fp32 {found['fp32_tflops']:.2f} TFLOP/s; "
        f"copy {found['copy_gbs']:.0f} GB/s, read and written"
    )
    return found


def correct() -> dict[str, float]:
    """Compare the device with the CPU, both in float32, on the same inputs and random draws."""
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(16, *SHAPE, generator=rng)
    labels = torch.randint(CLASSES, (16,), generator=rng)
    noise = (torch.rand(images.shape, generator=rng) - 0.5) * 16 / 255
    share = torch.rand(16, generator=rng)
    operations: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "rotate": lambda x, s: augment.rotate(x, 30 * s),
        "shear": lambda x, s: augment.shear_x(x, 20 * s, "0.9"),
        "translate": lambda x, s: augment.translate_y(x, 0.5 * s),
        "sharpness": lambda x, s: augment.sharpness(x, 0.1 + 1.8 * s),
        "contrast": lambda x, s: augment.contrast(x, 0.1 + 1.8 * s),
        "brightness": lambda x, s: augment.brightness(x, s - 0.5),
        "solarize": augment.solarize,
        "equalize": lambda x, s: augment.equalize(x, "0.6"),
        "Gaussian blur": lambda x, s: augment.gaussian_blur(x, 0.8),
    }
    found = {name: _error(call, images, share) for name, call in operations.items()}
    draws = torch.rand(33, 33, 16, generator=rng)
    for behaviour in ("0.6", "0.9"):
        found[f"plasma maps, kornia {behaviour}"] = _error(
            lambda x, s, of=behaviour: _grown(x, s, of), draws, share
        )
    for arch in dict.fromkeys([bench.arch, "resnet8"]):
        model = build_network(arch, CLASSES, SHAPE, 0)
        found[f"{arch}: gradient of the loss"] = _error(
            lambda x, y, m=model: _gradient(m, x, y), images, labels
        )
        found[f"{arch}: PGD-7, l2"] = _error(
            lambda x, y, m=model: _searched(m, x, y), images, labels
        )
    levels = (images * 255).byte()
    found["8-bit images"] = _error(lambda x, d: quantise(x, d).float(), levels, noise)
    for name, error in found.items():
        print(f"  {name:36}{error:10.1e}  {'ok' if error < TOLERANCE else 'WRONG'}")
    return found


def _error(call: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Return |out - ref| / |ref|, for a call on the device (out) and on the CPU (ref)."""
    reference = call(*inputs).double()
    out = call(*(x.to(bench.device) for x in inputs)).cpu().double()
    return float((out - reference).norm() / reference.norm())


def _grown(draws: Tensor, roughness: Tensor, behaviour: Kornia) -> Tensor:
    """Return the plasma maps that grow from given random draws."""
    grid = draws.clone()
    with torch.inference_mode():
        grow(grid, roughness, behaviour)
    return grid


def _gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the loss with respect to the images, in train mode."""
    model = model.to(images.device).train()
    point = images.clone().requires_grad_(True)
    return torch.autograd.grad(F.cross_entropy(model(point), labels), point)[0]


def _searched(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the perturbation after seven normalised PGD steps, with the network in eval mode."""
    model = model.to(images.device).eval()

    def loss(point: Tensor) -> Tensor:
        return F.cross_entropy(model(point), labels, reduction="sum")

    return pgd(loss, images, norm="l2", eps=0.5, step=0.1, steps=7, towards="max")


def speed() -> dict[str, Any]:
    """Time training steps, a UEraser step and a PGD-7 step."""
    images, labels = bench.examples()
    rng = torch.Generator(bench.device).manual_seed(0)
    steps = {"fp32 NCHW": bench.plain_step(lambda m: F.cross_entropy(m(images), labels))}
    steps["uebench"] = bench.our_step("standard", images, labels)
    if options.compile:
        steps["uebench compiled"] = bench.our_step("standard", images, labels, compiled=True)
    compared = bench.compare("Training step", 8, steps)
    per_second = {name: bench.batch / taken for name, (taken, _) in compared.items()}
    for times in (2, 4, 8):  # with a small batch a large GPU waits for its next kernel
        more = replace(bench, batch=times * bench.batch)
        try:
            step = more.our_step("standard", *more.examples())
            more.seconds(step, 2)
            taken = statistics.median(more.seconds(step, 8) for _ in range(bench.rounds))
        except torch.OutOfMemoryError:
            print(f"  batch {more.batch} does not fit into memory")
            break
        per_second[f"uebench, batch {more.batch}"] = more.batch / taken
    work = _operations(images, labels) / bench.batch
    ceiling = ceilings().get(f"{bench.precision}_tflops", 0.0)
    found: dict[str, Any] = {"train": {}}
    for name, images_s in per_second.items():
        rate = work * images_s / 1e12
        share = (
            f", {rate / ceiling:.0%} of the measured {bench.precision} product" if ceiling else ""
        )
        print(f"  {name:34}{images_s:12,.0f} images/s, {rate:.2f} TFLOP/s{share}")
        found["train"][name] = {"images_per_second": images_s, "tflops": rate}
    ours = f"ueraser[kornia={BEHAVIOUR},repeats={K}"
    found["ueraser"] = bench.compare(
        f"UEraser step, K = {K}",
        3,
        {
            "kornia, backward through all": bench.plain_step(
                kornia_loss(images, labels, K, BEHAVIOUR, rng)
            ),
            "uebench select=full": bench.our_step(f"{ours},select=full]", images, labels),
            "uebench select=no_grad": bench.our_step(f"{ours},select=no_grad]", images, labels),
        },
    )
    found["at"] = bench.compare(
        "Adversarial training's step, PGD-7",
        2,
        {
            "fp32 NCHW": bench.plain_step(adversarial_loss(images, labels)),
            "uebench": bench.our_step("at", images, labels),
        },
    )
    return found


def _operations(images: Tensor, labels: Tensor) -> float:
    """Return the number of floating-point operations of a step, forward and backward."""
    model = build_network(bench.arch, CLASSES, SHAPE, 0).to(bench.device).train()
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(images), labels).backward()
    return float(counter.get_total_flops())


def _perturb(attack: Attack, data: Split) -> None:
    attack.perturb(data, bench.run())


def attacks() -> dict[str, float]:
    """Time a round of EM and steps of REM on few images; extrapolate to 50,000 images."""
    n = 4 * bench.batch
    images = torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, device=bench.device)
    data = Split(images, torch.arange(n, device=bench.device) % CLASSES, tuple("0123456789"))
    facts = Facts("cifar10", CLASSES, SHAPE, 1, bench.arch)
    one_round = build_attack("em[rounds=1,stop_accuracy=1]").resolve(facts)
    # the final noise is computed for one batch only, so that nearly all of the time is steps
    asked = build_attack(f"rem[train_steps={options.rem_steps},batch_size={bench.batch}]")
    rem = asked.resolve(facts)
    found = {}
    for name, attack, part, times in (
        ("a round of EM on 50,000 images", one_round, data, 50_000 / n),
        ("REM, 5,000 steps", rem, data.subset(torch.arange(bench.batch)), 5000.0),
    ):
        taken = bench.seconds(partial(_perturb, attack, part), 1)
        if attack is rem:  # the final noise of one batch costs about as much as one step
            taken /= options.rem_steps + 1
        found[name] = taken * times
        print(f"  {name:36}{found[name]:10.0f} s")
    return found


def packing() -> dict[str, float]:
    """Count cells per minute with more and more cells at the same time."""
    found = {}
    for jobs in (1, *range(1, options.jobs + 1)):  # the first pass warms up
        config = make_config(
            {
                "attacks": ["none"],
                "defenses": ["standard"],
                "dataset": options.dataset,
                "arch": [bench.arch],
                "protocol": options.protocol,
                "protocol_options": {"epochs": 1},
                # seeds that no earlier call used: the store would answer known ones at once
                "seeds": [time.time_ns() // 1000 % 2**31 - i for i in range(2 * jobs)],
            }
        )
        matrix = prepare(config, options.device, jobs)
        outcome = execute(matrix)
        if outcome.failures:
            raise SystemExit(next(iter(outcome.failures.values())).error)
        rate = found[f"{jobs} side by side"] = 60 * len(matrix.cells) / outcome.seconds
        print(f"  {jobs} at a time: {rate:8.1f} one-epoch cells per minute", flush=True)
    return found


def table() -> dict[str, Any]:
    """Fill Table 2, most informative cells first, until the time has passed."""
    config = make_config(
        {
            "title": "Table 2",
            "attacks": options.attacks,
            "defenses": options.defenses,
            "dataset": options.dataset,
            "arch": [bench.arch],
            "protocol": options.protocol,
            "seeds": options.seeds,
            "set": options.sets,
        }
    )
    limit_s = 60 * options.minutes
    planned = prepare(config, options.device, options.jobs, stop_after_s=limit_s)
    matrix = replace(planned, cells=sorted(planned.cells, key=_rank))
    folder, command = options.out / "table2", ["python", *sys.argv]
    check_folder(folder)
    start, saved, failures = time.monotonic(), 0.0, dict[str, Failure]()

    def tell(event: Event) -> None:
        nonlocal saved
        kind, task, text = event.kind, event.task, event.text
        now = time.monotonic() - start
        if kind in ("done", "failed", "again"):
            print(f"  {now:5.0f} s  {task.describe()}: {text or kind}", flush=True)
        if kind == "failed":
            failures[task.key] = Failure(text)
        if kind in ("done", "failed") and now - saved > SAVE_EVERY_S:
            frame = gather(matrix.cells, matrix.store, failures)
            save(matrix, RunOutcome(frame, failures, now), folder, command)
            saved = time.monotonic() - start

    outcome = execute(matrix, listen=tell)
    save(matrix, outcome, folder, command)
    print(to_markdown(leaderboards(outcome.cells), table_titles(matrix.cells)))
    return {"cells": len(matrix.cells), "ok": int((outcome.cells["status"] == "ok").sum())}


def _rank(cell: Cell) -> tuple[int, int, int]:
    """Return the sort key of a cell: seed, then defense, then attack, in the order given."""
    defenses = [spec.partition("[")[0] for spec in split_specs(options.defenses)]
    names = [spec.partition("[")[0] for spec in split_specs(options.attacks)]
    return (
        cell.seed,
        defenses.index(cell.defense.info.name),
        names.index(cell.poison.attack.info.name),
    )


def ceilings() -> dict[str, float]:
    """Return what `machine` measured in this call, or in an earlier call with the same folder."""
    found: dict[str, float] = results().get("machine", {})
    return found


def results() -> dict[str, Any]:
    """Return the figures that the parts have written so far."""
    file = options.out / "gpu.json"
    return json.loads(file.read_text()) if file.exists() else {}


def keep(part: str, found: Any) -> None:
    """Write the figures of a part, and the machine they were measured on, next to the others'."""
    about = {
        "device": machine_name(bench.device),
        "versions": {
            "uebench": __version__,
            "torch": torch.__version__,
            "kornia": kornia.__version__,
            "python": sys.version.split()[0],
        },
        "command": ["python", *sys.argv],
        "arch": bench.arch,
        "batch": bench.batch,
        "precision": bench.precision,
        "rounds": bench.rounds,
    }
    text = json.dumps({**results(), "about": about, part: found}, indent=1)
    (options.out / "gpu.json").write_text(text + "\n")


def parse() -> argparse.Namespace:
    """Return the parsed command-line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--dataset", default="cifar10", help="data set of packing and table")
    parser.add_argument("--attacks", default=ATTACKS)
    parser.add_argument("--defenses", default=DEFENSES)
    parser.add_argument("--set", action="append", default=[], help="METHOD.OPTION=VALUE")
    parser.add_argument("--protocol", default="sprint")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--minutes", type=float, default=20, help="time for the table")
    parser.add_argument("--jobs", type=int, default=2, help="cells at the same time")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rem-steps", type=int, default=2, help="number of REM steps to time")
    parser.add_argument("--compile", action="store_true", help="also time a compiled network")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    chosen.parts = chosen.parts.split(",")
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    chosen.sets = dict(text.partition("=")[::2] for text in chosen.set)
    return chosen


if __name__ == "__main__":
    options = parse()
    warnings.simplefilter("ignore")
    device = torch.device(usable_devices(options.device)[0])
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.backends.cudnn.allow_tf32 = False
    precision = resolve_precision("auto", str(device))
    bench = Bench(device, precision, options.arch, options.batch, options.rounds)
    check_folder(options.out)
    print(
        f"{machine_name(device)}, torch {torch.__version__}, kornia {kornia.__version__}, "
        f"{options.arch}, batch {options.batch}, {precision}"
    )
    for part in options.parts:
        print(f"\n== {part}", flush=True)
        keep(part, globals()[part]())
    if any(error > TOLERANCE for error in results().get("correct", {}).values()):
        raise SystemExit("the device does not give the CPU's results: see the part `correct`")
