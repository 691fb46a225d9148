"""Leaderboards on a terminal: as many columns side by side as fit, and the others below them."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

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
        for number, whole in enumerate(self.layouts):
            if number:
                yield Text()
            yield _text(whole.caption, options, "bold")
            for columns in _portions(whole, console, options):
                yield _table(whole, columns, options)
            for warning in whole.warnings:
                yield _text(warning, options, "bold yellow")
            yield _text(whole.note, options, "dim")


def _portions(whole: Layout, console: Console, options: ConsoleOptions) -> list[list[int]]:
    """Return the columns of each table: as many as fit, but at least one."""
    portions: list[list[int]] = []
    for column in range(len(whole.columns)):
        wider = [*portions[-1], column] if portions else [column]
        wished = Measurement.get(
            console, options.update(width=10_000), _table(whole, wider, options)
        )
        if portions and wished.maximum <= options.max_width:
            portions[-1] = wider
        else:
            portions.append([column])
    return portions


def _table(whole: Layout, columns: Sequence[int], options: ConsoleOptions) -> Table:
    table = Table(header_style="bold", box=box.HORIZONTALS, padding=(0, 1, 0, 0), pad_edge=False)
    widest_label = max(_WIDEST_COLUMN, options.max_width // 3)
    for head in whole.heads:
        table.add_column(_text(head, options), overflow="fold", max_width=widest_label)
    for column in columns:
        over, label = whole.heads_above[column], whole.columns[column]
        # Each option on its own line keeps a column narrow.
        lines = [over, label.title, label.below.replace(",", ",\n")]
        words = _text("\n".join(filter(None, lines)), options)
        table.add_column(words, justify="right", overflow="fold", max_width=_WIDEST_COLUMN)
    for part in whole.parts():
        for labels, row in part:
            cells = [_cell(row.cells[column], options) for column in columns]
            table.add_row(*(_text(label, options) for label in labels), *cells)
        table.add_section()
    return table


def _cell(cell: Shown, options: ConsoleOptions) -> Text:
    first = _text(str(Shown(cell.value, cell.spread, bound=cell.bound)), options)
    if cell.bold:
        first.stylize("bold green")
    return Text("\n").join([first, _text(cell.remark, options)]) if cell.remark else first


def _text(words: str, options: ConsoleOptions, style: str = "") -> Text:
    if options.ascii_only:
        words = words.translate(_ASCII).encode("ascii", "replace").decode()
    return Text(words, style)
