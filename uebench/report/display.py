"""Tables and plots that show themselves: as text on a terminal, with colours in a notebook.

The HTML has its styles in its tags and no script, since notebooks strip both elsewhere. It has no
colours of its own but those of the heat map, so that it fits light and dark themes.
"""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from ..common.notebook import pictures_html
from ..common.text import counted, one_line
from .arrange import Arrangement
from .boards import color_scales
from .colors import ink_on, ramp
from .compare import Compared
from .comparison_table import comparison_layout, comparison_records
from .formats import markdown_table, to_csv, to_frame, to_json, to_markdown
from .latex import to_latex
from .layout import Layout, Shown, layout
from .paper_width import inches
from .tables import Leaderboard, leaderboards
from .terminal import TerminalTables
from .words import Titles

_NUMBER = "padding: 0.2em 0.7em; text-align: right"
_CELL = f"{_NUMBER}; white-space: nowrap"
_HEAD = "padding: 0.2em 0.7em; text-align: left"
_SMALL = "font-size: 0.85em; max-width: 60em"


@dataclass(frozen=True, repr=False)
class Leaderboards:
    """One table per data set, network and protocol; attacks are rows and defenses columns.

    Attributes:
        boards: the numbers; `to_frame` has them as one row per attack and defense.
        titles: the names of methods in tables.
    """

    boards: tuple[Leaderboard, ...]
    titles: Titles

    def to_frame(self) -> pd.DataFrame:
        """Return the columns of leaderboard.csv: mean, sd, n, costs, and who is worst or best."""
        return to_frame(self.boards)

    def to_csv(self) -> str:
        """Return `to_frame` as CSV."""
        return to_csv(self.boards)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return to_json(self.boards)

    def to_markdown(self) -> str:
        """Return the tables as GitHub Markdown."""
        return to_markdown(self.boards, self.titles)

    def to_latex(
        self,
        *,
        width: str | float | None = None,
        transpose: bool = False,
        worst_cases: bool = True,
        note: bool = True,
        caption: str | None = None,
        label: str | None = None,
        standalone: bool = False,
    ) -> str:
        """Return the tables as LaTeX, as `uebench table --format latex` prints them.

        It needs the package booktabs, and graphicx where a table is scaled to the line.

        Args:
            width: `column` (3.25 in), `page` (6.75 in) or inches that each table must fit at the
                size of footnotes; by default, one that is wider than the line is scaled to it.
            transpose: whether defenses are rows and attacks are columns.
            worst_cases: whether the worst cases are shown.
            note: whether the settings stand below a table.
            caption: plain text; by default the contents of the table.
            label: what to give to `ref`; by default derived from the settings.
            standalone: whether to return a whole document.

        Raises:
            UserError: a table does not fit the width; the message says what would fit.
        """
        inches_wide = None if width is None else inches(str(width))
        arrangement = Arrangement(transpose, worst_cases, inches_wide)
        return to_latex(
            self.boards,
            self.titles,
            caption=caption,
            label=label,
            standalone=standalone,
            arrangement=arrangement,
            note=note,
        )

    def __repr__(self) -> str:
        return _as_text([layout(board, self.titles) for board in self.boards])

    def _repr_html_(self) -> str:
        """Return the tables as heat maps, which notebooks display."""
        scales = color_scales(self.boards)
        return "".join(
            _as_html(
                layout(board, self.titles), scales[board.settings.dataset], len(board.defenses)
            )
            for board in self.boards
        )


@dataclass(frozen=True, repr=False)
class Comparison:
    """Accuracies of ours next to those that papers print, with what differs in the protocols."""

    compared: tuple[Compared, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per entry and source, with accuracies and differences in [0, 1]."""
        return pd.DataFrame(comparison_records(self.compared))

    def to_markdown(self) -> str:
        """Return the comparison as a GitHub Markdown table."""
        return markdown_table(comparison_layout(self.compared))

    def __repr__(self) -> str:
        return _as_text([comparison_layout(self.compared)]) if self.compared else _NOT_PUBLISHED

    def _repr_html_(self) -> str:
        """Return the comparison as a table, which notebooks display."""
        if not self.compared:
            return f"<p>{_NOT_PUBLISHED}</p>"
        return _as_html(comparison_layout(self.compared))


_NOT_PUBLISHED = "No published numbers for these cells are known."


class Plots(dict[str, bytes]):
    """Figures as the contents of PNG files, by their names; a notebook displays them."""

    def save(self, folder: Path | str) -> list[Path]:
        """Write the figures as NAME.png into a folder, and return the paths."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = [Path(folder, f"{name}.png") for name in self]
        for path, png in zip(paths, self.values(), strict=True):
            path.write_bytes(png)
        return paths

    def __repr__(self) -> str:
        return f"{counted(len(self), 'plot')}: {', '.join(self)}"

    def _repr_html_(self) -> str:
        """Return the figures, which notebooks display."""
        return "".join(pictures_html(name, [(name, png)]) for name, png in self.items())


class ResultTable(pd.DataFrame):
    """The rows of cells.csv, which show themselves as leaderboards.

    What is selected from it is a plain DataFrame.
    """

    _metadata = ["titles"]  # noqa: RUF012 - pandas reads it from the class
    titles: Titles

    @staticmethod
    def of(cells: pd.DataFrame, titles: Titles) -> "ResultTable":
        """Return a frame of cells as such a table."""
        table = ResultTable(cells)
        table.titles = titles
        return table

    def __repr__(self) -> str:
        """Return the leaderboards and the errors as text."""
        try:
            boards = self._boards()
        except (ValueError, AttributeError):  # somebody has changed the rows
            return super().__repr__()
        return "\n".join(filter(None, (repr(boards), *self._unfinished())))

    def _repr_html_(self) -> str | None:
        """Return the leaderboards and the errors, which notebooks display."""
        try:
            boards = self._boards()
        except (ValueError, AttributeError):
            html: str | None = pd.DataFrame(self).to_html()
            return html
        errors = "".join(f"<p>{escape(line)}</p>" for line in self._unfinished())
        return boards._repr_html_() + errors

    def _boards(self) -> Leaderboards:
        return Leaderboards(tuple(leaderboards(self)), self.titles)

    def _unfinished(self) -> list[str]:
        """Return a line for each error, and the number of cells that were not computed."""
        failed, n = self[self["status"] == "failed"], len(self)
        lines = [
            f"{counted(len(cells), 'cell')} of {n} failed: {one_line(str(error))}"
            for error, cells in failed.groupby("error")
        ]
        if skipped := int((self["status"] == "skipped").sum()):
            lines.append(f"{counted(skipped, 'cell')} of {n} not computed")
        return lines


def _as_text(tables: Sequence[Layout]) -> str:
    """Return tables as text for the width of the terminal, without colours."""
    width = shutil.get_terminal_size().columns
    text = io.StringIO()
    # in a notebook rich would display what it prints, wherever it is told to print it
    console = Console(file=text, width=width, color_system=None, force_jupyter=False)
    console.print(TerminalTables(tuple(tables)))
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())


def _as_html(table: Layout, scale: tuple[float, float] | None = None, n_colored: int = 0) -> str:
    """Return a table with the first columns coloured between the accuracies of a scale."""
    heads = "".join(f'<th style="{_HEAD}">{escape(head)}</th>' for head in table.heads)
    heads += "".join(f'<th style="{_NUMBER}">{escape(head)}</th>' for head in table.flat_columns)
    rows = []
    for labels, row in (pair for part in table.parts() for pair in part):
        cells = "".join(f'<th style="{_HEAD}">{_breakable(label)}</th>' for label in labels)
        for place, cell in enumerate(row.cells):
            colored = scale if place < n_colored and row.part != "worst" else None
            cells += f'<td style="{_cell_style(cell, colored)}">{escape(str(cell))}</td>'
        rows.append(f"<tr>{cells}</tr>")
    below = [*(f"<b>{escape(each)}</b>" for each in table.warnings), escape(table.note)]
    return (
        f'<div style="overflow-x: auto"><p><b>{escape(table.caption)}</b></p>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<p style="{_SMALL}">{"<br>".join(below)}</p></div>'
    )


def _breakable(label: str) -> str:
    """Return a method as HTML whose lines may end after each option."""
    return escape(label).replace("[", "<wbr>[").replace(",", ",<wbr>")


def _cell_style(cell: Shown, scale: tuple[float, float] | None) -> str:
    style: list[Any] = [_CELL]
    if scale is not None and cell.accuracy is not None:
        color = ramp((cell.accuracy - scale[0]) / (scale[1] - scale[0]))
        style += [f"background: {color}", f"color: {ink_on(color)}"]
    return "; ".join([*style, *(["font-weight: bold"] if cell.bold else [])])
