"""The results of a run in sentences: warnings, each attack, the extremes, ties within noise.

Noise is that of the tables (`statistics.best_within_noise`). It does not cover what other seeds
would change if there is only one, and the summary says so. If the model learned nothing even from
clean data, the summary says only that.
"""

from collections.abc import Sequence

from .conclusions import conclusions, noise, unlearned, warnings
from .groups import MethodSpec
from .tables import Leaderboard
from .words import Titles, method_label, percent, settings_in_words

MOST_NAMED = 4
"""The most defenses named in a line, and the most attacks listed with ties."""


def summary(boards: Sequence[Leaderboard], titles: Titles | None = None) -> list[str]:
    """Return the summary of the leaderboards, with names replaced by their `titles`."""
    titles = titles or {}
    lines: list[str] = []
    for board, head in zip(boards, _heads(boards, titles), strict=True):
        if len(boards) > 1:
            lines.append(f"{head}:")
        lines += [line for a in board.attacks if (line := _of_attack(board, a, titles))]
        lines += warnings(board, titles)
        if not unlearned(board):
            lines += [*conclusions(board, titles), *noise(board, titles, MOST_NAMED)]
    return lines


def _heads(boards: Sequence[Leaderboard], titles: Titles) -> list[str]:
    """Return the data set and network of each leaderboard, and how it differs from the others."""
    words = [settings_in_words(board.settings, titles) for board in boards]
    common = set[str]().union(*words).intersection(*words)
    return [", ".join(each[:2] + [w for w in each[2:] if w not in common]) for each in words]


def _of_attack(board: Leaderboard, attack: MethodSpec, titles: Titles) -> str:
    """Return an attack's accuracies in a line: the first defense, then the best ones."""
    stats = {d: board.stat(attack, d) for d in board.defenses if board.stat(attack, d).n}
    if not stats:
        return ""
    first, *others = stats
    best = sorted(others, key=lambda d: -stats[d].mean)[: MOST_NAMED - 1]
    accuracies = [
        f"{percent(stats[d].mean)} % under {method_label(d, titles)}" for d in (first, *best)
    ]
    more = len(others) - len(best)
    title = method_label(attack, titles, "clean data")
    return f"{title}: {', '.join(accuracies)}" + (f", {more} lower" if more else "")
