"""The width of a table or figure in a paper, and whether a table fits it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from .layout import Layout, Shown

WIDTHS = {"column": 3.25, "page": 6.75}
"""Inches of a column and of both columns in the usual two-column styles of conferences."""
NARROWEST, WIDEST = 1.5, 20.0
LETTER_PT = 8.0
r"""Height of `\footnotesize` in a document whose text has 10 points."""
COLUMN_SEP_PT = 3.0
"""Space on each side of a column of numbers."""
SMALL, BOLD = 17 / 16, 1.153
"""Widths of the digits of cmr8 relative to cmr10's, and of cmbx8 relative to cmr8's."""
POINTS = 72.27
"""TeX's points in an inch."""


def inches(text: str) -> float:
    """Return a width in inches, which is given in words or as a number.

    Raises:
        UserError: it is neither, or no width of a page.
    """
    if text in WIDTHS:
        return WIDTHS[text]
    try:
        width = float(text)
    except ValueError:
        width = math.nan
    if not NARROWEST <= width <= WIDEST:
        words = ", ".join(f"{name} ({value} in)" for name, value in WIDTHS.items())
        raise UserError(
            f"--width must be {words} or a number of inches from {NARROWEST:g} to {WIDEST:g}, "
            f"got {text}"
        )
    return width


def check_width(table: Layout, width: float, others: Mapping[str, Layout]) -> None:
    """Refuse a table that is wider than its place in a paper.

    Args:
        table: the table.
        width: the width of its place, in inches.
        others: other forms of the table, by what one types to get them.

    Raises:
        UserError: it is too wide; the message says which of the other forms would fit.
    """
    needed = width_of(table)
    if needed <= width:
        return
    widths = {typed: width_of(other) for typed, other in others.items()}
    fitting: list[str] = []
    for typed, other in widths.items():  # one change before two, which are named if they must be
        if other <= width and not any(each.partition(" (")[0] in typed for each in fitting):
            fitting.append(f"{typed} ({other:.2f} in)")
    fitting += [f"--width {n}" for n, inches in WIDTHS.items() if width < inches >= needed]
    fitting.append("fewer --attacks or --defenses")
    raise UserError(
        f"the table {table.caption!r} needs {needed:.2f} in at the size of footnotes, and "
        f"{width:g} in are available; what would fit: {', '.join(fitting)}"
    )


def width_of(table: Layout) -> float:
    r"""Return the width of a table in inches, in Computer Modern at `\footnotesize`.

    Most other fonts of papers, such as Times, are narrower.
    """
    columns: list[Iterable[float]] = [
        (_width(labels[number]) for labels in [table.heads, *map(table.labels, table.rows)])
        for number in range(len(table.heads))
    ]
    for number, label in enumerate(table.columns):
        cells = (_cell_width(row.cells[number]) for row in table.rows)
        columns.append([_width(str(replace(label, options="", aside=""))), *cells])
    widths = [max(column, default=0.0) for column in columns]
    start = len(table.heads)
    for head, n in table.groups:  # TeX widens the last column under a wide heading
        covered = sum(widths[start : start + n]) + 2 * COLUMN_SEP_PT * (n - 1)
        widths[start + n - 1] += max(0.0, _width(head) - covered)
        start += n
    return (sum(widths) + 2 * COLUMN_SEP_PT * (len(columns) - 1)) / POINTS


def _cell_width(cell: Shown) -> float:
    value = _width(cell.value) * (BOLD if cell.bold else 1)
    return value + _width(str(replace(cell, value="")))


@cache
def _font() -> Any:
    import matplotlib as mpl
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(Path(mpl.get_data_path()) / "fonts/ttf/cmr10.ttf"))
    font.set_size(LETTER_PT, POINTS)
    return font


def _width(text: str) -> float:
    """Return the width of a text in TeX's points; letters that the font lacks count as `M`."""
    font = _font()
    known = font.get_charmap()
    font.set_text("".join(c if ord(c) in known else "M" for c in text) or " ")
    return SMALL * float(font.get_width_height()[0]) / 64 if text else 0.0
