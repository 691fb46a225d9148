"""Plots as PDF and PNG files for papers: what the page shows, drawn by matplotlib.

Files are the same byte for byte for the same results and the same matplotlib: no dates in them.
Text stays text in the PDF (TrueType, as conferences ask).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from .boards import settings_data
from .colors import LINES, RAMP
from .folder import Results
from .groups import Settings, grouped, the_attack, the_defense
from .matrix import shares
from .series import Figure, Line, budget, cost, curves, method_title, ratio, repeats, spread
from .tables import Metric, leaderboards

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

KINDS = ("curves", "ratio", "confusion", "budget", "repeats", "cost", "examples")
ACROSS = 4
"""Most panels side by side."""
PANEL = (2.7, 2.15)
"""Inches of a panel."""
MARKERS = ("o", "s", "^", "D", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
NUMBERED = 20
"""Most classes whose names stand at a confusion matrix."""
STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
}
NOTHING = {
    "curves": "no curves in {0}: it has no records.json with curves; run its command again",
    "ratio": "{0} has one poisoned share alone; run with --ratio 0.2,0.5,1, say",
    "budget": "{0} has no attack with two budgets; run with --attacks em,em[eps=16/255], say",
    "repeats": "{0} has no defense with two values of repeats; run with "
    "--defenses ueraser_max[repeats=2],ueraser_max[repeats=5], say",
    "confusion": "no confusion matrices in {0}: it has no records.json with them; "
    "run its command again",
    "cost": "{0} has not two defenses with times of training; run another one",
}


def draw(results: Results, kind: str, folder: Path, metric: Metric = "test_acc") -> list[Path]:
    """Draw all plots of a kind into a folder; return the files.

    Raises:
        ValueError: the results have nothing for such a plot; nothing was written.
    """
    leaderboards(results.cells, metric)  # refuses what must not be averaged
    makers: dict[str, Callable[[], Sequence[Figure]]] = {
        "curves": lambda: curves(results),
        "ratio": lambda: ratio(results, metric),
        "budget": lambda: budget(results, metric),
        "repeats": lambda: repeats(results, metric),
        "cost": lambda: cost(results, metric),
    }
    with style():
        if kind == "confusion":
            drawn = _confusions(results)
        else:
            drawn = [(_stem(figure), figure.settings, _lines(figure)) for figure in makers[kind]()]
        if not drawn:
            raise UserError(NOTHING[kind].format(results.folder))
        stems = _apart([(stem, settings) for stem, settings, _ in drawn])
        canvases = [canvas for _, _, canvas in drawn]
        return [
            path
            for stem, canvas in zip(stems, canvases, strict=True)
            for path in save(canvas, folder, stem)
        ]


def style() -> Any:
    """Return a context in which matplotlib draws as this package does, without a screen."""
    import matplotlib as mpl

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # not a user's business
    return mpl.rc_context(STYLE)


def new_canvas(width: float, height: float) -> Canvas:
    """Return an empty canvas, in inches, that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def save(canvas: Canvas, folder: Path, stem: str) -> list[Path]:
    """Write a canvas as PDF and PNG, without dates; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.pdf", folder / f"{stem}.png"]
    canvas.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    canvas.savefig(paths[1], metadata={"Software": None})
    return paths


def _lines(figure: Figure) -> Canvas:
    """Return the panels of a figure with one legend below them."""
    across = min(ACROSS, len(figure.panels))
    down = math.ceil(len(figure.panels) / across)
    canvas = new_canvas(max(PANEL[0] * across, 3.4), PANEL[1] * down + 0.7)
    grid = canvas.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    legend: dict[str, Any] = {}
    for i, axes in enumerate(grid.flat):
        if i >= len(figure.panels):
            axes.set_axis_off()
            continue
        for line in figure.panels[i].lines:
            legend.setdefault(line.label, _line(axes, line, figure))
        axes.set_title(plain(figure.panels[i].title))
        axes.set_ylabel(figure.y_label if i % across == 0 else "")
        if i + across >= len(figure.panels):
            axes.set_xlabel(plain(figure.x_label))
            axes.tick_params(labelbottom=True)
        if figure.log_x:
            _log_axis(axes)
        if figure.kind in ("curves", "repeats"):
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
    canvas.legend(
        list(legend.values()),
        [plain(label) for label in legend],
        loc="outside lower center",
        ncols=min(5, max(1, int(PANEL[0] * across / 1.4))),
    )
    return canvas


def _log_axis(axes: Axes) -> None:
    """Let x rise by factors, with plain numbers at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, line: Line, figure: Figure) -> Any:
    xs = [point.x for point in line.points]
    ys = [100 * point.y for point in line.points]
    bars = [100 * spread(point) for point in line.points]
    return axes.errorbar(
        xs,
        ys,
        yerr=bars if any(bars) else None,
        color=LINES[line.style % len(LINES)],
        linestyle=DASHES[line.style // len(LINES) % len(DASHES)] if figure.joined else "none",
        marker=MARKERS[line.style % len(MARKERS)] if len(xs) <= 20 or not figure.joined else "",
        markersize=3.5,
        linewidth=1.2,
        elinewidth=0.8,
    )


def _confusions(results: Results) -> list[tuple[str, Settings, Canvas]]:
    """Return the matrices of the first finished run of each cell, a canvas a setting."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("uebench", RAMP)
    drawn = []
    for settings, runs in grouped(results.cells).items():
        found: dict[Any, list[list[int]]] = {}
        for run in runs:
            matrix = results.record(run["key"]).confusion
            if matrix:
                found.setdefault((the_attack(run), the_defense(run)), matrix)
        if not found:
            continue
        attacks = sorted(dict.fromkeys(a for a, _ in found), key=lambda a: not a.is_clean)
        defenses = list(dict.fromkeys(d for _, d in found))
        side = 1.9
        canvas = new_canvas(side * len(defenses) + 1.2, side * len(attacks) + 0.5)
        grid = canvas.subplots(len(attacks), len(defenses), squeeze=False)
        image = None
        for i, attack in enumerate(attacks):
            for j, defense in enumerate(defenses):
                axes = grid[i][j]
                axes.grid(visible=False)
                matrix = found.get((attack, defense), [])
                if not matrix:
                    axes.set_axis_off()
                    continue
                image = axes.imshow(shares(matrix), cmap=colors, vmin=0, vmax=1)
                _class_ticks(axes, results.class_names(settings.dataset, len(matrix)), i, j, grid)
                if i == 0:
                    axes.set_title(plain(method_title(results, defense)))
                if j == 0:
                    axes.set_ylabel(f"{plain(method_title(results, attack))}\ntrue class")
                if i == len(attacks) - 1:
                    axes.set_xlabel("predicted class")
        if image is not None:
            bar = canvas.colorbar(image, ax=grid, shrink=0.6, aspect=30)
            bar.set_label("share of the true class")
        drawn.append((f"confusion-{_setting_stem(settings)}", settings, canvas))
    return drawn


def _class_ticks(axes: Axes, names: Sequence[str], i: int, j: int, grid: Any) -> None:
    """Name the classes at the outer edges, where there are few of them."""
    axes.set_xticks([])
    axes.set_yticks([])
    if len(names) > NUMBERED:
        return
    if j == 0:
        axes.set_yticks(range(len(names)), [plain(name)[:14] for name in names], fontsize=5.5)
    if i == len(grid) - 1:
        axes.set_xticks(
            range(len(names)), [plain(name)[:14] for name in names], fontsize=5.5, rotation=90
        )


def plain(text: str) -> str:
    """Return text of which matplotlib makes no formulas, with the letters that its font has."""
    return text.replace("$", r"\$").encode("latin-1", "replace").decode("latin-1")


def _stem(figure: Figure) -> str:
    """Return a figure's file name without ending."""
    what: str = "curves-train" if "training images" in figure.title else figure.kind
    if figure.kind == "budget":
        what = f"budget-{figure.x_label.partition(' ')[0]}"
    return f"{what}-{_setting_stem(figure.settings)}"


def _setting_stem(settings: Settings) -> str:
    return f"{slug(settings.dataset)}-{slug(settings.arch)}"


def _apart(drawn: Sequence[tuple[str, Settings]]) -> list[str]:
    """Return the stems, with more of the settings where two would be the same."""
    stems = [stem for stem, _ in drawn]
    made = []
    for stem, settings in drawn:
        if stems.count(stem) > 1:
            rivals = [settings_data(other) for name, other in drawn if name == stem]
            mine = settings_data(settings)
            differing = [n for n in mine if len({rival[n] for rival in rivals}) > 1]
            stem = "-".join([stem, *(f"{n}-{slug(mine[n]) or 'all'}" for n in differing)])
        made.append(stem)
    return made


def slug(text: str) -> str:
    """Return text for a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:60]
