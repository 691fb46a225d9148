"""Cells made up for the tests of the tables: all of them finished on one tiny setting."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

from tests.browser import browser

FINISHED = {
    "dataset": "synthetic",
    "arch": "resnet18",
    "protocol": "quick",
    "attack": "em",
    "attack_options": "",
    "defense": "standard",
    "defense_options": "",
    "ratio": 1.0,
    "classes": "",
    "seed": 0,
    "status": "ok",
    "test_acc": 0.5,
    "test_acc_best": 0.625,
    "best_epoch": 7,
    "train_acc": 0.99,
    "n_train": 2000,
    "n_test": 500,
    "craft_seconds": 1.5,
    "train_seconds": 10.0,
    "peak_memory_mb": 300.0,
    "device": "cpu",
    "precision": "fp32",
    "poison_sha256": "ab",
    "error": "",
    "poison_seed": 0,
    "epochs": 30,
}
UNTRAINED = dict.fromkeys(
    ("test_acc", "test_acc_best", "best_epoch", "train_acc", "n_train", "n_test", "epochs")
)

Cells = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def cells() -> Cells:
    """Return a maker of cells: each argument says how one cell differs from a finished one."""

    def make(*differences: dict[str, Any]) -> pd.DataFrame:
        rows = []
        for difference in differences:
            failed = UNTRAINED if difference.get("status", "ok") != "ok" else {}
            row = FINISHED | failed | difference
            result = ("test_acc", "test_acc_best", "status")
            recipe = [str(v) for name, v in row.items() if name not in result]
            rows.append({"key": "/".join(recipe)} | row)
        return pd.DataFrame(rows)

    return make


@pytest.fixture
def odd(cells: Cells) -> pd.DataFrame:
    """Return cells with odd names, a missing, a failed and a skipped one, and several seeds."""
    names = [
        "none",
        "a_b%c&d$e#f{g}h~i^j\\k|l",
        "[bracket*] --dash",
        'é ü ß λ Δ ± ≤ \u00d7 — "quoted" `tick`',
        "漢字 🎉 \u202eturned",
        "\x1b[31mred\x1b[0m\x07\nline",
        "*star",
        "=1+2",
        "[red]markup[/red]",
    ]
    rows = [
        {"attack": attack, "attack_options": "x_y=1%,[z]*" * (k % 3 == 2), "defense": defense}
        | {"seed": seed, "test_acc": (k + seed + len(defense)) / 40}
        for k, attack in enumerate(names)
        for defense in ("standard", "ueraser_lite", "at_50%", "漢<b>|`x`")
        for seed in range(2)
        if (k, defense) != (3, "at_50%")
    ]
    rows += [
        {"attack": "*star", "defense": "iss", "status": "failed", "error": "Traceback\n  x"},
        {"attack": "=1+2", "defense": "iss", "status": "skipped"},
    ]
    return cells(*rows)
