"""Leaderboards as text: as many columns side by side as fit, and the others below them.

Every row of a table is one line wherever the width allows it: options of a row's method move below
the table, and the names that attain a worst case follow their number or form a row of their own.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .arrange import compact
from .layout import Layout, Shown, layout
from .tables import Boards, several
from .words import Titles

_WIDEST_COLUMN = 22
_ASCII = str.maketrans({"±": "+-", "—": "--", "≤": "<=", "≥": ">="})


def to_rich(boards: Boards, titles: Titles | None = None) -> "TerminalTables":
    """Return what `rich.console.Console.print` shows as tables that fit the terminal."""
    return TerminalTables(tuple(layout(board, titles) for board in several(boards)))


@dataclass(frozen=True)
class TerminalTables:
    """Tables that rich lays out for the width of the console it prints to.

    Texts are `Text`, never markup, so that `[red]` in a name is only a name.
    """

    layouts: tuple[Layout, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield for each leaderboard its caption, one or more tables, and the note."""
        for number, wide in enumerate(self.layouts):
            whole = compact(wide, options.max_width // 4)
            footnotes = "".join(f" [{letter}] {words}." for letter, words in whole.footnotes)
            if number:
                yield Text()
            yield _text(whole.caption, options, "bold")
            mark = "" if console.color_system else "*"
            for columns in _portions(whole, console, options):
                yield _table(whole, columns, options, mark)
            for warning in whole.warnings:
                yield _text(warning, options, "bold yellow")
            yield _text(_legend(whole.note, console) + footnotes, options, "dim")


def _legend(note: str, console: Console) -> str:
    """Return a note that names the mark of the best entries as the console shows it."""
    return note if console.color_system else re.sub(r"\b[Bb]old(?=:| \()", "*", note)


def _portions(whole: Layout, console: Console, options: ConsoleOptions) -> list[list[int]]:
    """Return the columns of each table: as many as fit, but at least one."""
    portions: list[list[int]] = []
    mark = "" if console.color_system else "*"
    for column in range(len(whole.columns)):
        wider = [*portions[-1], column] if portions else [column]
        wished = Measurement.get(
            console, options.update(width=10_000), _table(whole, wider, options, mark)
        )
        if portions and wished.maximum <= options.max_width:
            portions[-1] = wider
        else:
            portions.append([column])
    return portions


def _table(whole: Layout, columns: Sequence[int], options: ConsoleOptions, mark: str) -> Table:
    table = Table(header_style="bold", box=box.HORIZONTALS, padding=(0, 1, 0, 0), pad_edge=False)
    widest_label = max(_WIDEST_COLUMN, options.max_width // 3)
    for head in whole.heads:
        table.add_column(_text(head, options), overflow="fold", max_width=widest_label)
    for column in columns:
        over, label = whole.heads_above[column], whole.columns[column]
        # Each option on its own line keeps a column narrow.
        below = textwrap.fill(label.below, 18) if label.aside else label.below.replace(",", ",\n")
        lines = [textwrap.fill(over, max(12, len(label.title))), label.title, below]
        words = _text("\n".join(filter(None, lines)), options)
        widest = None if label.aside else _WIDEST_COLUMN  # opponents' names follow the number
        table.add_column(words, justify="right", overflow="fold", max_width=widest)
    for part in whole.parts():
        for labels, row in part:
            cells = [_cell(row.cells[column], options, mark) for column in columns]
            if row.part == "worst" and not any(cells):
                continue
            table.add_row(*(_text(label, options) for label in labels), *cells)
        table.add_section()
    return table


def _cell(cell: Shown, options: ConsoleOptions, mark: str) -> Text:
    """Return an entry; the best ones are bold, or have the mark where nothing can be bold."""
    text = _text(str(replace(cell, remark="")), options)
    if cell.bold:
        text = Text(f"{mark}{text}", "bold green")
    return text.append_text(_text(f" ({cell.remark})", options)) if cell.remark else text


def _text(words: str, options: ConsoleOptions, style: str = "") -> Text:
    if options.ascii_only:
        words = words.translate(_ASCII).encode("ascii", "replace").decode()
    return Text(words, style)
