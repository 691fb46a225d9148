"""The uncertainty of accuracies: intervals, what is within noise of the best, ranks, correlation.

A measured accuracy varies with the finite test set and with the seeds of the poison and of the
training. A single run shows only the first, so its interval is the binomial one (Wilson). Several
runs share one test set, so the error due to it does not shrink with their number.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

LEVEL = 0.95
"""The confidence level of every interval and comparison."""

SETTLED = 3
"""The smallest number of runs from which the noise between seeds can be judged at all."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (ddof 1) of `n` accuracies in [0, 1].

    The mean is NaN for n = 0, the standard deviation for n < 2.
    """

    mean: float = math.nan
    sd: float = math.nan
    n: int = 0

    @classmethod
    def of(cls, values: Sequence[float]) -> "Stat":
        """Return the statistics of `values`, which may be empty."""
        n = len(values)
        mean = math.fsum(values) / n if n else math.nan
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else math.nan
        return cls(mean, sd, n)


def wilson(accuracy: float, n_test: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy that was counted on `n_test` images."""
    from scipy import stats  # importing it takes a second, and few verbs need it

    bounds = stats.binomtest(round(accuracy * n_test), n_test).proportion_ci(LEVEL, "wilson")
    return float(bounds.low), float(bounds.high)


def confidence_interval(stat: Stat, n_test: int | None) -> tuple[float, float]:
    """Return the 95 % interval of an entry, NaN where nothing is known.

    One run: the binomial one over the test images. Several: Student's, of the mean over the runs,
    clipped to [0, 1]; it covers other seeds on the same test set.
    """
    if stat.n == 1 and n_test:
        return wilson(stat.mean, n_test)
    if stat.n < 2:
        return math.nan, math.nan
    margin = _student(stat.sd, stat.n - 1) / math.sqrt(stat.n)
    return max(0.0, stat.mean - margin), min(1.0, stat.mean + margin)


def sampling_margin(stat: Stat, n_test: int | None) -> float:
    """Return half the width of the binomial interval, 0 where the test set's size is unknown."""
    if not n_test:
        return 0.0
    low, high = wilson(stat.mean, n_test)
    return (high - low) / 2


def over_images(stat: Stat, n_test: int | None) -> tuple[float, float]:
    """Return the 95 % interval over other seeds and other test images.

    The interval of a single run covers the test images already; that of several runs is widened.
    """
    low, high = confidence_interval(stat, n_test)
    if stat.n < 2:
        return low, high
    images = sampling_margin(stat, n_test)
    down, up = math.hypot(stat.mean - low, images), math.hypot(high - stat.mean, images)
    return max(0.0, stat.mean - down), min(1.0, stat.mean + up)


def provisional(entries: Iterable[Stat]) -> bool:
    """Return whether a comparison includes an entry of fewer than `SETTLED` runs."""
    return any(0 < stat.n < SETTLED for stat in entries)


def best_within_noise(
    entries: Mapping[K, Stat], n_test: int | None, *, lowest: bool = False
) -> set[K]:
    """Return the best entry and those whose distance from it is within the noise of the two.

    The best is the highest, or the `lowest` if asked for.

    The noise of an entry is that of the test set and that of its seeds. The seeds' variance is
    pooled over the two that are compared, or, where both are single runs, over all entries.
    The test is conservative: it treats the models' test sets as independent, although models agree
    on which images are hard, so that differences over a third smaller may be real. A single entry
    is not compared, and entries that print the same percentage with one decimal tie.
    """
    measured = {key: stat for key, stat in entries.items() if stat.n}
    if len(measured) < 2:
        return set()
    pick = min if lowest else max
    best = pick(measured.values(), key=lambda stat: stat.mean)
    of_all = _seed_noise(list(measured.values()))

    def ties(stat: Stat) -> bool:
        seeds = _seed_noise([best, stat]) or of_all
        allowed = math.hypot(
            sampling_margin(best, n_test),
            sampling_margin(stat, n_test),
            seeds * math.sqrt(1 / best.n + 1 / stat.n),
        )
        return abs(best.mean - stat.mean) <= allowed or f"{stat.mean:.3f}" == f"{best.mean:.3f}"

    return {key for key, stat in measured.items() if ties(stat)}


def _seed_noise(stats: Sequence[Stat]) -> float:
    """Return the half-width of Student's interval of one run, variances pooled; 0 if unknown."""
    freedom = sum(stat.n - 1 for stat in stats)
    squares = math.fsum((stat.n - 1) * stat.sd**2 for stat in stats if stat.n > 1)
    return _student(math.sqrt(squares / freedom), freedom) if freedom else 0.0


def mean_ranks(rows: Sequence[Mapping[K, float]]) -> dict[K, float]:
    """Return each key's mean rank over rows of accuracies: 1 is the highest, ties share.

    Only rows in which every key was measured count; without any there are no ranks.
    """
    from scipy import stats

    keys = list(dict.fromkeys(key for row in rows for key in row))
    whole = [
        [row[key] for key in keys]
        for row in rows
        if all(not math.isnan(row.get(key, math.nan)) for key in keys)
    ]
    if not whole or len(keys) < 2:
        return {}
    ranks = stats.rankdata([[-value for value in row] for row in whole], axis=1).mean(axis=0)
    return {key: float(rank) for key, rank in zip(keys, ranks, strict=True)}


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Return Spearman's rank correlation; NaN for fewer than three pairs or constant values."""
    from scipy import stats

    ours, theirs = [p[0] for p in pairs], [p[1] for p in pairs]
    if len(pairs) < 3 or len(set(ours)) < 2 or len(set(theirs)) < 2:
        return math.nan
    return float(stats.spearmanr(ours, theirs).statistic)


def _student(sd: float, freedom: int) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * sd
