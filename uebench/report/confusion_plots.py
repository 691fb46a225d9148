"""Confusion matrices as plots: one canvas per setting, attacks in rows, defenses in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from .canvas import TALLEST, folded, new_canvas, plain_label
from .colors import RAMP
from .confusion_page import shares
from .folder import Results
from .groups import Settings, by_pair, grouped
from .series import method_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

BESIDE, ABOVE = 1.4, 1.1
"""Inches for what lies at the sides of confusion matrices, and above and below them."""
NUMBERED = 18
"""A confusion matrix of more classes than this has no class names at its edges."""


def confusions(results: Results, width: float | None = None) -> list[tuple[str, Settings, Canvas]]:
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
        side = _side(len(defenses), len(attacks), n_classes, width)
        letters = max(8, int(side * 72 / 5))
        wide = side * len(defenses) + BESIDE if width is None else width
        canvas = new_canvas(wide, side * len(attacks) + ABOVE)
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
                    axes.set_title("\n".join(folded(method_title(results, defense), letters)))
                if j == 0:
                    title = folded(method_title(results, attack), letters)
                    axes.set_ylabel("\n".join([*title, "true class"]))
                if i == len(attacks) - 1:
                    axes.set_xlabel("predicted class")
        bar = canvas.colorbar(ScalarMappable(cmap=colors), ax=grid, shrink=0.6, aspect=30)
        bar.set_label("share of the true class")
        drawn.append(("confusion", settings, canvas))
    return drawn


def _side(n_across: int, n_down: int, n_classes: int, width: float | None) -> float:
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
    rows = int((TALLEST - ABOVE) / least)
    if n_down > rows:
        raise UserError(
            f"one page cannot hold the confusion matrices of {n_down} attacks with letters of 7 "
            f"points; select at most {rows} with --attacks"
        )
    return min(side, (TALLEST - ABOVE) / n_down)


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
