"""Results for readers: cells.csv, leaderboards, tables in five formats, charts and the HTML page.

A results folder is all that this room needs: it imports `common` and nothing else of uebench, and
never torch.
"""

from .cells import COLUMNS, conform_cells, read_cells, write_cells
from .conclusions import summary, unlearned
from .folder import Results, read_results
from .formats import to_csv, to_frame, to_json, to_markdown, write_leaderboards
from .groups import MethodSpec, Settings
from .latex import to_latex
from .page import write_page
from .statistics import Stat
from .tables import BoardEntry, Extreme, Leaderboard, leaderboards, only_leaderboard
from .terminal import to_rich

__all__ = [
    "COLUMNS",
    "BoardEntry",
    "Extreme",
    "Leaderboard",
    "MethodSpec",
    "Results",
    "Settings",
    "Stat",
    "conform_cells",
    "leaderboards",
    "only_leaderboard",
    "read_cells",
    "read_results",
    "summary",
    "to_csv",
    "to_frame",
    "to_json",
    "to_latex",
    "to_markdown",
    "to_rich",
    "unlearned",
    "write_cells",
    "write_leaderboards",
    "write_page",
]
