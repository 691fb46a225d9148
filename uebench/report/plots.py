"""Plots as PDF, PNG and SVG files for papers: the charts of the page, painted with matplotlib.

The same results and the same matplotlib give the same bytes, because the files carry no dates.
Text stays text in the PDF (as TrueType, which conferences ask for).
"""

from __future__ import annotations

import logging
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.drafts import replaced_file
from ..common.errors import UserError
from .boards import settings_data
from .charts import Chart, Look, charts, legend
from .colors import DASHES, LINES, MARKS, RAMP
from .figures import MAKERS
from .folder import Results
from .groups import Settings, by_pair, grouped
from .matrix import shares
from .series import Figure, curves_figures, method_title
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
LETTER, LEGEND_KEY, LEGEND_LINE = 6.6, 60.0, 17.0
"""Width of a letter, width of a line with its margins, and height of an entry of the legend, in
units of a chart."""
PLOT_FORMATS = ("pdf", "png", "svg")
BESIDE = 1.4
"""Inches for what lies at the sides of confusion matrices: labels and the scale of colours."""
INK, GRID = "#444444", "#dddddd"
NUMBERED = 18
"""A confusion matrix of more classes than this has no class names at its edges."""
STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "uebench",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
}
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
            drawn = _confusions(results, width)
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


def style() -> Any:
    """Return a context in which matplotlib draws as this package does, without a screen."""
    import matplotlib as mpl

    # Its hints about fonts are of no use to readers.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return mpl.rc_context(STYLE)


def new_canvas(width: float, height: float, layout: Any = "constrained") -> Canvas:
    """Return an empty canvas, in inches, that belongs to no window.

    `layout` is matplotlib's way to make room for labels, None where the axes are placed by hand.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout=layout)
    FigureCanvasAgg(canvas)
    return canvas


def save_canvas(
    canvas: Canvas, folder: Path, stem: str, formats: Sequence[str] = PLOT_FORMATS[:2]
) -> list[Path]:
    """Write a canvas in some formats, without dates, and return the paths."""
    undated: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
    }
    paths = []
    for suffix in formats:
        paths.append(folder / f"{stem}.{suffix}")
        with replaced_file(paths[-1]) as draft:
            canvas.savefig(draft, metadata=undated[suffix], format=suffix)
    return paths


def _lines(figure: Figure, width: float | None = None) -> Canvas:
    """Return a canvas with the panels of a figure and its legend below them.

    Raises:
        UserError: Letters would be smaller than 7 points at this width.
    """
    from matplotlib.lines import Line2D

    panels = charts(figure)
    titles = [_folded(chart.title, TITLE_LETTERS) for chart in panels]
    head = TITLE * max(map(len, titles), default=1)
    across, unit = _scale(len(panels), width)
    down = math.ceil(len(panels) / across)
    letters = int((across * Chart.width - LEGEND_KEY) / LETTER)
    entries = legend(figure)
    labels = [_folded(entry.label, letters) for entry in entries]
    longest = max(len(line) for label in labels for line in label)
    n_columns = max(1, int(across * Chart.width / (LETTER * longest + LEGEND_KEY)))
    n_rows = math.ceil(len(labels) / n_columns)
    starts = range(0, len(labels), n_rows)  # matplotlib fills a legend column by column
    below = LEGEND_LINE * (0.5 + max(sum(map(len, labels[i : i + n_rows])) for i in starts))
    high = down * (Chart.height + head) + below
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
        axes.text(chart.right, chart.chance_label, "chance", ha="right", va="baseline", **ink)
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


def _confusions(results: Results, width: float | None = None) -> list[tuple[str, Settings, Canvas]]:
    """Return one canvas per setting with the matrix of each cell's first finished run.

    Raises:
        UserError: The matrices do not fit the width with letters of 7 points.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("uebench", RAMP)
    drawn = []
    for settings, runs in grouped(results.cells).items():
        by_cell = {
            pair: results.first_confusion(its_runs) for pair, its_runs in by_pair(runs).items()
        }
        matrices = {pair: matrix for pair, matrix in by_cell.items() if matrix}
        if not matrices:
            continue
        attacks = sorted(dict.fromkeys(a for a, _ in matrices), key=lambda a: not a.is_clean)
        defenses = list(dict.fromkeys(d for _, d in matrices))
        n_classes = max(map(len, matrices.values()))
        side = _side(len(defenses), n_classes, width)
        letters = max(8, int(side * 72 / 5))
        wide = side * len(defenses) + BESIDE if width is None else width
        canvas = new_canvas(wide, side * len(attacks) + 1.1)
        grid = canvas.subplots(len(attacks), len(defenses), squeeze=False)
        for i, attack in enumerate(attacks):
            for j, defense in enumerate(defenses):
                axes = grid[i][j]
                matrix = matrices.get((attack, defense))
                if matrix is None:
                    axes.set_axis_off()
                    continue
                axes.imshow(shares(matrix), cmap=colors, vmin=0, vmax=1)
                _class_ticks(axes, results.class_names(settings.dataset, len(matrix)), i, j, grid)
                if i == 0:
                    axes.set_title("\n".join(_folded(method_title(results, defense), letters)))
                if j == 0:
                    title = _folded(method_title(results, attack), letters)
                    axes.set_ylabel("\n".join([*title, "true class"]))
                if i == len(attacks) - 1:
                    axes.set_xlabel("predicted class")
        bar = canvas.colorbar(ScalarMappable(cmap=colors), ax=grid, shrink=0.6, aspect=30)
        bar.set_label("share of the true class")
        drawn.append(("confusion", settings, canvas))
    return drawn


def _side(n_across: int, n_classes: int, width: float | None) -> float:
    """Return the inches that one confusion matrix may take.

    Raises:
        UserError: Its letters would overlap or be smaller than 7 points.
    """
    if width is None:
        return 1.9
    least = max(0.8, n_classes * 7.5 / 72 if n_classes <= NUMBERED else 0.0)
    side = min(1.9, (width - BESIDE) / n_across)
    if side < least:
        fitting = int((width - BESIDE) / least)
        remedy = f"select at most {fitting} with --defenses, or " if fitting else ""
        raise UserError(
            f"--width {width:g} cannot hold the confusion matrices of {n_across} defenses with "
            f"letters of 7 points; {remedy}give {BESIDE + least * n_across:.2f} inches"
        )
    return side


def _folded(text: str, letters: int) -> list[str]:
    """Return a label in lines of limited length, broken between options where possible."""
    return textwrap.wrap(plain_label(text).replace(",", ", "), letters) or [""]


def _class_ticks(axes: Axes, names: Sequence[str], i: int, j: int, grid: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if len(names) > NUMBERED:
        return
    places, texts = range(len(names)), [plain_label(name)[:14] for name in names]
    if j == 0:
        axes.set_yticks(places, texts, fontsize=7)
    if i == len(grid) - 1:
        axes.set_xticks(places, texts, fontsize=7, rotation=90)


def plain_label(text: str) -> str:
    """Return text that matplotlib does not read as a formula, in letters that its font has."""
    return text.replace("$", r"\$").encode("latin-1", "replace").decode("latin-1")


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


def slug(text: str) -> str:
    """Return text with only those characters that are safe in a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:60]
