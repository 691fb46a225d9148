"""What a run teaches, in sentences."""

import pandas as pd
import pytest

from uebench.report import COLUMNS, leaderboards, summary


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
        "best within noise: lsp: Standard, ueraser",
        "one seed only: this noise does not cover what another seed would change",
    ]


def test_more_test_images_separate_closer_results() -> None:
    lines = summary(leaderboards(cells(ONE_SEED, n_test=10_000)))
    assert not any("within noise" in line for line in lines)


def test_several_seeds_are_described_differently_from_one_run() -> None:
    two = {(a, d, seed): acc for (a, d, _), acc in ONE_SEED.items() for seed in (0, 1)}
    assert not any("one seed" in line for line in summary(leaderboards(cells(two))))


def test_the_heading_of_a_leaderboard_names_what_distinguishes_it() -> None:
    frame = pd.concat(
        [cells(ONE_SEED).assign(epochs=12, key="x"), cells(ONE_SEED).assign(epochs=18, ratio=0.5)]
    )
    heads = [line for line in summary(leaderboards(frame)) if line.endswith(":")]
    assert sorted(heads) == ["d, a, 12 epochs:", "d, a, 18 epochs, poisoning ratio 0.5:"]


def test_no_measurements_give_no_summary() -> None:
    frame = cells(ONE_SEED).assign(status="failed", test_acc=None)
    assert summary(leaderboards(frame)) == []


def test_a_run_that_learned_nothing_draws_no_conclusion_about_attacks() -> None:
    tiny = {cell: 0.1 + 0.01 * i for i, cell in enumerate(ONE_SEED)}
    boards = leaderboards(cells(tiny, n_test=200))
    lines = summary(boards, chance={"d": 0.1})
    assert lines[0].startswith("clean data: 10.0 %")
    assert lines[3:] == [
        "the clean model has not learned: 11.0 % at best are within noise of chance "
        "(10.0 %, 200 test images); this run says nothing about attacks yet, so give it more "
        "epochs or more images"
    ]
    assert any(line.startswith("strongest attack") for line in summary(boards)), "chance unknown"


@pytest.mark.parametrize("attack", ["none", "em"])
def test_a_clean_model_that_learned_is_judged_by_chance_of_its_data(attack: str) -> None:
    learned = {(attack if a == "none" else a, d, s): v for (a, d, s), v in ONE_SEED.items()}
    lines = summary(leaderboards(cells(learned)), chance={"d": 0.1, "other": 0.9})
    assert any(line.startswith("strongest attack") for line in lines)
