"""Wide tables are grouped by the families of attacks and defenses, in every form."""

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from tests.browser import css, needs_chromium, opened_page
from tests.report.test_latex import _compile as compiled
from tests.report.test_latex import needs_pdflatex
from uebench.methods.registry import methods
from uebench.report import read_results, to_latex, to_markdown, write_cells, write_page
from uebench.report.arrange import Arrangement, transposed
from uebench.report.latex import latex_tables
from uebench.report.layout import layout
from uebench.report.tables import leaderboards
from uebench.report.tables import only_leaderboard as leaderboard
from uebench.report.terminal import to_rich

DEFENSES = {
    "standard": "",
    "iss": "squeeze",
    "cutout": "augmentation",
    "at": "adversarial training",
    "blur": "squeeze",
    "mixup": "augmentation",
    "trades": "adversarial training",
    "cutmix": "augmentation",
    "mine": "other",
}
GROUPED = ["standard", "iss", "blur", "cutout", "mixup", "cutmix", "at", "trades", "mine"]


@pytest.fixture
def wide(cells) -> pd.DataFrame:
    """Return the cells of two attacks and nine defenses, whose families alternate."""
    families = {"none": "", "em": "error-minimizing", "lsp": "surrogate-free"}
    return cells(
        *(
            {"attack": attack, "attack_family": families[attack], "defense": defense}
            | {"defense_family": family, "test_acc": 0.1 + len(defense) / 20}
            for attack in families
            for defense, family in DEFENSES.items()
        )
    )


def test_defenses_of_one_family_stand_next_to_each_other(wide, tmp_path):
    board = leaderboard(wide)
    assert [defense.name for defense in board.defenses] == GROUPED
    table = layout(board)
    groups = [("squeeze", 2), ("augmentation", 3), ("adversarial training", 2), ("other", 1)]
    assert table.groups == (("", 1), *groups, ("", 1)), "standard and the best have no family"
    assert table.stub == "", "three attacks need no groups"
    latex = to_latex(board)
    for head, n in groups:
        assert rf"\multicolumn{{{n}}}{{c}}{{{head}}}" in latex
    assert "| squeeze iss | squeeze blur | augmentation cutout |" in to_markdown(board)
    console = Console(width=200, file=io.StringIO())
    console.print(to_rich(board))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search("squeeze +squeeze +augmentation", text)
    write_cells(wide, tmp_path / "cells.csv")
    page = write_page(read_results(tmp_path)).read_text()
    heads = re.findall(r'<button type="button" class="sort">(.*?)</button>', page)
    assert "cutmix<small>augmentation</small>" in heads
    assert "standard" in heads, "it has no family"


@needs_chromium
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("squeeze", ["iss", "blur"]),
        ("Adversarial training, cutout", ["cutout", "at", "trades"]),
        ("other", ["mine"]),
    ],
)
def test_the_name_of_a_kind_selects_its_methods(text, left, driver, wide, tmp_path):
    write_cells(wide, tmp_path / "cells.csv")
    with opened_page(driver, write_page(read_results(tmp_path)).as_uri()):
        driver.find_element("css selector", "[data-filter=columns]").send_keys(text)
        heads = css(driver, ".heat thead th.defense")
        assert [head.get_attribute("data-method") for head in heads] == left


def test_groups_of_columns_become_groups_of_rows_and_back(wide):
    table = layout(leaderboard(wide))
    turned = transposed(table)
    assert turned.stub == "kind"
    assert turned.groups == ()
    firsts = [labels[0] for part in turned.parts() for labels, _ in part]
    assert firsts[:9] == [
        *("", "squeeze", "", "augmentation", "", "", "adversarial training", "", "other")
    ]
    again = transposed(turned)
    assert again.groups == table.groups
    assert [label.title for label in again.columns] == [label.title for label in table.columns]


@needs_pdflatex
def test_a_grouped_table_has_the_width_that_was_computed(wide, tmp_path):
    for arranged in (Arrangement(width=6.75), Arrangement(True, False, width=6.75)):
        table = arranged.of(lambda worst: layout(leaderboard(wide), None, worst))
        text = latex_tables([(table, "tab:mine")], standalone=True, width=6.75)
        assert "Overfull" not in compiled(text, tmp_path)


def test_attacks_are_grouped_too_and_clean_data_stays_first(cells):
    names = {f"a{k}": ("error-maximizing", "surrogate-free")[k % 2] for k in range(9)}
    frame = cells(
        *({"attack": name, "attack_family": family} for name, family in names.items()),
        {"attack": "none"},
    )
    table = layout(leaderboard(frame))
    assert [row.label.title for row in table.rows[:4]] == ["clean", "a0", "a2", "a4"]
    assert table.stub == "kind"
    firsts = [labels[0] for part in table.parts() for labels, _ in part]
    assert firsts[:3] == ["", "error-maximizing", ""]
    assert firsts[6] == "surrogate-free"


def test_small_tables_and_those_of_older_folders_stay_as_they_are(wide):
    few = wide[wide["defense"] != "mine"]
    (old,) = leaderboards(wide.drop(columns=["attack_family", "defense_family"]))
    for board in (leaderboard(few), old):
        assert [d.name for d in board.defenses] == [*DEFENSES][: len(board.defenses)]
        assert layout(board).groups == ()


def test_every_method_of_the_suite_declares_its_family():
    for kind, neutral in (("attack", "none"), ("defense", "standard")):
        built_in = {
            n: cls.info for n, cls in methods(kind).items() if cls.info.origin == "built-in"
        }
        assert built_in[neutral].family == ""
        assert all(info.family not in ("", "other") for n, info in built_in.items() if n != neutral)
