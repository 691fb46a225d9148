"""What a run teaches, in sentences."""

import pandas as pd
import pytest

from uebench.report import COLUMNS, leaderboards, summary


def cells(
    accuracies: dict[tuple[str, str, int], float], n_test: int = 1000, chance: float | None = None
) -> pd.DataFrame:
    """Return cells with these accuracies by attack, defense and seed."""
    fixed = {"dataset": "d", "arch": "a", "protocol": "p", "ratio": 1.0, "status": "ok"}
    fixed |= {"chance": chance}
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
        "strongest attack of 2: lsp, 22.0 % under the best of 2 defenses (ueraser)",
        "no defense is weakest or strongest: both are within noise of each other",
        "best within noise: lsp: Standard, ueraser",
        "provisional, with one seed only: this noise does not cover what another seed would change",
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
    lines = summary(leaderboards(cells(tiny, n_test=200, chance=0.1)))
    assert lines[0].startswith("clean data: 10.0 %")
    assert lines[3:] == [
        "the clean model has not learned: the best accuracy, 11.0 %, is within noise of "
        "chance (10.0 %, 200 test images); this run says nothing about attacks yet, so give it "
        "more epochs or more images"
    ]
    lines = summary(leaderboards(cells(ONE_SEED, n_test=200)))
    assert any(line.startswith("strongest attack") for line in lines), "chance unknown"


@pytest.mark.parametrize("attack", ["none", "em"])
def test_a_clean_model_that_learned_is_judged_by_chance_of_its_data(attack: str) -> None:
    learned = {(attack if a == "none" else a, d, s): v for (a, d, s), v in ONE_SEED.items()}
    lines = summary(leaderboards(cells(learned, chance=0.1)))
    assert any(line.startswith("strongest attack") for line in lines)


def row(attack: str, *accuracies: float, n_seeds: int = 1) -> dict[tuple[str, str, int], float]:
    """Return the accuracies of one attack under the defenses a, b, ... with each seed."""
    return {
        (attack, "abc"[i], seed): value
        for i, value in enumerate(accuracies)
        for seed in range(n_seeds)
    }


CLEAN = row("none", 0.9, 0.9)


def test_where_all_tie_nothing_is_strongest_or_weakest() -> None:
    lines = summary(leaderboards(cells(CLEAN | row("em", 0.5, 0.51) | row("lsp", 0.5, 0.52))))
    assert "no attack is strongest: both are within noise of each other" in lines
    assert "no defense is weakest or strongest: both are within noise of each other" in lines
    assert not any("strongest attack" in line or "weakest defense" in line for line in lines)


def test_of_three_those_that_tie_are_named_together() -> None:
    three = CLEAN | row("em", 0.5, 0.2) | row("lsp", 0.51, 0.1) | row("ar", 0.8, 0.7)
    lines = summary(leaderboards(cells(three)))
    assert (
        "strongest attacks of 3, within noise of each other: em, 50.0 % under the best of 2 "
        "defenses (a); lsp, 51.0 % under the best of 2 defenses (a)"
    ) in lines
    assert "weakest defense of 2: b, at worst 10.0 % over 3 attacks (lsp)" in lines


def test_only_worst_cases_over_every_opponent_are_compared() -> None:
    lacking = CLEAN | row("em", 0.5, 0.2) | row("lsp", 0.8, 0.7) | row("ar", 0.1)
    lines = summary(leaderboards(cells(lacking)))
    assert "strongest attack of 2: em, 50.0 % under the best of 2 defenses (a)" in lines, (
        "ar lacks b"
    )
    assert not any(line.startswith(("weakest", "strongest defense")) for line in lines)


def test_many_defenses_are_ranked_over_the_attacks_that_all_of_them_faced() -> None:
    names = ("a", "b", "c", "d", "e")

    def of(attack: str, *accuracies: float) -> dict[tuple[str, str, int], float]:
        return {(attack, name, 0): value for name, value in zip(names, accuracies, strict=False)}

    values = {
        **of("none", 0.9, 0.9, 0.9, 0.9, 0.9),
        **of("em", 0.1, 0.2, 0.3, 0.4, 0.5),
        **of("lsp", 0.3, 0.2, 0.1, 0.4, 0.5),
        **of("ar", 0.9),
    }
    lines = summary(leaderboards(cells(values)), {"e": "E"})
    assert "mean rank over 2 attacks: E 1.0, d 2.0, a 4.0, b 4.0, c 4.0" in lines
    one = {key: value for key, value in values.items() if key[0] != "lsp"}
    assert not any("mean rank" in line for line in summary(leaderboards(cells(one))))
    four = {key: value for key, value in values.items() if key[1] != "e"}
    assert not any("mean rank" in line for line in summary(leaderboards(cells(four))))


def test_three_seeds_settle_what_two_do_not() -> None:
    def of(n: int) -> list[str]:
        values = row("none", 0.9, 0.6, n_seeds=n) | row("em", 0.5, 0.2, n_seeds=n)
        return summary(leaderboards(cells(values)))

    assert [any("provisional" in line for line in of(n)) for n in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(("best", "told"), [(0.11, "within noise of"), (0.18, "barely above")])
def test_a_clean_model_near_chance_allows_no_conclusion(best: float, told: str) -> None:
    near = {**row("none", best, 0.1), **row("em", 0.1, 0.15), **row("lsp", 0.05, 0.1)}
    lines = summary(leaderboards(cells(near, n_test=10_000 if best > 0.15 else 200, chance=0.1)))
    assert len(lines) == 4
    assert f"learned: the best accuracy, {100 * best:.1f} %, is {told} chance" in lines[-1]
    assert not any("near chance" in line for line in summary(leaderboards(cells(CLEAN))))


def test_without_clean_training_models_near_chance_allow_no_conclusion_either() -> None:
    lines = summary(leaderboards(cells(row("em", 0.11, 0.1) | row("lsp", 0.1, 0.1), chance=0.1)))
    assert lines[-1].startswith("no model has learned: the best accuracy, 11.0 %, is")
    assert "add the attack none" in lines[-1]


def test_a_defense_that_learned_nothing_from_clean_data_is_not_called_weakest() -> None:
    values = row("none", 0.9, 0.1, 0.8) | row("em", 0.3, 0.1, 0.7) | row("lsp", 0.6, 0.1, 0.7)
    lines = summary(leaderboards(cells(values, chance=0.1)))
    assert any(
        line.startswith("even on clean data, accuracy is near chance under b") for line in lines
    )
    assert "weakest defense of 2: a, at worst 30.0 % over 2 attacks (em)" in lines


def test_an_attack_that_poisons_no_image_is_named() -> None:
    frame = cells(CLEAN | row("em", 0.5, 0.2))
    frame["n_poisoned"] = 0
    assert "no image is poisoned by em, so that its row is clean training" in summary(
        leaderboards(frame)
    )
    frame["n_poisoned"] = [0, 0, 0, 7]
    assert not any("no image" in line for line in summary(leaderboards(frame)))
