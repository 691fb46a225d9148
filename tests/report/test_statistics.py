"""Intervals, noise, ranks and correlation against numbers worked out by hand or by other means."""

import math

import numpy as np
import pytest

from uebench.report.confusion import ConfusionMatrix
from uebench.report.groups import MethodSpec
from uebench.report.statistics import (
    Stat,
    best_within_noise,
    confidence_interval,
    mean_ranks,
    over_images,
    sampling_margin,
    spearman,
    wilson,
)
from uebench.report.tables import only_leaderboard as leaderboard


def test_wilson_by_its_formula():
    p, n, z = 0.9, 1000, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson(p, n) == pytest.approx((centre - half, centre + half))
    low, high = wilson(1.0, 20)
    assert high == 1.0
    assert 0.8 < low < 0.9


def test_wilson_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(0)
    counts, times = np.unique(rng.binomial(200, 0.85, 5000), return_counts=True)
    inside = [low <= 0.85 <= high for low, high in (wilson(k / 200, 200) for k in counts)]
    assert 0.93 < np.average(inside, weights=times) < 0.97


def test_the_interval_of_several_runs_follows_student_t():
    stat = Stat.of([0.80, 0.82, 0.84])
    assert confidence_interval(stat, 1000) == pytest.approx(
        (0.82 - 4.302653 * 0.02 / math.sqrt(3), 0.82 + 4.302653 * 0.02 / math.sqrt(3)), abs=1e-6
    )
    assert confidence_interval(Stat.of([0.99, 1.0]), 10)[1] == 1.0
    assert all(map(math.isnan, confidence_interval(Stat.of([]), 10)))
    assert all(map(math.isnan, confidence_interval(Stat.of([0.5]), None)))


def test_the_sampling_margin_shrinks_with_the_test_set():
    stat = Stat.of([0.5])
    assert sampling_margin(stat, 10_000) == pytest.approx(0.0098, abs=1e-4)
    assert sampling_margin(stat, None) == 0


def test_within_noise_of_the_best_for_single_runs():
    entries = {"a": Stat.of([0.60]), "b": Stat.of([0.57]), "c": Stat.of([0.50])}
    assert best_within_noise(entries, 1000) == {"a", "b"}
    assert best_within_noise(entries, 100_000) == {"a"}
    assert best_within_noise(entries, None) == {"a"}


def test_seeds_widen_the_noise_and_are_pooled():
    runs = {"a": [0.5, 0.6, 0.7], "b": [0.45, 0.55, 0.65], "c": [0.0, 0.1, 0.2]}
    loud = {name: Stat.of(values) for name, values in runs.items()}
    assert best_within_noise(loud, 10**8) == {"a", "b"}
    still = {"a": Stat.of([0.599, 0.601]), "b": Stat.of([0.549, 0.551])}
    assert best_within_noise(still, 10**8) == {"a"}
    one = {"a": Stat.of([0.5, 0.7]), "b": Stat.of([0.5])}
    assert best_within_noise(one, 10**8) == {"a", "b"}, "a single run has the others' seed noise"


def test_an_entry_with_a_large_spread_does_not_tie_others():
    steady = {"a": Stat.of([0.600, 0.601, 0.602]), "b": Stat.of([0.520, 0.521, 0.522])}
    loud = steady | {"loud": Stat.of([0.1, 0.3, 0.2])}
    assert best_within_noise(steady, 10_000) == best_within_noise(loud, 10_000) == {"a"}


def test_two_single_runs_have_the_seed_noise_of_all():
    entries = {"a": Stat.of([0.6]), "b": Stat.of([0.55]), "c": Stat.of([0.19, 0.20, 0.21])}
    assert best_within_noise(entries, 10**8) == {"a", "b"}
    assert best_within_noise({name: entries[name] for name in "ab"}, 10**8) == {"a"}


def test_more_seeds_do_not_remove_the_noise_of_the_test_images():
    runs = Stat.of([0.588, 0.590, 0.592])
    low, high = over_images(runs, 1000)
    seeds = confidence_interval(runs, 1000)[1] - 0.59
    assert high - 0.59 == pytest.approx(math.hypot(seeds, sampling_margin(runs, 1000)))
    assert 0.59 - low == pytest.approx(high - 0.59)
    assert over_images(Stat.of([0.59]), 1000) == wilson(0.59, 1000)
    assert over_images(runs, None) == confidence_interval(runs, None)
    assert over_images(Stat.of([0.99, 1.0]), 10)[1] == 1.0


def test_the_lowest_entries_tie_like_the_highest_ones():
    entries = {"a": Stat(0.9, n=1), "b": Stat(0.22, n=1), "c": Stat(0.2, n=1)}
    assert best_within_noise(entries, 1000) == {"a"}
    assert best_within_noise(entries, 1000, lowest=True) == {"b", "c"}
    assert best_within_noise(entries, 100_000, lowest=True) == {"c"}


def test_chance_is_the_share_of_the_largest_class():
    assert ConfusionMatrix.read([[1, 2], [5, 0]]).chance == 5 / 8
    assert ConfusionMatrix.read([]).chance is None
    assert ConfusionMatrix.read([[0, 0], [0, 0]]).chance is None


def test_a_single_entry_is_not_marked_best():
    assert best_within_noise({"a": Stat.of([0.5]), "b": Stat.of([])}, 100) == set()


def test_ranks_share_ties_and_leave_out_rows_with_gaps():
    rows = [{"a": 0.9, "b": 0.5, "c": 0.5}, {"a": 0.1, "b": 0.2, "c": 0.3}]
    assert mean_ranks(rows) == {"a": 2.0, "b": 2.25, "c": 1.75}
    gap = [*rows, {"a": 0.9, "b": math.nan, "c": 0.1}]
    assert mean_ranks(gap) == mean_ranks(rows)
    assert mean_ranks([{"a": math.nan, "b": 0.1}]) == {}


def test_spearman_matches_a_hand_computed_value():
    assert spearman([(1, 10), (2, 20), (3, 15)]) == pytest.approx(0.5)
    assert spearman([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1)
    assert math.isnan(spearman([(1, 3), (2, 2)]))
    assert math.isnan(spearman([(1, 3), (1, 2), (1, 1)]))


def test_a_leaderboard_ranks_its_defenses_over_the_poisons(cells):
    accuracy = {("none", "a"): 0.0, ("none", "b"): 1.0, ("em", "a"): 0.9, ("em", "b"): 0.1}
    board = leaderboard(
        cells(*({"attack": a, "defense": d, "test_acc": v} for (a, d), v in accuracy.items()))
    )
    assert board.ranks() == {MethodSpec("a"): 1.0, MethodSpec("b"): 2.0}
    assert board.best(MethodSpec("em")) == {MethodSpec("a")}


def test_two_recipes_are_not_averaged(cells):
    mixed = cells(
        {"recipe": "x", "suite_version": "1"}, {"recipe": "y", "suite_version": "2", "seed": 1}
    )
    with pytest.raises(ValueError, match=r"2 different recipes \(uebench 1, 2\)"):
        leaderboard(mixed)
    unknown = cells(
        {"recipe": "", "suite_version": "1"}, {"recipe": "", "suite_version": "2", "seed": 1}
    )
    with pytest.raises(ValueError, match="are not averaged"):
        leaderboard(unknown)
    same = cells(
        {"recipe": "x", "suite_version": "1"}, {"recipe": "x", "suite_version": "2", "seed": 1}
    )
    assert leaderboard(same).versions == ("1", "2")
