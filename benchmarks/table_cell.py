"""What a cell of the UEraser paper's Table 2 costs: the authors' recipe and ours on one machine.

The authors' recipe is ResNet-18 in fp32, batches of 128 and 200 epochs, with kornia's pipeline on a
tiled batch for UEraser; ours is what `--protocol` trains, in the precision that suits the machine.
Steps of the one and short epochs of the other are timed in turn, as processor time of one thread.
That time, for each image, is multiplied by images and epochs. In its first epochs UEraser takes the
hardest of K = 5 copies; those epochs are timed apart from the others. The authors' loading of
images, and the test after each epoch, are in neither time.

Accuracies are those that the paper prints, and those of `--results` where the cell is there.

    python benchmarks/table_cell.py --protocol airbench --attack em --results results/cifar10
"""

import argparse
import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from steps import (
    Bench,
    epoch_under,
    installed_behaviour,
    kornia_loss,
    machine_name,
    processor_seconds,
    protocol_of,
)
from torch import nn

from uebench import Facts
from uebench.cells.plan import resolve_precision
from uebench.methods.registry import build_defense
from uebench.report.published import read_published

DEFENSES = ("standard", "ueraser_lite", "ueraser")
THEIR_EPOCHS = 200
THEIR_BATCH = 128
IMAGES = 50_000


def main() -> None:
    """Print the time of an epoch and of a cell on both sides, and both accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--protocol", default="airbench")
    parser.add_argument("--arch", default="", help="another network than the protocol's")
    parser.add_argument("--theirs", default="resnet18", help="the authors' network")
    parser.add_argument("--attack", default="em", help="whose accuracies are printed")
    parser.add_argument("--images", type=int, default=2000, help="images of our timed epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="a results folder of this protocol")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    precision = resolve_precision("auto", "cpu")
    bench = Bench(cpu, precision, args.theirs, THEIR_BATCH, args.rounds)
    protocol = protocol_of(args)
    print(
        f"torch {torch.__version__}, {machine_name(cpu)}; theirs: {args.theirs}, fp32, "
        f"{THEIR_EPOCHS} epochs; ours: {protocol.arch}, {precision}, {protocol.epochs} epochs"
    )
    kinds: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        name: (their_step(bench, copies), epoch_under(defense, bench, args))
        for name, copies, defense in (
            ("plain", 0, "standard"),
            ("one copy", 1, "ueraser_lite"),
            ("the hardest of 5", 5, "ueraser_max"),
        )
    }
    theirs: dict[str, float] = {}
    ours: dict[str, float] = {}
    for name, (step, epoch) in kinds.items():
        pairs = [
            (processor_seconds(step) / THEIR_BATCH, processor_seconds(epoch) / args.images)
            for _ in range(args.rounds + 1)
        ][1:]  # the first round warms up
        theirs[name], ours[name] = (
            statistics.median(side) * IMAGES for side in zip(*pairs, strict=True)
        )
        ratios = [a / b for a, b in pairs]
        print(
            f"an epoch of {IMAGES:,} images, {name}: theirs {theirs[name] / 60:.1f} min, ours "
            f"{ours[name] / 60:.2f} min, {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"\n{args.attack}: hours for a cell, and the accuracy after the last epoch in %")
    for defense in DEFENSES:
        their_hours = hours(theirs, defense, THEIR_EPOCHS)
        our_hours = hours(ours, defense, protocol.epochs)
        printed = their_accuracy(args.attack, defense)
        measured = our_accuracy(args.results, args.attack, defense)
        print(
            f"{defense:14}theirs {their_hours:7.1f} h, {printed}; ours {our_hours:6.2f} h, "
            f"{measured}; {their_hours / our_hours:.0f} times faster"
        )


def their_step(bench: Bench, copies: int) -> Callable[[], None]:
    """Return a step as the authors train: plain if there are no copies, else UEraser's."""
    images, labels = bench.examples()

    def plain(model: nn.Module) -> torch.Tensor:
        return F.cross_entropy(model(images), labels)

    if not copies:
        return bench.plain_step(plain)
    rng = torch.Generator().manual_seed(0)
    return bench.plain_step(kornia_loss(images, labels, copies, installed_behaviour(), rng))


def hours(epoch_seconds: dict[str, float], defense: str, epochs: int) -> float:
    """Return the hours of a training, given the seconds of an epoch of each kind."""
    if defense == "standard":
        return epochs * epoch_seconds["plain"] / 3600
    facts = Facts("cifar10", 10, (3, 32, 32), epochs, "resnet18")
    hardest: int = build_defense(defense).resolve(facts).options()["adversarial_epochs"]
    seconds = hardest * epoch_seconds["the hardest of 5"]
    return (seconds + (epochs - hardest) * epoch_seconds["one copy"]) / 3600


def their_accuracy(attack: str, defense: str) -> str:
    """Return the accuracy that the paper prints, in words."""
    for row in read_published():
        place = (row.source, row.table, row.dataset, row.arch, row.attack, row.defense)
        if place == ("ueraser-2023", "2", "cifar10", "resnet18", attack, defense):
            return f"{100 * row.accuracy:.1f} printed"
    return "not printed"


def our_accuracy(folder: Path | None, attack: str, defense: str) -> str:
    """Return the accuracy that a results folder holds, in words."""
    if folder is None:
        return "not looked up"
    with (folder / "cells.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["attack"], row["defense"], row["status"]) == (attack, defense, "ok"):
                return f"{100 * float(row['test_acc']):.1f} measured"
    return "not measured"


if __name__ == "__main__":
    main()
