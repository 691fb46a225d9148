"""A made-up results folder with all there can be: settings, budgets, repeats, records, poisons."""

import hashlib
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.report.conftest import FINISHED
from uebench.data.pictures import Strip, write_strip
from uebench.report import write_cells
from uebench.report.records import write_records

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
"""What a name, a label or an error of a stranger may hold."""
NAMES = ["cat", "dog", HOSTILE]
ATTACKS = {"": None, "eps=16/255": 16 / 255}
EPOCHS = (1, 2, 3)


def key_of(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def accuracy(dataset: str, attack: str, defense: str, ratio: float, seed: int) -> float:
    """Return an accuracy that differs from cell to cell and orders the defenses."""
    low = {"none": 0.9, "em": 0.2, "lsp": 0.5}[attack] - 0.1 * (dataset == "two")
    gain = {"standard": 0.0, "ueraser_max": 0.3, "hostile": 0.1}[defense]
    return round(
        low + (0.02 if attack == "none" else gain) + 0.1 * (1 - ratio) * (low < 0.8), 3
    ) + (0.01 * seed)


def story_rows() -> list[dict[str, Any]]:
    """Return the rows of cells.csv: two data sets, two networks, two ratios, two seeds."""
    attacks = [("none", ""), ("em", ""), ("em", "eps=16/255"), ("lsp", "")]
    defenses = [
        ("standard", ""),
        ("ueraser_max", "repeats=2"),
        ("ueraser_max", "repeats=5"),
        ("hostile", HOSTILE),
    ]
    rows = []
    places = [("one", "resnet8"), ("one", "resnet18"), ("two", "resnet8")]
    for (dataset, arch), ratio, attack, defense, seed in product(
        places, (0.5, 1.0), attacks, defenses, (0, 1)
    ):
        if ratio < 1 and (attack[0] == "none" or arch == "resnet18"):
            continue
        value = accuracy(dataset, attack[0], defense[0], ratio, seed)
        value += 0.05 * (attack[1] != "") - 0.02 * (defense[1] == "repeats=2")
        lost = attack[0] == "lsp" and defense[0] == "hostile"
        row = FINISHED | {
            "dataset": dataset,
            "arch": arch,
            "attack": attack[0],
            "attack_options": attack[1],
            "defense": defense[0],
            "defense_options": defense[1],
            "ratio": ratio,
            "seed": seed,
            "test_acc": value,
            "test_acc_best": min(1.0, 1.02 - value),  # the other order, so that a switch is seen
            "best_epoch": 2,
            "train_seconds": 10.0 * (1 + defenses.index(defense)),
            "poison_sha256": "" if attack[0] == "none" else key_of("sha", dataset, attack),
            "key": key_of(dataset, arch, ratio, attack, defense, seed),
            "epochs": len(EPOCHS),
        }
        if lost:
            row |= dict.fromkeys(("test_acc", "test_acc_best", "best_epoch", "train_acc"))
            row |= {"status": "failed", "error": f"ValueError: {HOSTILE}"}
        rows.append(row)
    return rows


def write_story(folder: Path) -> Path:
    """Write the folder and return it."""
    rows = story_rows()
    folder.mkdir(parents=True, exist_ok=True)
    write_cells(pd.DataFrame(rows), folder / "cells.csv")
    write_records(
        folder / "records.json",
        {row["key"]: record(row) for row in rows if row["status"] == "ok"},
    )
    told = {
        "command": ["uebench", "run", "--attacks", "none,em", "--out", f"a b {HOSTILE}"],
        "config": {"title": f"A story {HOSTILE}", "dataset": ["one", "two"]},
        "versions": {"uebench": "0.1.0", "torch": "2.15.0"},
        "machine": {"platform": "Linux", "cores": 2},
        "recipes": {row["key"]: recipe(row) for row in rows},
        "poisons": poisons(rows),
        "failures": {
            row["key"]: {
                "cell": "lsp x hostile",
                "error": row["error"],
                "traceback": f"Traceback\n{HOSTILE}",
            }
            for row in rows
            if row["status"] == "failed"
        },
        "datasets": {
            name: {"class_names": NAMES, "fingerprint": "f" * 64, "shape": [3, 8, 8]}
            for name in ("one", "two")
        },
        "methods": {
            "em": {"title": "EM", "source": "arXiv:2101.04898"},
            "ueraser_max": {"title": "UEraser-Max", "source": "javascript:alert(3)"},
            "hostile": {"title": HOSTILE, "source": HOSTILE},
        },
    }
    (folder / "run.json").write_text(json.dumps(told))
    for key, poison in told["poisons"].items():  # type: ignore[attr-defined]
        pixels = np.full((24, 48, 3), 99, dtype=np.uint8)
        strip = Strip(pixels, ["cat", "cat", HOSTILE], 15.9, "its budget fills the range")
        write_strip(strip, folder / "pictures" / f"{poison['recipe']['attack']}-{key[:8]}.png")
    return folder


def record(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the store keeps of a cell."""
    correct = round(100 * row["test_acc"])
    last = row["test_acc"]
    return {
        "test_acc": last,
        "curve": [{"epoch": e, "loss": 2 / e, "lr": 0.1, "test_acc": last * e / 3} for e in EPOCHS],
        "confusion": [
            [correct, 100 - correct, 0],
            [100 - correct, correct, 0],
            [0, 0, 100],
        ],
        "prepare_seconds": 0.5,
        "images_per_second": 1234.5,
        "augment_share": 0.25,
        "versions": {"torch": "2.15.0"},
        "recipe": {"left": "out"},
    }


def recipe(row: dict[str, Any]) -> dict[str, Any]:
    """Return what made a cell: the budget and the repeats, resolved."""
    eps = {"": 8 / 255, "eps=16/255": 16 / 255}[row["attack_options"]]
    norm = "linf" if row["attack"] == "em" else "l2"
    clean = row["attack"] == "none"
    repeats = row["defense_options"].removeprefix("repeats=")
    return {
        "what": "cell",
        "poison": {"dataset": "f"}
        if clean
        else {"dataset": "f", "attack": row["attack"], "options": {"norm": norm, "eps": eps}},
        "options": {"repeats": int(repeats)} if repeats.isdigit() else {},
        "protocol": {"epochs": 3, "lr": 0.2},
    }


def poisons(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what was measured on each poison, by key."""
    made = {}
    for row in rows:
        if row["poison_sha256"]:
            made[key_of("poison", row["poison_sha256"])] = {
                "spec": f"{row['attack']}[{row['attack_options']}]",
                "recipe": {"attack": row["attack"], "seed": 0, "dataset": "f"},
                "budget": {"norm": "linf", "eps": 8 / 255},
                "sha256": row["poison_sha256"],
                "craft_seconds": 600.0,
                "linf_max": 8.0,
                "psnr_mean": 32.5,
                "order_kept": True,
            }
    return made
