"""Rearrange the text of a table: shorter labels for narrow places, and rows that become columns."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..common.errors import UserError
from .layout import BEST_DEFENSE, IN_ROWS, WORST_ATTACK, Layout, Shown, TableRow, head_groups
from .paper_width import check_width
from .words import Label

WORST = "worst"
"""The part of a table that holds worst cases."""


def options_below(table: Layout, widest: int, widest_column: int = 10**9) -> Layout:
    """Return a table in which methods with long labels have their options in a footnote.

    Args:
        table: the table.
        widest: the largest number of characters of a row's label with its options.
        widest_column: the largest number of characters of the options under a column's heading.
    """
    letters: dict[str, str] = {}

    def moved(label: Label, long: bool) -> Label:
        if not label.options or not long:
            return label
        letter = letters.setdefault(label.options, _letter(len(letters)))
        return Label(label.title, aside=label.aside, mark=letter)

    rows = tuple(
        replace(row, label=moved(row.label, len(str(row.label)) > widest)) for row in table.rows
    )
    columns = tuple(moved(label, len(label.options) > widest_column) for label in table.columns)
    footnotes = tuple((letter, options) for options, letter in letters.items())
    return replace(table, rows=rows, columns=columns, footnotes=footnotes)


def _letter(number: int) -> str:
    """Return the letter of a footnote by its number from 0: a, b, ..., z, aa, ab, ..."""
    first, last = divmod(number, 26)
    return (_letter(first - 1) if first else "") + chr(ord("a") + last)


def compact(table: Layout, widest: int, widest_column: int = 10**9) -> Layout:
    """Return a table with short labels and one line of text per row, for narrow places.

    Long options move to footnotes, as `options_below` moves them, and the names that attain the
    worst cases form a row of their own.
    """
    short = options_below(table, widest, widest_column)
    rows = []
    for row in short.rows:
        if row.part != WORST:
            rows.append(row)
            continue
        of_attacks = row.label.title == WORST_ATTACK
        label = Label(WORST_ATTACK.partition(" over")[0] if of_attacks else row.label.title)
        values = tuple(replace(cell, remark="") for cell in row.cells)
        names = tuple(Shown(cell.remark) for cell in row.cells)
        rows.append(replace(row, label=label, cells=values))
        by = Label(f"by the {'attack' if of_attacks else 'defense'}")
        rows.append(replace(row, label=by, cells=names))
    return replace(short, rows=tuple(rows))


_METHODS = ("attack", "defense")
"""What the rows of a leaderboard are called."""


def transposed(table: Layout) -> Layout:
    """Return a table with its rows as columns.

    Raises:
        UserError: it is a paper's table with two levels of headings.
    """
    if (table.stub or table.groups) and table.corner not in _METHODS:
        raise UserError(
            f"the table {table.caption!r} has headings over its rows or columns and cannot be "
            "transposed; leave out --transpose"
        )
    rows = tuple(
        TableRow(
            Label(label.title, label.options, mark=label.mark),
            tuple(row.cells[number] for row in table.rows),
            WORST if label.aside == BEST_DEFENSE[1] else "poison",
            table.heads_above[number],
        )
        for number, label in enumerate(table.columns)
    )
    return replace(
        table,
        caption=table.caption.replace(IN_ROWS, "defenses in rows, attacks in columns"),
        corner="defense" if table.corner == "attack" else "",
        stub="kind" if table.groups else "",
        groups=head_groups(row.group for row in table.rows),
        columns=tuple(row.label for row in table.rows),
        rows=rows,
    )


@dataclass(frozen=True)
class Arrangement:
    """How the text of a table is arranged."""

    transpose: bool = False
    worst_cases: bool = True
    """Whether a leaderboard has its worst cases."""
    width: float | None = None
    """Inches that the table must fit in a paper; by default there is no limit."""

    def of(self, make: Callable[[bool], Layout]) -> Layout:
        """Return a table in this arrangement.

        Args:
            make: returns the table with or without worst cases.

        Raises:
            UserError: it cannot be transposed, or does not fit the width.
        """
        table = self._form(make, self.transpose, self.worst_cases)
        if self.width is None:
            return table
        turned = "without --transpose" if self.transpose else "--transpose"
        changes = {turned: (not self.transpose, self.worst_cases)}
        if self.worst_cases:
            changes["--no-worst-cases"] = self.transpose, False
            changes[f"--no-worst-cases {turned}"] = not self.transpose, False
        others = dict[str, Layout]()
        for typed, change in changes.items():
            with contextlib.suppress(UserError):  # it cannot be transposed
                others[typed] = self._form(make, *change)
        check_width(table, self.width, others)
        return table

    def _form(self, make: Callable[[bool], Layout], transpose: bool, worst_cases: bool) -> Layout:
        table = make(worst_cases)
        table = transposed(table) if transpose else table
        return table if self.width is None else compact(table, 0, 0)
