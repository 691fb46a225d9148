"""The text of tables: the only place that formats numbers.

The writers (Markdown, LaTeX, terminal, page) take a `Layout` and add only their own markup.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..common.text import one_line
from .groups import MethodSpec, Settings
from .statistics import LEVEL, Stat, sampling_margin
from .tables import Extreme, Leaderboard

Titles = Mapping[str, str]
"""Display names by the names of methods, datasets, architectures and protocols."""

CLEAN = "clean"
WORST_ATTACK = "worst case over attacks"
BEST_DEFENSE = "best defense", "attacker's worst case"


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
class Label:
    """The heading of a row or column: a method's display name, and its options if it has any."""

    title: str
    options: str = ""
    aside: str = ""
    """An explanation of a title that is not a method's."""

    @property
    def below(self) -> str:
        """The part that a writer may put on a second line."""
        return f"({self.aside})" if self.aside else f"[{self.options}]" if self.options else ""

    def __str__(self) -> str:
        return f"{self.title}{' ' if self.aside else ''}{self.below}"


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
    groups: tuple[tuple[str, int], ...] = ()
    """Headings above the columns, with the number of columns under each; may be empty."""

    @property
    def flat_columns(self) -> tuple[str, ...]:
        """Every column's heading on one line, with its group."""
        over = [head for head, n in self.groups for _ in range(n)] or [""] * len(self.columns)
        pairs = zip(over, self.columns, strict=True)
        return tuple(" ".join(filter(None, (head, str(label)))) for head, label in pairs)


def layout(board: Leaderboard, titles: Titles | None = None) -> Layout:
    """Return the text of a leaderboard, with names replaced by their `titles`."""
    titles = titles or {}
    usual_n = _usual_n(board)
    rows = [_attack_row(board, attack, usual_n, titles) for attack in board.attacks]
    if board.poisons:
        worst = [
            _extreme(board.worst_attack(d), "≤", board.attacks, titles) for d in board.defenses
        ]
        rows.append(TableRow(Label(WORST_ATTACK), (*worst, Shown()), "worst"))
    best = [Label(BEST_DEFENSE[0], aside=BEST_DEFENSE[1])] if board.poisons else []
    dataset = _named(board.settings.dataset, titles)
    return Layout(
        caption=f"Test accuracy (%) on {dataset}: attacks in rows, defenses in columns",
        corner="attack",
        columns=(*(_label(d, titles) for d in board.defenses), *best),
        rows=tuple(row if best else _without_last(row) for row in rows),
        note=_note(board, usual_n, rows, titles),
    )


def percent(accuracy: float) -> str:
    """Return an accuracy in [0, 1] as percent with one decimal, without the sign."""
    return f"{100 * accuracy:.1f}"


def _attack_row(board: Leaderboard, attack: MethodSpec, usual_n: int, titles: Titles) -> TableRow:
    best = board.best(attack)
    cells = [
        shown_stat(board.stat(attack, d), board.entry(attack, d).status, usual_n, d in best)
        for d in board.defenses
    ]
    if attack.is_clean:
        return TableRow(Label(CLEAN, one_line(attack.options)), (*cells, Shown()), "clean")
    highest = _extreme(board.best_defense(attack), "≥", board.opponents, titles)
    return TableRow(_label(attack, titles), (*cells, highest), "poison")


def shown_stat(stat: Stat, status: str, usual_n: int, bold: bool) -> Shown:
    """Return the text of an entry: `failed`, `skipped` or `—` if nothing was measured."""
    if not stat.n:
        return Shown(status if status in ("failed", "skipped") else "—")
    odd = stat.n != usual_n
    remark = f"n={stat.n}" if odd else ""
    return Shown(
        percent(stat.mean), _spread(stat), remark, bold=bold, accuracy=stat.mean, odd_n=odd
    )


def _without_last(row: TableRow) -> TableRow:
    return TableRow(row.label, row.cells[:-1], row.part)


def _spread(stat: Stat) -> str:
    return "" if math.isnan(stat.sd) else percent(stat.sd)


def _extreme(
    extreme: Extreme, bound: Literal["≤", "≥"], opponents: Sequence[MethodSpec], titles: Titles
) -> Shown:
    """Return a worst case, marked as a bound of it if some opponents were not measured.

    The opponent that attains it is named with its options if the name alone is ambiguous.
    """
    if extreme.by is None:
        return Shown("—")
    label = _label(extreme.by, titles)
    unique = sum(_label(each, titles).title == label.title for each in opponents) == 1
    by = label.title if unique else str(label)
    return Shown(
        percent(extreme.value),
        remark=by,
        bound="" if extreme.complete else bound,
        accuracy=extreme.value,
    )


def _named(name: str, titles: Titles) -> str:
    return one_line(titles.get(name, name))


def _label(method: MethodSpec, titles: Titles) -> Label:
    return Label(_named(method.name, titles), one_line(method.options))


def _usual_n(board: Leaderboard) -> int:
    """Return the commonest number of runs of an entry, 0 if nothing was measured."""
    return usual_n([board.stat(a, d) for a in board.attacks for d in board.defenses])


def usual_n(entries: Sequence[Stat]) -> int:
    """Return the commonest number of runs, 0 if nothing was measured."""
    common = Counter(stat.n for stat in entries if stat.n).most_common(1)
    return common[0][0] if common else 0


def _note(board: Leaderboard, usual: int, rows: Sequence[TableRow], titles: Titles) -> str:
    entries = [board.stat(a, d) for a in board.attacks for d in board.defenses]
    sentences = [
        ", ".join(settings_in_words(board.settings, titles)),
        *accuracy_in_words(entries, board.metric, usual, rows, board.settings.n_test),
    ]
    if len(board.versions) > 1:
        versions = ", ".join(map(one_line, board.versions))
        sentences.append(f"Measured by uebench {versions}, by the same recipes")
    if any(cell.bound for row in rows for cell in row.cells):
        sentences.append("≤ and ≥: not every opponent was measured, so only a bound is known")
    return ". ".join(sentences) + "."


def accuracy_in_words(
    entries: Sequence[Stat], metric: str, usual: int, rows: Sequence[TableRow], n_test: int | None
) -> list[str]:
    """Return the sentences of a note that explain the numbers and their uncertainty."""
    which = "after the last epoch"
    if metric == "test_acc_best":
        which = "of the best epoch, which was chosen on the test set"
    if usual > 1:
        runs = f"mean ± sample standard deviation over n = {usual} runs"
    else:
        runs = "n = 1 run each" if usual else "no run finished"
    cells = [cell for row in rows for cell in row.cells]
    odd = any(cell.odd_n for cell in cells)
    sentences = [f"Accuracy {which}, {runs}{' unless a cell says otherwise' if odd else ''}"]
    single = [stat for stat in entries if stat.n == 1]
    if single and n_test:
        widest = max(sampling_margin(stat, n_test) for stat in single)
        sentences.append(
            f"The test set alone leaves a single run up to ± {percent(widest)} "
            f"({LEVEL:.0%}, Wilson)"
        )
    if any(cell.bold for cell in cells):
        sentences.append("Bold: the best defense, and what lies within noise of it")
    return sentences


def settings_in_words(settings: Settings, titles: Titles) -> list[str]:
    """Return what the cells of a table have in common, one phrase per setting."""
    words = [
        _named(settings.dataset, titles),
        _named(settings.arch, titles),
        f"protocol {_named(settings.protocol, titles)}",
    ]
    if settings.epochs is not None:
        words.append(f"{settings.epochs} epochs")
    if settings.n_train is not None:
        words.append(f"{settings.n_train:,} training images")
    if settings.n_test is not None:
        words.append(f"{settings.n_test:,} test images")
    if settings.ratio != 1:
        words.append(f"poisoning ratio {settings.ratio:g}")
    if settings.classes:
        words.append(f"poisoned classes {one_line(settings.classes)}")
    if settings.precision:
        words.append(f"precision {one_line(settings.precision)}")
    return words
