"""The results of a run in sentences: each attack, the extremes, and ties within noise.

Noise is that of the tables (`statistics.best_within_noise`). It does not cover what other seeds
would change if there is only one, and the summary says so. If the model learned nothing even from
clean data, the summary says only that.
"""

from collections.abc import Mapping, Sequence

from .groups import MethodSpec
from .layout import Titles, method_label, percent, settings_in_words
from .statistics import sampling_margin
from .tables import Leaderboard

MOST_NAMED = 4
"""The most defenses named in a line, and the most attacks listed with ties."""


def summary(
    boards: Sequence[Leaderboard],
    titles: Titles | None = None,
    chance: Mapping[str, float] | None = None,
) -> list[str]:
    """Return the summary of the leaderboards, with names replaced by their `titles`.

    `chance` is the accuracy of a model that has learned nothing, by data set, where it is known.
    """
    titles = titles or {}
    lines: list[str] = []
    for board, head in zip(boards, _heads(boards, titles), strict=True):
        if len(boards) > 1:
            lines.append(f"{head}:")
        lines += [line for a in board.attacks if (line := _of_attack(board, a, titles))]
        nothing = unlearned(board, (chance or {}).get(board.settings.dataset))
        lines += [nothing] if nothing else _of_all(board, titles)
    return lines


def _heads(boards: Sequence[Leaderboard], titles: Titles) -> list[str]:
    """Return the data set and network of each leaderboard, and how it differs from the others."""
    words = [settings_in_words(board.settings, titles) for board in boards]
    common = set[str]().union(*words).intersection(*words)
    return [", ".join(each[:2] + [w for w in each[2:] if w not in common]) for each in words]


def unlearned(board: Leaderboard, chance: float | None) -> str:
    """Return a warning if no clean model exceeds chance by more than the test set's noise."""
    clean = [board.stat(a, d) for a in board.attacks if a.is_clean for d in board.defenses]
    best = max((stat for stat in clean if stat.n), key=lambda stat: stat.mean, default=None)
    n_test = board.settings.n_test
    if best is None or chance is None or not n_test:
        return ""
    if best.mean - chance > sampling_margin(best, n_test):
        return ""
    return (
        f"the clean model has not learned: {percent(best.mean)} % at best are within noise of "
        f"chance ({percent(chance)} %, {n_test} test images); this run says nothing about "
        "attacks yet, so give it more epochs or more images"
    )


def _of_all(board: Leaderboard, titles: Titles) -> list[str]:
    """Return the extremes of a leaderboard, and what is within noise."""
    lines = []
    best = {a: extreme for a in board.poisons if (extreme := board.best_defense(a)).by}
    if len(board.poisons) > 1 and len(board.defenses) > 1 and best:
        attack = min(best, key=lambda a: best[a].value)
        lines.append(
            f"strongest attack: {_title(attack, titles)}, {percent(best[attack].value)} % "
            f"under its best defense ({_title(best[attack].by, titles)})"
        )
    worst = {d: extreme for d in board.defenses if (extreme := board.worst_attack(d)).by}
    for what, pick in (("weakest", min), ("strongest", max)) if len(worst) > 1 else ():
        defense = pick(worst, key=lambda d: worst[d].value)
        lines.append(
            f"{what} defense: {_title(defense, titles)}, at worst "
            f"{percent(worst[defense].value)} % ({_title(worst[defense].by, titles)})"
        )
    return lines + _noise(board, titles)


def _of_attack(board: Leaderboard, attack: MethodSpec, titles: Titles) -> str:
    """Return an attack's accuracies in a line: the first defense, then the best ones."""
    stats = {d: board.stat(attack, d) for d in board.defenses if board.stat(attack, d).n}
    if not stats:
        return ""
    first, *others = stats
    best = sorted(others, key=lambda d: -stats[d].mean)[: MOST_NAMED - 1]
    accuracies = [f"{percent(stats[d].mean)} % under {_title(d, titles)}" for d in (first, *best)]
    more = len(others) - len(best)
    return f"{_title(attack, titles)}: {', '.join(accuracies)}" + (
        f", {more} lower" if more else ""
    )


def _noise(board: Leaderboard, titles: Titles) -> list[str]:
    """Return which defenses tie with the best one under which attacks, and what remains unknown."""
    ties = []
    for attack in board.attacks:
        tied = board.best(attack)
        if len(tied) > 1:
            names = ", ".join(_title(d, titles) for d in board.defenses if d in tied)
            ties.append(f"{_title(attack, titles)}: {names}")
    lines = []
    if ties:
        more = f"; and {len(ties) - MOST_NAMED} more" if len(ties) > MOST_NAMED else ""
        lines.append(f"best within noise: {'; '.join(ties[:MOST_NAMED])}{more}")
    if any(0 < board.stat(a, d).n < 2 for a in board.attacks for d in board.defenses):
        lines.append("one seed only: this noise does not cover what another seed would change")
    return lines


def _title(method: MethodSpec | None, titles: Titles) -> str:
    return "" if method is None else str(method_label(method, titles, "clean data"))
