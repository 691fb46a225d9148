"""What a training step costs under each defense, relative to standard training.

Whole epochs of one data set are trained, the defenses in turn for several rounds. The processor
time of this process is taken, with one thread, so that other processes matter little. What a
defense does before the training is printed apart, in seconds for these images.

    python benchmarks/step_costs.py --arch resnet18 --images 256
    python benchmarks/step_costs.py --arch resnet8 --defenses all --csv docs/costs/defenses.csv
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

import torch
from steps import machine_name

from uebench import Facts, Run, load_dataset
from uebench.common.spec import split_specs
from uebench.learn.protocol import named_protocol
from uebench.methods.registry import build_defense, methods
from uebench.victims.supervised import train_model

DEFENSES = "standard,op,coin,rsk_ff,sda_an[noise=false],iss,ueraser,at4,trades"

UNPREPARED = {"sda_an": "[noise=false]", "dvae": "[epochs=1,width=16]"}
"""Options with which a defense has little to compute before the training, whose steps are timed."""


def main() -> None:
    """Print one line per defense: the median ratio, its range, and the time of `prepare`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--defenses", default=DEFENSES, help="specs, separated by commas, or all")
    parser.add_argument("--csv", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(f"synthetic[n_train={args.images},n_test=10]")
    protocol = named_protocol("paper", "", epochs=1, batch_size=128, eval_every=10)
    facts = Facts("synthetic", data.n_classes, data.shape, 10, args.arch)
    names = split_specs(args.defenses)
    if names == ["all"]:
        names = ["standard", *(name for name in methods("defense") if name != "standard")]
        names = [f"{name}{UNPREPARED.get(name, '')}" for name in names]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    before: dict[str, float] = {}
    for _ in range(args.rounds + 1):
        for name in names:
            run = Run(
                shape=data.shape, n_classes=data.n_classes, seed=0, epochs=1, precision="bf16"
            )
            defense = build_defense(name).resolve(facts)
            start = time.process_time()
            prepared = defense.prepare(data.train, run)
            before[name] = time.process_time() - start
            start = time.process_time()
            none = data.test.subset(torch.arange(2))
            train_model(prepared, none, args.arch, defense.adjust(protocol), defense, run)
            seconds[name].append(time.process_time() - start)
    machine = f"{machine_name(torch.device('cpu'))}, torch {torch.__version__}, bf16"
    rows = []
    for name in names:
        # the first round warms up
        ratios = [a / b for a, b in zip(seconds[name][1:], seconds[names[0]][1:], strict=True)]
        print(
            f"{name:22} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"prepare {before[name]:.1f} s"
        )
        figures = [statistics.median(ratios), min(ratios), max(ratios)]
        rows.append([name.partition("[")[0], args.arch, *(f"{x:.2f}" for x in figures), machine])
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["defense", "arch", "median", "lowest", "highest", "machine"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
