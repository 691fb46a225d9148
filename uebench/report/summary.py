"""What a run teaches, in sentences: each attack, the extremes, and what is within noise.

Two accuracies differ beyond noise where they lie more than two standard errors apart. The error
counts the test images as draws (p (1 - p) / n_test), and the runs where there are several; what one
run alone owes to its seed it cannot tell, and the summary says so.
"""

import math
from collections.abc import Sequence
from itertools import combinations

from .groups import Method
from .layout import Titles, percent
from .tables import Leaderboard

Z = 2.0
"""Standard errors that two accuracies must lie apart."""
SHOWN = 4
"""Defenses named in a line, and pairs within noise."""


def summary(boards: Sequence[Leaderboard], titles: Titles | None = None) -> list[str]:
    """Return lines that say what the leaderboards show, names replaced as `titles` says."""
    titles = titles or {}
    lines: list[str] = []
    for board in boards:
        if len(boards) > 1:
            settings = board.settings
            lines.append(f"{settings.dataset}, {settings.arch}, ratio {settings.ratio:g}:")
        lines += _of_one(board, titles)
    return lines


def _of_one(board: Leaderboard, titles: Titles) -> list[str]:
    """Return the lines of one leaderboard."""
    lines = [line for a in board.attacks if (line := _of_attack(board, a, titles))]
    strongest = _extreme(board, board.poisons, board.defenses, titles)
    if strongest and len(board.poisons) > 1:
        lines.append(f"strongest attack: {strongest}")
    held = {d: board.worst_attack(d) for d in board.defenses}
    judged = {d: e for d, e in held.items() if e.by is not None}
    if len(judged) > 1:
        for what, pick in (("weakest", min), ("strongest", max)):
            defense = pick(judged, key=lambda d: judged[d].value)
            worst = judged[defense]
            assert worst.by is not None
            lines.append(
                f"{what} defense: {_title(defense, titles)}, at worst {percent(worst.value)} % "
                f"({_title(worst.by, titles)})"
            )
    return lines + _noise(board, titles)


def _of_attack(board: Leaderboard, attack: Method, titles: Titles) -> str:
    """Return an attack's accuracies in a line: the first defense, then the best ones."""
    stats = {d: board.stat(attack, d) for d in board.defenses if board.stat(attack, d).n}
    if not stats:
        return ""
    first, *others = stats
    best = sorted(others, key=lambda d: -stats[d].mean)[: SHOWN - 1]
    told = [f"{percent(stats[d].mean)} % under {_title(d, titles)}" for d in (first, *best)]
    more = len(others) - len(best)
    return f"{_title(attack, titles)}: {', '.join(told)}" + (f", {more} lower" if more else "")


def _extreme(
    board: Leaderboard, attacks: Sequence[Method], defenses: Sequence[Method], titles: Titles
) -> str:
    """Return the attack whose best defense gives the least, in words."""
    best = {a: board.best_defense(a) for a in attacks}
    known = {a: e for a, e in best.items() if e.by is not None}
    if not known or len(defenses) < 2:
        return ""
    attack = min(known, key=lambda a: known[a].value)
    by = known[attack].by
    assert by is not None
    return (
        f"{_title(attack, titles)}, {percent(known[attack].value)} % under its best defense "
        f"({_title(by, titles)})"
    )


def _noise(board: Leaderboard, titles: Titles) -> list[str]:
    """Return which defenses cannot be told apart under which attacks, and what was not measured."""
    pairs, n_pairs = [], 0
    for attack in board.attacks:
        for one, other in combinations(board.defenses, 2):
            gap = difference(board, attack, one, other)
            if gap is None:
                continue
            n_pairs += 1
            if abs(gap[0]) <= Z * gap[1]:
                names = f"{_title(one, titles)} and {_title(other, titles)}"
                pairs.append(f"{names} under {_title(attack, titles)} ({100 * gap[0]:+.1f})")
    lines = []
    if pairs:
        more = f", and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        lines.append(
            f"within noise ({len(pairs)} of {n_pairs} pairs of defenses): "
            f"{'; '.join(pairs[:SHOWN])}{more}"
        )
    elif n_pairs:
        lines.append(f"no two defenses are within noise of each other ({n_pairs} pairs)")
    if n_pairs and any(0 < board.stat(a, d).n < 2 for a in board.attacks for d in board.defenses):
        lines.append("one seed only: what another seed would change is not in this noise")
    return lines


def difference(
    board: Leaderboard, attack: Method, one: Method, other: Method
) -> tuple[float, float] | None:
    """Return how much higher `one` is than `other` under an attack, and its standard error.

    None where one of them was not measured, or the number of test images is not known.
    """
    first, second = board.stat(attack, one), board.stat(attack, other)
    n_test = board.settings.n_test
    if not first.n or not second.n or not n_test:
        return None
    variance = 0.0
    for stat in (first, second):
        variance += stat.mean * (1 - stat.mean) / n_test
        if stat.n > 1:
            variance += stat.sd**2 / stat.n
    return first.mean - second.mean, math.sqrt(variance)


def _title(method: Method, titles: Titles) -> str:
    """Return a method as tables call it."""
    name = "clean data" if method.is_clean else titles.get(method.name, method.name)
    return f"{name}[{method.options}]" if method.options else name
