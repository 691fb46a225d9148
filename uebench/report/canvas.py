"""The canvases that figures are drawn on with matplotlib, and the files that hold them.

The same results and the same matplotlib give the same bytes, because the files carry no dates.
Text stays text in the PDF (as TrueType, which conferences ask for).
"""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.drafts import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PLOT_FORMATS = ("pdf", "png", "svg")
TALLEST = 9.0
"""Inches of the text on a page, of which a figure with a given width takes no more."""
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


def folded(text: str, letters: int) -> list[str]:
    """Return a label in lines of limited length, broken between options where possible."""
    return textwrap.wrap(plain_label(text).replace(",", ", "), letters) or [""]


def plain_label(text: str) -> str:
    """Return text that matplotlib does not read as a formula, in letters that its font has."""
    return text.replace("$", r"\$").encode("latin-1", "replace").decode("latin-1")


def slug(text: str) -> str:
    """Return text with only those characters that are safe in a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:60]
