"""What a leaderboard shows about its methods, in sentences no stronger than its numbers.

A method leads only if it is apart from the others by more than noise, and only worst cases over
every opponent are compared. If the models have learned nothing even from clean data, the attacks
cannot be told from the training, and nothing is concluded.
"""

from collections.abc import Mapping, Sequence

from ..common.text import counted
from .groups import MethodSpec
from .statistics import Stat, best_within_noise, provisional, sampling_margin
from .tables import Extreme, Leaderboard
from .words import Titles, method_label, percent, settings_in_words

LEAST_LEARNED = 0.1
"""The least share of the way from chance to 100 % that a model which has learned must cover.

Below it, attacks differ in how early they stop the training and not in what can be learned.
"""

MANY = 5
"""The fewest defenses whose mean ranks are listed."""
MOST_NAMED = 4
"""The most defenses named in a line, and the most attacks listed with ties."""


def summary(
    boards: Sequence[Leaderboard], titles: Titles | None = None, *, warn: bool = True
) -> list[str]:
    """Return the summary of the leaderboards, with names replaced by their `titles`.

    `warn` is whether it has the warnings, which a table also has.
    """
    titles = titles or {}
    lines: list[str] = []
    for board, head in zip(boards, _heads(boards, titles), strict=True):
        if len(boards) > 1:
            lines.append(f"{head}:")
        lines += [line for a in board.attacks if (line := _of_attack(board, a, titles))]
        lines += warnings(board, titles) if warn else []
        if not unlearned(board):
            lines += [*conclusions(board, titles), *noise(board, titles, MOST_NAMED)]
    return lines


def warnings(board: Leaderboard, titles: Titles) -> list[str]:
    """Return what keeps a leaderboard's numbers from meaning what they seem to mean."""
    lines = [
        f"no image is poisoned by {_title(attack, titles)}, so that its row is clean training"
        for attack in board.without_effect
    ] + [
        f"the models on {_title(attack, titles)} were trained on {n} poisons of one recipe and "
        "seed whose hashes differ, as other machine types or libraries craft them"
        for attack, n in board.several_poisons.items()
    ]
    if nothing := unlearned(board):
        return [nothing, *lines]
    names = [_title(d, titles) for d in board.defenses if _is_untrained(board, d)]
    if names:
        lines.append(
            f"even on clean data, accuracy is near chance under {', '.join(names)}, which "
            "therefore says nothing about attacks"
        )
    return lines


def unlearned(board: Leaderboard) -> str:
    """Return a warning if no clean model has learned more than chance; empty if one has."""
    stats = {(a, d): board.stat(a, d) for a in board.attacks for d in board.defenses}
    clean = [stat for (attack, _), stat in stats.items() if attack.is_clean]
    return unlearned_warning(clean, [*stats.values()], board.chance, board.settings.n_test)


def unlearned_warning(
    clean: Sequence[Stat], every: Sequence[Stat], chance: float | None, n_test: int | None
) -> str:
    """Return a warning if no clean model has learned more than chance; empty if one has.

    Args:
        clean: the accuracies on clean data. If there are none, all of them are judged.
        every: all accuracies of the table.
        chance: the accuracy of a model that has learned nothing; None, if unknown, warns of
            nothing.
        n_test: the number of test images, where it is known.
    """
    judged = [stat for stat in clean if stat.n] or [stat for stat in every if stat.n]
    best = max(judged, key=lambda stat: stat.mean, default=None)
    if best is None or chance is None or not _near_chance(best, chance, n_test):
        return ""
    images = f", {n_test} test images" if n_test else ""
    distance = "within noise of" if _within_noise(best, chance, n_test) else "barely above"
    who, remedy = "the clean model has not learned", "give it more epochs or more images"
    if not any(stat.n for stat in clean):
        who = "no model has learned"
        remedy = "add the attack none, which shows what the training achieves on clean data"
    return (
        f"{who}: the best accuracy, {percent(best.mean)} %, is {distance} chance "
        f"({percent(chance)} %{images}); this run says nothing about attacks yet, so {remedy}"
    )


def conclusions(board: Leaderboard, titles: Titles) -> list[str]:
    """Return the strongest attack and the weakest and strongest defense, where there are any."""
    if unlearned(board):
        return []
    best = _complete({attack: board.best_defense(attack) for attack in board.poisons})
    worst = _complete(
        {d: board.worst_attack(d) for d in board.defenses if not _is_untrained(board, d)}
    )
    lines = []
    if len(best) > 1 and len(board.defenses) > 1:
        stats = {a: board.stat(a, extreme.by) for a, extreme in best.items() if extreme.by}
        leaders = best_within_noise(stats, board.settings.n_test, lowest=True)
        words = {
            a: f"{percent(best[a].value)} % under the best of "
            f"{counted(best[a].n_possible, 'defense')} "
            f"({_title(best[a].by, titles)})"
            for a in sorted(leaders, key=lambda a: best[a].value)
        }
        lines += _led("strongest attack", words, len(best), titles)
    if len(worst) > 1:
        lines += _about_defenses(board, worst, titles)
    return lines + _ranking(board, titles)


def _ranking(board: Leaderboard, titles: Titles) -> list[str]:
    """Return the mean ranks of the defenses in a line, if a table has too many to see that.

    A mean needs at least two attacks that all of the defenses faced.
    """
    ranks = board.ranks()
    complete = [a for a in board.poisons if board.best_defense(a).complete]
    if len(ranks) < MANY or len(complete) < 2:
        return []
    order = sorted(ranks, key=lambda defense: ranks[defense])
    each = ", ".join(f"{_title(defense, titles)} {ranks[defense]:.1f}" for defense in order)
    return [f"mean rank over {counted(len(complete), 'attack')}: {each}"]


def noise(board: Leaderboard, titles: Titles, most: int) -> list[str]:
    """Return which defenses tie with the best one under which attacks, and what is provisional.

    At most `most` attacks are listed.
    """
    ties = []
    for attack in board.attacks:
        tied = board.best(attack)
        if len(tied) > 1:
            names = ", ".join(_title(d, titles) for d in board.defenses if d in tied)
            ties.append(f"{_title(attack, titles)}: {names}")
    lines = []
    if ties:
        more = f"; and {len(ties) - most} more" if len(ties) > most else ""
        lines.append(f"best within noise: {'; '.join(ties[:most])}{more}")
    stats = [board.stat(a, d) for a in board.attacks for d in board.defenses]
    if any(stat.n == 1 for stat in stats):
        lines.append(
            "provisional, with one seed only: this noise does not cover what another seed would "
            "change"
        )
    elif provisional(stats):
        lines.append("provisional: with two seeds, the noise between seeds is hardly known")
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


def _about_defenses(
    board: Leaderboard, worst: Mapping[MethodSpec, Extreme], titles: Titles
) -> list[str]:
    stats = {d: board.stat(extreme.by, d) for d, extreme in worst.items() if extreme.by}
    lines = []
    for what, lowest in (("weakest defense", True), ("strongest defense", False)):
        leaders = best_within_noise(stats, board.settings.n_test, lowest=lowest)
        if len(leaders) == len(worst):
            return [f"no defense is weakest or strongest: {_all_tied(len(worst))}"]
        words = {
            d: f"at worst {percent(worst[d].value)} % over "
            f"{counted(worst[d].n_possible, 'attack')} ({_title(worst[d].by, titles)})"
            for d in sorted(leaders, key=lambda d: worst[d].value, reverse=not lowest)
        }
        lines += _led(what, words, len(worst), titles)
    return lines


def _led(what: str, leaders: Mapping[MethodSpec, str], n: int, titles: Titles) -> list[str]:
    """Return who leads a comparison of `n` methods, or that the comparison decides nothing.

    `leaders` are those within noise of the first, with what was measured.
    """
    if len(leaders) == n:
        return [f"no {what.split()[1]} is {what.split()[0]}: {_all_tied(n)}"]
    each = [f"{_title(method, titles)}, {words}" for method, words in leaders.items()]
    if len(each) == 1:
        return [f"{what} of {n}: {each[0]}"]
    return [f"{what}s of {n}, within noise of each other: {'; '.join(each)}"]


def _all_tied(n: int) -> str:
    return f"{'both' if n == 2 else f'all {n}'} are within noise of each other"


def _complete(extremes: Mapping[MethodSpec, Extreme]) -> dict[MethodSpec, Extreme]:
    """Return the worst cases over every opponent; those over some may in truth be worse."""
    return {m: e for m, e in extremes.items() if e.by is not None and e.complete}


def _is_untrained(board: Leaderboard, defense: MethodSpec) -> bool:
    chance, n_test = board.chance, board.settings.n_test
    clean = [stat for a in board.attacks if a.is_clean and (stat := board.stat(a, defense)).n]
    return chance is not None and any(_near_chance(stat, chance, n_test) for stat in clean)


def _near_chance(stat: Stat, chance: float, n_test: int | None) -> bool:
    few = LEAST_LEARNED * (1 - chance)
    return stat.mean - chance < few or _within_noise(stat, chance, n_test)


def _within_noise(stat: Stat, chance: float, n_test: int | None) -> bool:
    return stat.mean - chance <= sampling_margin(stat, n_test)


def _title(method: MethodSpec | None, titles: Titles) -> str:
    return "" if method is None else str(method_label(method, titles, "clean data"))
