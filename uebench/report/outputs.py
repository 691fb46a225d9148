"""The tables that a run writes into `--out`: cells.csv and the leaderboard in three formats."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..common.text import write_text
from .cells import write_cells
from .formats import to_csv, to_markdown
from .latex import to_latex
from .layout import Titles
from .tables import Metric, leaderboards


def write_leaderboards(
    cells: pd.DataFrame,
    folder: Path | str,
    titles: Titles | None = None,
    metric: Metric = "test_acc",
) -> list[Path]:
    """Write cells.csv and leaderboard.csv, .tex and .md into `folder`; return their paths.

    Each file is replaced whole. The cells come first, so that they are written even if no
    leaderboard can be made from them.

    Raises:
        ValueError: As for `write_cells` and `leaderboards`.
    """
    folder = Path(folder)
    write_cells(cells, folder / "cells.csv")
    boards = leaderboards(cells, metric)
    texts = {
        "leaderboard.csv": to_csv(boards),
        "leaderboard.tex": to_latex(boards, titles),
        "leaderboard.md": to_markdown(boards, titles),
    }
    return [folder / "cells.csv", *write_texts(folder, texts)]


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts by file name into a folder, each file whole; return their paths."""
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
