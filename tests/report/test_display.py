"""Tables in Python show themselves as text and as HTML that needs no script and trusts no name."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tests.report.story import write_story
from uebench.report import leaderboards, read_results
from uebench.report.colors import ramp
from uebench.report.compare import ours_of, with_published
from uebench.report.display import Comparison, Leaderboards, Plots, ResultTable
from uebench.report.published import read_published
from uebench.report.tables import several

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read_results(write_story(tmp_path_factory.mktemp("story"))).cells_with_chance


@pytest.fixture
def boards(cells: pd.DataFrame) -> Leaderboards:
    return Leaderboards(tuple(several(leaderboards(cells))), {"em": "EM"})


def html_cells(html: str) -> list[list[tuple[str, str]]]:
    """Return style and text of the number cells of each row."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [re.findall(r'<td style="([^"]*)">(.*?)</td>', row) for row in rows]


def test_leaderboards_are_heat_maps_from_chance_to_the_clean_accuracy(boards: Leaderboards) -> None:
    board = boards.boards[0]
    low = board.chance or 0.0
    high = max(s.mean for d in board.defenses if (s := board.stat(board.attacks[0], d)).n)
    rows = [row for row in html_cells(boards._repr_html_()) if row]
    assert board.attacks[0].is_clean
    for attack, row in zip(board.attacks, rows, strict=False):
        for defense, (style, text) in zip(board.defenses, row, strict=False):
            stat = board.stat(attack, defense)
            if stat.n:
                assert text.startswith(f"{100 * stat.mean:.1f}")
                assert f"background: {ramp((stat.mean - low) / (high - low))}" in style
            else:
                assert "background" not in style
            assert ("bold" in style) == (defense in board.best(attack))
    worst = rows[len(board.attacks)]
    assert not any("background" in style for style, _ in worst), "a worst case repeats a number"


def test_leaderboards_are_text_and_files_too(boards: Leaderboards) -> None:
    text = repr(boards)
    assert "EM" in text
    assert "\x1b" not in text
    assert boards.to_markdown().count("| EM |") == len(boards.boards)
    assert r"\toprule" in boards.to_latex()
    assert boards.to_csv().splitlines()[0].startswith("dataset,arch")
    assert len(boards.to_frame()) == len(boards.to_csv().splitlines()) - 1
    assert '"test_acc"' in boards.to_json()


def test_a_table_shows_itself_as_leaderboards_and_errors(cells: pd.DataFrame) -> None:
    table = ResultTable.of(cells, {})
    n_failed = int((cells["status"] == "failed").sum())
    assert n_failed, "the story has a failed cell"
    for shown in (repr(table), table._repr_html_() or ""):
        assert "worst case" in shown
        assert f"of {len(cells)} failed: " in shown
    skipped = ResultTable.of(cells.assign(status="skipped", error=""), {})
    assert f"{len(cells)} cells of {len(cells)} not computed" in repr(skipped)


def test_a_table_is_a_frame_and_parts_of_it_are_plain_frames(cells: pd.DataFrame) -> None:
    table = ResultTable.of(cells, {})
    assert isinstance(table, pd.DataFrame)
    pd.testing.assert_frame_equal(pd.DataFrame(table), cells)
    for part in (table[["attack"]], table[table["status"] == "ok"], table.head(2), table.copy()):
        assert type(part) is pd.DataFrame
    del table["attack"]  # as somebody may
    assert f"{len(cells.columns) - 1} columns" in repr(table)
    assert "<table" in (table._repr_html_() or "")


def test_names_are_no_html(cells: pd.DataFrame) -> None:
    evil = "<img src=x onerror=alert(1)>"
    attacked = cells.assign(error=f"{evil} broke")
    titles = dict.fromkeys([*cells["attack"], *cells["defense"], *cells["dataset"]], evil)
    html = ResultTable.of(attacked, titles)._repr_html_() or ""
    html += Leaderboards(tuple(leaderboards(attacked)), titles)._repr_html_()
    html += Plots({evil: b"png"})._repr_html_()
    assert "&lt;img src=x" in html
    assert "<img src=x" not in html


def test_a_comparison_says_what_was_published() -> None:
    boards = leaderboards(read_results(RESULTS / "cifar10").cells)
    comparison = Comparison(tuple(with_published(ours_of(boards, {}), read_published())))
    frame = comparison.to_frame()
    assert {"apbench-2023", "iss-2023"} <= set(frame["source"])
    one = frame[frame["published_low"] == frame["published_high"]].iloc[0]
    assert one["difference"] == pytest.approx(one["mean"] - one["published_low"])
    for shown in (repr(comparison), comparison._repr_html_(), comparison.to_markdown()):
        assert "iss-2023" in shown
        assert "not comparable" in " ".join(shown.split())
    nothing = Comparison(())
    assert repr(nothing) in nothing._repr_html_()
    assert "No published numbers" in repr(nothing)
