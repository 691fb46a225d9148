"""What it costs to craft each attack's poison of 50,000 CIFAR images with the `quick` surrogate.

Each search is run for a few of its steps on the first images of a data set, in processor time of
one thread. The seconds without the checks of the result are multiplied by the passes of the whole
search on 50,000 images, as the attack counts them. An attack that takes no passes is run as it is
on all images, but TUE on the first ones and with two numbers of sweeps.

    python benchmarks/craft_costs.py --dataset npz:cifar10.npz --csv docs/costs/attacks.csv
"""

import argparse
import csv
from pathlib import Path

import torch
from steps import machine_name, processor_seconds

from uebench import Attack, Facts, Run, Split, load_dataset
from uebench.learn.protocol import named_protocol
from uebench.methods.registry import build_attack, methods

IMAGES = 50_000
SHORT = {
    "em": "em[rounds=1,train_steps=2,steps=2]",
    "cifar10_s": "cifar10_s[rounds=1,train_steps=2,steps=2]",
    "adaptive_em": "adaptive_em[rounds=1,train_steps=2,steps=2]",
    "pue": "pue[rounds=1,train_steps=2,steps=1]",
    "rem": "rem[train_steps=1,transform_draws=1,steps=1]",
    "sem": "sem[train_steps=1,transform_draws=1,steps=1]",
    "hypo": "hypo[surrogate_epochs=1,steps=2]",
    "p3": "p3[surrogate_epochs=1,steps=2]",
    "p4": "p4[surrogate_epochs=1,steps=2]",
    "tap": "tap[surrogate_epochs=1,steps=2,restarts=1]",
    "aap": "aap[surrogate_epochs=1,surrogate_lr=0.05,steps=2]",
    "entf": "entf[surrogate_epochs=1,adv_steps=1,steps=2]",
    "sep": "sep[surrogate_epochs=1,checkpoints=1,steps=3]",
    "sep_fa": "sep_fa[surrogate_epochs=1,checkpoints=1,steps=3]",
    "sep_fa_vr": "sep_fa_vr[surrogate_epochs=1,checkpoints=1,steps=1,inner_steps=2]",
    "aue": "aue[epochs=1,steps=2]",
    "mi_ue": "mi_ue[epochs=1,steps=2]",
    "gue": "gue[epochs=1,copy_steps=2]",
    "tue": "tue[sweeps=4]",
}
"""The shortened searches of attacks that take long."""
LONGER = {"tue": ("tue[sweeps=24]", (200 - 4) / (24 - 4))}
"""A longer search where no passes tell, and how often it adds its difference to the one of `SHORT`
in the whole search."""


def main() -> None:
    """Print one line per attack, and write all of them to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--searched", type=int, default=256, help="images of shortened searches")
    parser.add_argument(
        "--cheap", type=int, default=IMAGES, help="images of attacks that take no passes"
    )
    parser.add_argument("--csv", type=Path, help="file to write")
    parser.add_argument("attacks", nargs="*", help="attacks; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = load_dataset(args.dataset).train
    surrogate = named_protocol("quick", "").surrogate
    facts = Facts("cifar10", train.n_classes, train.shape, 1, surrogate)
    machine = f"{machine_name(torch.device('cpu'))}, torch {torch.__version__}, bf16"
    craft_seconds(
        build_attack(SHORT["em"]).resolve(facts), train.subset(torch.arange(min(64, len(train))))
    )
    rows = []
    built_in = [name for name, cls in methods("attack").items() if cls.info.origin == "built-in"]
    for name in args.attacks or built_in:
        passes = build_attack(name).resolve(facts).image_passes(IMAGES) / IMAGES
        few = passes or name in LONGER
        part = train.subset(torch.arange(min(len(train), args.searched if few else args.cheap)))
        attack = build_attack(SHORT.get(name, name)).resolve(facts)
        seconds = craft_seconds(attack, part)
        if passes:
            checks = craft_seconds(build_attack("none").resolve(facts), part)
            share = passes * len(part) / attack.image_passes(len(part))
            seconds = checks + (seconds - checks) * share
        elif name in LONGER:
            text, times = LONGER[name]
            longer = craft_seconds(build_attack(text).resolve(facts), part)
            seconds += times * (longer - seconds)
        total = seconds * IMAGES / len(part)
        seconds_text = f"{float(f'{total:.2g}'):g}"
        figures = {"passes": round(passes), "seconds": seconds_text, "machine": machine}
        rows.append({"attack": name, **figures})
        print(f"{name:14} {passes:8,.0f} passes {total:12,.1f} s", flush=True)
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def craft_seconds(attack: Attack, data: Split) -> float:
    """Return the processor seconds of crafting; the first call also pays for what loads once."""
    run = Run(shape=data.shape, n_classes=data.n_classes, seed=0, precision="bf16")
    return processor_seconds(lambda: attack.craft(data, run))


if __name__ == "__main__":
    main()
