"""The text of tables: the only place that formats numbers.

The writers (Markdown, LaTeX, terminal, page) take a `Layout` and add only their own markup.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Literal

from ..common.text import comma_parts, one_line
from .conclusions import warnings
from .groups import MethodSpec
from .records import folder_of
from .statistics import LEVEL, SETTLED, Stat, provisional, sampling_margin
from .tables import METRICS, Extreme, Leaderboard
from .words import (
    CLEAN,
    QUANTITIES,
    Label,
    Titles,
    method_label,
    named,
    percent,
    seconds,
    settings_in_words,
)

WORST_ATTACK = "worst case over attacks"
BEST_DEFENSE = "best defense", "attacker's worst case"
IN_ROWS = "attacks in rows, defenses in columns"


@dataclass(frozen=True)
class Shown:
    """The text of one cell, in parts for a writer to join: `bound value ± spread (remark)`."""

    value: str = ""
    """Percent with one decimal, or `failed`, `skipped`, `—` (not run), or nothing."""
    spread: str = ""
    remark: str = ""
    bound: Literal["", "≤", "≥"] = ""
    bold: bool = False
    accuracy: float | None = None
    """The accuracy in [0, 1] that `value` prints; None where it is no accuracy."""
    odd_n: bool = False
    """Whether it is over another number of runs than most cells of its table."""

    def __str__(self) -> str:
        spread = f" ± {self.spread}" if self.spread else ""
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.bound}{' ' if self.bound else ''}{self.value}{spread}{remark}"


@dataclass(frozen=True)
class TableRow:
    """One row of the table; writers draw a rule where `part` changes."""

    label: Label
    cells: tuple[Shown, ...]
    part: str
    """`clean`, `poison` or `worst` in a leaderboard; the group in a paper's table."""
    group: str = ""
    """The text in the column before the label, if the table has a `stub`."""


@dataclass(frozen=True)
class Layout:
    """A whole table. All texts are single lines without control codes, not yet escaped."""

    caption: str
    corner: str
    columns: tuple[Label, ...]
    rows: tuple[TableRow, ...]
    note: str
    stub: str = ""
    """The heading of the column with the rows' groups; empty if there is no such column."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before the numbers, such as that no model has learned."""
    groups: tuple[tuple[str, int], ...] = ()
    """Headings above the columns, with the number of columns under each; may be empty."""
    footnotes: tuple[tuple[str, str], ...] = ()
    """Letters and the options of methods that they stand for, as `options_below` moves them."""

    @property
    def heads(self) -> tuple[str, ...]:
        """The headings of the columns before the numbers: the groups, if any, and the labels."""
        return (self.stub, self.corner) if self.stub else (self.corner,)

    @property
    def heads_above(self) -> list[str]:
        """The heading above each column, which may be empty."""
        return [head for head, n in self.groups for _ in range(n)] or [""] * len(self.columns)

    @property
    def flat_columns(self) -> list[str]:
        """Every column's heading on one line, with the heading above it."""
        pairs = zip(self.heads_above, self.columns, strict=True)
        return [f"{head} {label}" if head else str(label) for head, label in pairs]

    def labels(self, row: TableRow) -> tuple[str, ...]:
        """Return the texts before a row's numbers, one per entry of `heads`."""
        return (row.group, str(row.label)) if self.stub else (str(row.label),)

    def parts(self) -> list[list[tuple[tuple[str, ...], TableRow]]]:
        """Return the rows by part with the texts before their numbers; a group is named once."""
        parts = []
        for _, rows in groupby(self.rows, lambda row: row.part):
            groups = [list(same) for _, same in groupby(rows, lambda row: row.group)]
            parts.append(
                [
                    (self.labels(row if i == 0 else replace(row, group="")), row)
                    for same in groups
                    for i, row in enumerate(same)
                ]
            )
        return parts


def layout(
    board: Leaderboard,
    titles: Titles | None = None,
    worst_cases: bool = True,
    emphasis: str = "Bold",
) -> Layout:
    """Return the text of a leaderboard, with names replaced by their `titles`.

    `worst_cases` is whether it has the row of worst cases and the column of best defenses, and
    `emphasis` how the writer marks the best numbers, as the note explains it.
    """
    titles = titles or {}
    worst_cases = worst_cases and board.metric != "gap" and bool(board.poisons)
    learned = board if board.metric in METRICS else replace(board, metric="test_acc")
    stats = [board.stat(a, d) for a in board.attacks for d in board.defenses]
    usual = usual_n(stats)
    rows = [_attack_row(board, attack, titles, usual, worst_cases) for attack in board.attacks]
    columns = [method_label(defense, titles) for defense in board.defenses]
    heads = [one_line(board.families.get(defense, "")) for defense in board.defenses]
    if worst_cases:
        columns.append(Label(BEST_DEFENSE[0], aside=BEST_DEFENSE[1]))
        heads.append("")
        extremes = [board.worst_attack(defense) for defense in board.defenses]
        worst = (_extreme(extreme, "≤", board.attacks, titles) for extreme in extremes)
        rows.append(TableRow(Label(WORST_ATTACK), (*worst, Shown()), "worst"))
    dataset = named(board.settings.dataset, titles)
    return Layout(
        caption=f"{QUANTITIES[board.metric]} on {dataset}: {IN_ROWS}",
        corner="attack",
        columns=tuple(columns),
        rows=tuple(rows),
        note=". ".join(_note_sentences(board, stats, rows, titles, emphasis)) + ".",
        warnings=tuple(sentence(each) for each in warnings(learned, titles)),
        stub="kind" if any(row.group for row in rows) else "",
        groups=head_groups(heads),
    )


def _attack_row(
    board: Leaderboard, attack: MethodSpec, titles: Titles, usual: int, worst_cases: bool
) -> TableRow:
    """Return an attack's accuracies under each defense and, with `worst_cases`, the best one.

    `usual` is the number of runs that most cells of the table have.
    """
    best, label = board.best(attack), method_label(attack, titles, CLEAN)
    if n_poisons := board.several_poisons.get(attack):
        label = replace(label, title=f"{label.title} ({n_poisons} poisons)")
    cells = [
        shown_stat(board.stat(attack, d), board.entry(attack, d).status, usual, d in best)
        for d in board.defenses
    ]
    if worst_cases:
        best_defense = board.best_defense(attack)
        cells.append(
            Shown() if attack.is_clean else _extreme(best_defense, "≥", board.opponents, titles)
        )
    part, family = "clean" if attack.is_clean else "poison", board.families.get(attack, "")
    return TableRow(label, tuple(cells), part, one_line(family))


def _note_sentences(
    board: Leaderboard,
    stats: Sequence[Stat],
    rows: Sequence[TableRow],
    titles: Titles,
    emphasis: str,
) -> list[str]:
    """Return the sentences below a leaderboard: settings, uncertainty, versions and origins."""
    sentences = [
        ", ".join(settings_in_words(board.settings, titles)),
        *accuracy_in_words(stats, board.metric, rows, board.settings.n_test, emphasis),
        *_other_lengths_in_words(board, titles),
    ]
    if len(board.versions) > 1:
        versions = ", ".join(map(one_line, board.versions))
        sentences.append(f"Measured by uebench {versions}, by the same recipes")
    sentences += _origins_in_words(board, titles)
    if any(cell.bound for row in rows for cell in row.cells):
        sentences.append("≤ and ≥: not every opponent was measured, so only a bound is known")
    return sentences


def _other_lengths_in_words(board: Leaderboard, titles: Titles) -> list[str]:
    """Return for how many epochs the defenses with `times_epochs` trained, and what it cost."""
    usual = board.settings.epochs
    texts = []
    for defense in board.defenses:
        epochs = board.epochs(defense)
        if usual is None or epochs == usual:
            continue
        options = [o for o in comma_parts(defense.options) if not o.startswith("times_epochs=")]
        same = MethodSpec(defense.name, ",".join(options))
        text = f"{method_label(defense, titles)} for {epochs} epochs"
        if cost := _mean_time(board, defense):
            usually = _mean_time(board, same)
            text += f", {cost} a model"
            text += f" ({method_label(same, titles)}: {usually})" if usually else ""
        texts.append(text)
    return [f"Trained longer or shorter: {'; '.join(texts)}"] if texts else []


def _mean_time(board: Leaderboard, defense: MethodSpec) -> str:
    """Return how long the models of a defense took to train, in words; empty if unknown."""
    times = [board.entry(attack, defense).train_seconds for attack in board.attacks]
    known = [each for each in times if not math.isnan(each)]
    return seconds(math.fsum(known) / len(known)) if known else ""


def head_groups(heads: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return the headings above columns, each with its number of columns; none if all are empty."""
    groups = tuple((head, len(list(same))) for head, same in groupby(heads))
    return groups if any(head for head, _ in groups) else ()


def _origins_in_words(board: Leaderboard, titles: Titles) -> list[str]:
    """Return what the note of a table says about models that were taken from other folders.

    One sentence for each folder and commit lists their places. If all of the board's models were
    taken from somewhere, that would be longer than the table: then one sentence counts the models
    of each folder, and cells.csv has the rest.
    """
    entries = {
        pair: entry
        for pair in product(board.attacks, board.defenses)
        if (entry := board.entry(*pair)).test_acc.n
    }
    total = sum(entry.test_acc.n for entry in entries.values())
    taken = Counter(origin for entry in entries.values() for origin in entry.origins)
    if taken and taken.total() == total:
        counts: Counter[str] = Counter()
        for origin, n in taken.items():
            counts[folder_of(origin)] += n
        each = [f"{folder} ({n})" for folder, n in counts.items()]
        folders = ", ".join(each if len(each) > 1 else counts)
        which = "The model was" if total == 1 else f"All {total} models were"
        return [f"{which} taken from {folders}; cells.csv has the commit and the machine of each"]
    sentences = []
    for origin, n in taken.items():
        here = [pair for pair, entry in entries.items() if origin in entry.origins]
        rows = []
        for attack in dict.fromkeys(attack for attack, _ in here):
            its = [d for a, d in here if a == attack]
            every = len(its) == sum(a == attack for a, _ in entries)
            names = ["every defense"] if every else [str(method_label(d, titles)) for d in its]
            rows.append(f"{method_label(attack, titles, CLEAN)} under {', '.join(names)}")
        text = f"{n} of {total} models {'was' if n == 1 else 'were'} taken from {one_line(origin)}"
        sentences.append(f"{text}: {'; '.join(rows)}")
    return sentences


def sentence(*parts: str) -> str:
    """Return parts of a text as sentences, each with a capital letter and a full stop."""
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in parts)


def shown_stat(stat: Stat, status: str, usual_n: int, bold: bool) -> Shown:
    """Return the text of an entry: `failed`, `skipped` or `—` if nothing was measured."""
    if not stat.n:
        return Shown(status if status in ("failed", "skipped") else "—")
    odd = stat.n != usual_n
    remark = f"n={stat.n}" if odd else ""
    value, spread = percent(stat.mean), "" if math.isnan(stat.sd) else percent(stat.sd)
    return Shown(value, spread, remark, bold=bold, accuracy=stat.mean, odd_n=odd)


def _extreme(
    extreme: Extreme, bound: Literal["≤", "≥"], opponents: Sequence[MethodSpec], titles: Titles
) -> Shown:
    """Return a worst case, marked as a bound of it if some opponents were not measured.

    The opponents that attain it are named with their options if the name alone is ambiguous; of
    three or more, their number is given.
    """
    if extreme.by is None:
        return Shown("—")

    def by_name(method: MethodSpec) -> str:
        label = method_label(method, titles)
        unique = sum(method_label(each, titles).title == label.title for each in opponents) == 1
        return label.title if unique else str(label)

    tied = [by_name(method) for method in extreme.tied]
    return Shown(
        percent(extreme.value),
        remark=", ".join(tied) if len(tied) < 3 else f"{len(tied)} tied",
        bound="" if extreme.complete else bound,
        accuracy=extreme.value,
    )


def usual_n(entries: Sequence[Stat]) -> int:
    """Return the commonest number of runs, 0 if nothing was measured."""
    common = Counter(stat.n for stat in entries if stat.n).most_common(1)
    return common[0][0] if common else 0


def accuracy_in_words(
    entries: Sequence[Stat],
    metric: str,
    rows: Sequence[TableRow],
    n_test: int | None,
    emphasis: str = "Bold",
) -> list[str]:
    """Return the sentences of a note that explain the numbers and their uncertainty."""
    which = "after the last epoch"
    if metric == "test_acc_best":
        which = "of the best epoch, which was chosen on the test set"
    usual = usual_n(entries)
    if usual > 1:
        runs = f"mean ± sample standard deviation over n = {usual} runs"
    else:
        runs = "n = 1 run each" if usual else "no run finished"
    cells = [cell for row in rows for cell in row.cells]
    odd = any(cell.odd_n for cell in cells)
    quantity = {
        "robust_acc": "Accuracy under PGD-20, within the ball of adversarial training or half of "
        "the poison's budget,",
        "gap": "Training minus test accuracy",
    }.get(metric, "Accuracy")
    sentences = [f"{quantity} {which}, {runs}{' unless a cell says otherwise' if odd else ''}"]
    single = [stat for stat in entries if stat.n == 1]
    if single and n_test and metric != "gap":
        widest = max(sampling_margin(stat, n_test) for stat in single)
        sentences.append(
            f"The test set alone leaves a single run up to ± {percent(widest)} "
            f"({LEVEL:.0%}, Wilson)"
        )
    if any(cell.bold for cell in cells):
        if provisional(entries):
            emphasis += f" (provisional until there are {SETTLED} runs of each)"
        sentences.append(f"{emphasis}: the best defense, and what lies within noise of it")
    return sentences
