"""The tables that are committed are those which the committed cells give."""

import csv
import re
from pathlib import Path

import pytest

from uebench.report import leaderboards, read_cells
from uebench.report.formats import leaderboard_texts
from uebench.report.records import read_run

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("results/*/cells.csv"))
TABLES = {
    "results.md": {
        "cifar table": "cifar10",
        "airbench table": "cifar10-airbench",
        "matrix table": "cifar10-more",
        "attacks table": "cifar10-attacks",
        "8k table": "cifar10-8k",
        "seeds table": "cifar10-small",
    },
    "differences.md": {
        "EM table": "differences-em",
        "kornia table": "differences-kornia",
        "adaptive table": "differences-adaptive",
        "full adaptive table": "differences-adaptive-full",
        "AR table": "differences-ar",
        "LSP table": "differences-lsp",
    },
}
"""The tables of pages in docs/, and the folders of results that they show."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_leaderboards_follow_from_the_cells(folder: Path) -> None:
    titles = {name: facts.title for name, facts in read_run(folder).methods.items()}
    for name, text in leaderboard_texts(leaderboards(read_cells(folder)), titles).items():
        assert (folder / name).read_text() == text, f"{name}; run the command of run.json again"


@pytest.mark.parametrize(
    ("page", "mark", "folder"),
    [(page, *table) for page, tables in TABLES.items() for table in tables.items()],
)
def test_a_page_shows_the_tables_of_the_results(page: str, mark: str, folder: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    shown = text.partition(f"<!-- {mark} -->")[2].partition(f"<!-- end of {mark} -->")[0]
    leaderboard = (ROOT / "results" / folder / "leaderboard.md").read_text()
    tables = re.split(r"^\*\*.*\*\*\n\n", leaderboard, flags=re.MULTILINE)[1:]
    everything = leaderboard.partition("\n\n")[2]
    assert shown.strip() in [text.strip() for text in (everything, *tables)]


def test_the_readme_begins_with_the_table_in_the_papers_regime() -> None:
    text = (ROOT / "README.md").read_text()
    shown = text.partition("<!-- airbench table -->")[2].partition("<!-- end of")[0].strip()
    leaderboard = (ROOT / "results" / "cifar10-airbench" / "leaderboard.md").read_text()
    assert shown == "\n".join(row for row in leaderboard.splitlines() if row.startswith("|"))


@pytest.mark.parametrize(
    ("heading", "folder"),
    [
        ("## On CIFAR-10", "cifar10-detection"),
        ("### Networks as detectors", "cifar10-detection-networks"),
    ],
)
def test_the_page_on_detection_shows_the_committed_scores(heading: str, folder: str) -> None:
    text = (ROOT / "docs" / "detection.md").read_text().partition(heading)[2].partition("\n##")[0]
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    shown = {row[0].split(",")[0].lower(): row[1:] for row in table[2:]}
    scores: dict[str, list[str]] = {}
    with (ROOT / "results" / folder / "detection.csv").open() as file:
        for row in csv.DictReader(file):
            score = f"{100 * float(row['score']):.1f}"
            bold = f"**{score}**" if row["poisoned"] == "True" else score
            name = "clean" if row["attack"] == "none" else row["attack"]
            scores.setdefault(name, []).append(bold)
    assert shown == scores
