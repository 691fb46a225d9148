"""What a run teaches, in sentences."""

import math

import pandas as pd
import pytest

from uebench.report import COLUMNS, leaderboards, summary
from uebench.report.groups import Method
from uebench.report.summary import difference


def cells(accuracies: dict[tuple[str, str, int], float], n_test: int = 1000) -> pd.DataFrame:
    """Return cells with these accuracies by attack, defense and seed."""
    fixed = {"dataset": "d", "arch": "a", "protocol": "p", "ratio": 1.0, "status": "ok"}
    return pd.DataFrame(
        [
            dict.fromkeys(COLUMNS)
            | fixed
            | {"attack": attack, "defense": defense, "seed": seed, "poison_seed": 0}
            | {"test_acc": acc, "n_test": n_test, "n_train": 10, "key": f"{attack}{defense}{seed}"}
            for (attack, defense, seed), acc in accuracies.items()
        ]
    )


ONE_SEED = {
    ("none", "standard", 0): 0.9,
    ("none", "ueraser", 0): 0.8,
    ("em", "standard", 0): 0.31,
    ("em", "ueraser", 0): 0.742,
    ("lsp", "standard", 0): 0.2,
    ("lsp", "ueraser", 0): 0.22,
}


def test_attacks_extremes_and_noise() -> None:
    lines = summary(leaderboards(cells(ONE_SEED)), {"em": "EM", "standard": "Standard"})
    assert lines == [
        "clean data: 90.0 % under Standard, 80.0 % under ueraser",
        "EM: 31.0 % under Standard, 74.2 % under ueraser",
        "lsp: 20.0 % under Standard, 22.0 % under ueraser",
        "strongest attack: lsp, 22.0 % under its best defense (ueraser)",
        "weakest defense: Standard, at worst 20.0 % (lsp)",
        "strongest defense: ueraser, at worst 22.0 % (lsp)",
        "within noise (1 of 3 pairs of defenses): Standard and ueraser under lsp (-2.0)",
        "one seed only: what another seed would change is not in this noise",
    ]


def test_noise_counts_test_images_and_seeds() -> None:
    (board,) = leaderboards(cells(ONE_SEED))
    em, standard, ueraser = Method("em"), Method("standard"), Method("ueraser")
    gap, error = difference(board, em, ueraser, standard) or (0, 0)
    assert gap == pytest.approx(0.432)
    assert error == pytest.approx(math.sqrt((0.31 * 0.69 + 0.742 * 0.258) / 1000))
    spread = {("em", "standard", 0): 0.2, ("em", "standard", 1): 0.4, ("em", "ueraser", 0): 0.5}
    (board,) = leaderboards(cells(spread))
    _, error = difference(board, em, ueraser, standard) or (0, 0)
    assert error == pytest.approx(math.sqrt((0.3 * 0.7 + 0.25) / 1000 + 0.02 / 2))
    assert any("within noise" in line for line in summary([board]))
    assert difference(board, em, Method("iss"), standard) is None


def test_more_test_images_tell_more_apart() -> None:
    lines = summary(leaderboards(cells(ONE_SEED, n_test=10_000)))
    assert "no two defenses are within noise of each other (3 pairs)" in lines


def test_nothing_measured_says_nothing() -> None:
    frame = cells(ONE_SEED).assign(status="failed", test_acc=None)
    assert summary(leaderboards(frame)) == []
