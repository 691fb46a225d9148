"""Plots for papers as PDF, PNG and SVG files: the charts of the page, painted with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from .boards import settings_data
from .canvas import PLOT_FORMATS, TALLEST, folded, new_canvas, plain_label, save_canvas, slug, style
from .charts import CHANCE, LETTER, Chart, Look, charts, legend
from .colors import DASHES, LINES, MARKS
from .confusion_plots import confusions
from .figures import MAKERS
from .folder import Results
from .groups import Settings
from .paper_width import WIDTHS
from .series import Figure, curves_figures
from .tables import Metric, leaderboards

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ACROSS = 4
"""The largest number of panels side by side."""
UNIT, LARGEST_UNIT = 0.65, 0.8
"""Points (1/72 inch) in a unit of a chart: a panel is 2.9 inches wide unless a width is given."""
LETTER_HEIGHT = 11
"""Height of letters in units of a chart."""
SMALLEST_UNIT = 7 / LETTER_HEIGHT
"""A smaller unit would make letters smaller than 7 points."""
TITLE = 16.0
"""Height of a line of a panel's title, in units of a chart."""
TITLE_LETTERS = 36
"""The largest number of letters in a line of a panel's title."""
LEGEND_KEY, LEGEND_LINE = 60.0, 17.0
"""Width of a line with its margins and height of an entry of the legend, in units of a chart."""
INK, GRID = "#444444", "#dddddd"
MISSING = {
    "curves": "{0} has no training curves, because it has no records.json with them; run its "
    "command again",
    "ratio": "{0} has only one poisoned share; run it with --ratio 0.2,0.5,1, for example",
    "budget": "{0} has no attack with two budgets; run it with --attacks em,em[eps=16/255], for "
    "example",
    "repeats": "{0} has no defense with two values of repeats; run it with "
    "--defenses ueraser_max[repeats=2],ueraser_max[repeats=5], for example",
    "confusion": "{0} has no confusion matrices, because it has no records.json with them; run "
    "its command again",
    "victims": "{0} has only one network and victim; run it with "
    "--arch linear,mlp2,lenet5,resnet18 or --victims supervised,simclr, for example",
    "cost": "{0} has fewer than two defenses with training times; run another defense",
}


def draw(
    results: Results,
    kind: str,
    folder: Path,
    metric: Metric = "test_acc",
    *,
    width: float | None = None,
    formats: Sequence[str] = PLOT_FORMATS[:2],
) -> list[Path]:
    """Draw all plots of one kind into a folder and return the paths of the files.

    Args:
        results: What to plot.
        kind: One of `MISSING`.
        folder: Where the files are written.
        metric: The accuracy to plot.
        width: The width of the figures in inches, with letters of at least 7 points; by default
            a panel has 2.9 inches.
        formats: Some of `PLOT_FORMATS`.

    Raises:
        UserError: The results have nothing for such a plot, or it does not fit the width; nothing
            was written.
    """
    leaderboards(results.cells, metric)  # refuses runs that must not be averaged
    with style():
        if kind == "confusion":
            drawn = confusions(results, width)
        else:
            figures = curves_figures(results) if kind == "curves" else MAKERS[kind](results, metric)
            drawn = [(figure.name, figure.settings, _lines(figure, width)) for figure in figures]
        if not drawn:
            raise UserError(MISSING[kind].format(results.folder))
        stems = _stems([(name, settings) for name, settings, _ in drawn])
        canvases = [canvas for _, _, canvas in drawn]
        return [
            path
            for stem, canvas in zip(stems, canvases, strict=True)
            for path in save_canvas(canvas, folder, stem, formats)
        ]


def _lines(figure: Figure, width: float | None = None) -> Canvas:
    """Return a canvas with the panels of a figure and its legend below them.

    Raises:
        UserError: Letters would be smaller than 7 points at this width.
    """
    from matplotlib.lines import Line2D

    panels = charts(figure)
    titles = [folded(chart.title, TITLE_LETTERS) for chart in panels]
    head = TITLE * max(map(len, titles), default=1)
    across, unit = _scale(len(panels), width)
    letters = int((across * Chart.width - LEGEND_KEY) / LETTER)
    entries = legend(figure)
    labels = [folded(entry.label, letters) for entry in entries]
    longest = max(len(line) for label in labels for line in label)
    n_columns = max(1, int(across * Chart.width / (LETTER * longest + LEGEND_KEY)))
    n_rows = math.ceil(len(labels) / n_columns)
    starts = range(0, len(labels), n_rows)  # matplotlib fills a legend column by column
    below = LEGEND_LINE * (0.5 + max(sum(map(len, labels[i : i + n_rows])) for i in starts))
    down, row = math.ceil(len(panels) / across), Chart.height + head
    high = down * row + below
    if width is not None:
        unit = min(unit, TALLEST * 72 / high)
        _check_height(len(panels), across, int((TALLEST * 72 / SMALLEST_UNIT - below) / row), width)
    wide = across * Chart.width if width is None else width * 72 / unit
    canvas = new_canvas(wide * unit / 72, high * unit / 72, None)
    # Each chart has its own margins, so the panels fill their place without gaps between them.
    margin = (1 - across * Chart.width / wide) / 2
    canvas.subplots_adjust(margin, below / high, 1 - margin, 1, 0, 0)
    grid = canvas.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, chart, title in zip(grid.flat, panels, titles, strict=False):
        axes.set(xlim=(0, chart.width), ylim=(chart.height, -head))
        text = "\n".join(title)
        axes.text(
            chart.left, 0, text, fontweight="bold", fontsize=LETTER_HEIGHT * unit, va="bottom"
        )
        _paint(axes, chart, unit)
    canvas.legend(
        [
            Line2D([], [], **_line_look(e.look, figure.joined, unit), **_mark_look(e.look, unit))
            for e in entries
        ],
        ["\n".join(label) for label in labels],
        loc="lower center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=0.2,
        ncols=n_columns,
        fontsize=LETTER_HEIGHT * unit,
    )
    return canvas


def _scale(n_panels: int, width: float | None) -> tuple[int, float]:
    """Return how many panels lie side by side, and how many points a unit of a chart has."""
    if width is None:
        return min(ACROSS, n_panels), UNIT
    narrowest = Chart.width * SMALLEST_UNIT / 72
    if width < narrowest:
        raise UserError(
            f"--width {width:g} leaves letters smaller than 7 points; give at least "
            f"{math.ceil(100 * narrowest) / 100} inches"
        )
    across = min(ACROSS, n_panels, int(width / narrowest))
    return across, min(LARGEST_UNIT, width * 72 / (across * Chart.width))


def _check_height(n_panels: int, across: int, rows: int, width: float) -> None:
    """Refuse a figure that would be higher than a page with letters of 7 points.

    Args:
        n_panels: The panels of the figure.
        across: How many of them lie side by side.
        rows: How many rows of panels a page holds.
        width: The width of the figure in inches.
    """
    if n_panels <= across * rows:
        return
    across_page = _scale(n_panels, WIDTHS["page"])[0]
    wider = width < WIDTHS["page"] and n_panels <= across_page * rows
    raise UserError(
        f"--width {width:g} cannot hold {n_panels} panels on one page with letters of 7 points; "
        f"select at most {across * rows} of them with --attacks or --defenses"
        f"{', or give --width page' if wider else ''}"
    )


def _paint(axes: Axes, chart: Chart, unit: float) -> None:
    """Paint a chart onto axes whose limits are in its own units."""
    ink: dict[str, Any] = {"color": INK, "fontsize": LETTER_HEIGHT * unit}
    for tick in chart.y_ticks:
        axes.plot([chart.left, chart.right], [tick.at] * 2, color=GRID, linewidth=0.7 * unit)
        axes.text(chart.left - 5, tick.at, tick.text, ha="right", va="center", **ink)
    for tick in chart.x_ticks:
        axes.plot([tick.at] * 2, [chart.bottom, chart.bottom + 4], color=INK, linewidth=0.9 * unit)
        axes.text(tick.at, chart.bottom + 15, tick.text, ha="center", va="baseline", **ink)
    frame = [chart.left, chart.left, chart.right], [chart.top, chart.bottom, chart.bottom]
    axes.plot(*frame, color=INK, linewidth=0.9 * unit)
    middle_x, middle_y = (chart.left + chart.right) / 2, (chart.top + chart.bottom) / 2
    axes.text(middle_x, chart.height - 6, plain_label(chart.x_label), ha="center", **ink)
    axes.text(
        11, middle_y, plain_label(chart.y_label), rotation=90, ha="center", va="center", **ink
    )
    if chart.chance is not None:
        axes.plot([chart.left, chart.right], [chart.chance] * 2, ":", color=INK, linewidth=unit)
        axes.text(*chart.chance_label, CHANCE, ha="right", va="baseline", **ink)
    for line in chart.lines:
        look = _line_look(line.look, True, unit)
        axes.plot([x for x, _ in line.places], [y for _, y in line.places], **look)
        for x, low, high in line.bars:
            axes.plot([x, x], [low, high], **look | {"linewidth": unit, "linestyle": "-"})
        xs, ys = [mark.x for mark in line.marks], [mark.y for mark in line.marks]
        axes.plot(xs, ys, linestyle="none", color=look["color"], **_mark_look(line.look, unit))


def _line_look(look: Look, joined: bool, unit: float) -> dict[str, Any]:
    width = 1.7
    # matplotlib counts dashes in widths of the line, a chart in its own units.
    dashes = (0, tuple(length / width for length in DASHES[look.dash])) if look.dash else "-"
    return {
        "color": LINES[look.color],
        "linewidth": width * unit,
        "linestyle": dashes if joined else "none",
    }


def _mark_look(look: Look, unit: float) -> dict[str, Any]:
    corners = MARKS[look.mark]
    # matplotlib scales a shape such that its largest coordinate is half of the size that is asked
    # for, and its y axis points upwards.
    reach = max(abs(value) for corner in corners for value in corner)
    return {
        "marker": [(x, -y) for x, y in (*corners, corners[0])],
        "markersize": 2 * reach * unit,
        "markeredgewidth": 0.0,
    }


def _stems(drawn: Sequence[tuple[str, Settings]]) -> list[str]:
    """Return the names of files without endings, each with the settings that tell it apart."""
    stems = ["-".join(filter(None, (n, slug(s.dataset), slug(s.arch)))) for n, s in drawn]
    data = [settings_data(settings) for _, settings in drawn]
    names = []
    for stem, mine in zip(stems, data, strict=True):
        rivals = [other for name, other in zip(stems, data, strict=True) if name == stem]
        differing = [n for n in mine if len({rival[n] for rival in rivals}) > 1]
        names.append("-".join([stem, *(f"{n}-{slug(mine[n]) or 'all'}" for n in differing)]))
    return names
