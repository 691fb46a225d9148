"""The view of a page: it is filtered by exact names, lies in the address, and can be copied."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.browser import (
    click,
    css,
    look,
    needs_chromium,
    opened_page,
    texts,
    wait_until,
    wider_than_the_window,
)
from tests.report.conftest import FINISHED
from tests.report.story import HOSTILE
from uebench.report import write_cells, write_page
from uebench.report.compare import Meaning
from uebench.report.folder import read_results

pytestmark = needs_chromium
LONG = "train_steps=300,transform_draws=1,adv_steps=4"
ATTACKS = [("none", ""), ("em", ""), ("em", "eps=16/255"), ("rem", LONG), ("adaptive_em", "")]
DEFENSES = [("standard", ""), ("iss", ""), ("ueraser", ""), ("ueraser_max", "repeats=2")]
MEANINGS = {"rem": Meaning(variants=frozenset(("train_steps", "transform_draws", "adv_steps")))}


def view_rows() -> list[dict[str, Any]]:
    """Return the rows of two boards with two seeds each, whose accuracies all differ."""
    rows = []
    for arch in ("resnet18", "resnet8"):
        for i, (attack, attack_options) in enumerate(ATTACKS):
            for j, (defense, defense_options) in enumerate(DEFENSES):
                for seed in (0, 1):
                    accuracy = round(0.8 - 0.11 * i + 0.05 * ((i + j) % 4) + 0.004 * seed, 3)
                    rows.append(
                        FINISHED
                        | {"dataset": "cifar10", "arch": arch, "seed": seed, "protocol": "paper"}
                        | {"attack": attack, "attack_options": attack_options}
                        | {"defense": defense, "defense_options": defense_options}
                        | {"test_acc": accuracy, "test_acc_best": min(1.0, accuracy + 0.03)}
                        | {"train_seconds": 90.0 * (j + 1), "craft_seconds": 7200.0 * (i > 0)}
                        | {"epochs": 200, "key": f"{arch}/{i}/{j}/{seed}", "n_train": 50_000}
                    )
    return rows


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    write_cells(pd.DataFrame(view_rows()), folder / "cells.csv")
    titles = {"em": "EM", "rem": "REM", "ueraser": "UEraser", "ueraser_max": "UEraser-Max"}
    return write_page(read_results(folder, titles), meanings=MEANINGS)


@pytest.fixture
def opened(driver: Any, page: Path) -> Iterator[Any]:
    look(driver, 1400, "light")
    with opened_page(driver, page.as_uri()):
        yield driver


def rows(driver: Any) -> list[str]:
    return [text.replace(" ", "") for text in texts(driver, ".heat tr:not(.worst) th[scope=row]")]


def write_filter(driver: Any, which: str, text: str) -> None:
    field = driver.find_element("css selector", f"[data-filter={which}]")
    field.clear()
    field.send_keys(text)


def copied(driver: Any, form: str) -> str:
    click(driver, f"[data-copy={form}]")
    text = driver.execute_script("return document.querySelector('.copied textarea').value")
    click(driver, ".copied button")
    assert not css(driver, ".copied")
    return str(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("em", ["EM", "EM[eps=16/255]"]),
        ("EM", ["EM", "EM[eps=16/255]"]),
        ("em[eps=16/255]", ["EM[eps=16/255]"]),
        ("rem, none", ["clean", f"REM[{LONG}]"]),
        (f"rem[{LONG}],em[eps=16/255]", ["EM[eps=16/255]", f"REM[{LONG}]"]),
        ("16/", ["EM[eps=16/255]"]),
        ("adaptive", ["adaptive_em"]),
        (" , ", ["clean", "EM", "EM[eps=16/255]", f"REM[{LONG}]", "adaptive_em"]),
    ],
)
def test_a_whole_name_selects_its_method_alone(opened: Any, text: str, left: list[str]) -> None:
    write_filter(opened, "rows", text)
    assert rows(opened) == left


def test_a_filter_that_matches_nothing_is_named(opened: Any) -> None:
    write_filter(opened, "rows", "em, lspp")
    assert "Nothing is called lspp." in texts(opened, ".hint")[0]
    write_filter(opened, "columns", "ueraser")
    assert len(css(opened, ".heat th.defense")) == 1, "UEraser, and not UEraser-Max"


def test_a_view_lies_in_the_address_and_is_there_again_after_a_reload(opened: Any) -> None:
    click(opened, "[data-tab=arch]", "resnet8")
    click(opened, "[data-metric=best]")
    click(opened, "[data-show]", "published")
    write_filter(opened, "rows", "rem,em[eps=16/255]")
    write_filter(opened, "columns", "iss,standard")
    for _ in range(2):
        click(opened, ".heat thead .sort", "iss")

    def shown() -> list[Any]:
        heads = texts(opened, ".heat th.defense")
        return [
            *(rows(opened), heads, texts(opened, ".heat tbody td")),
            texts(opened, "[aria-pressed=true]"),
            css(opened, "th[aria-sort=descending]")[0].get_attribute("data-spec"),
            *(e.get_attribute("value") for e in css(opened, "[data-filter]")),
        ]

    before, address = shown(), opened.current_url
    assert before[0] == ["EM[eps=16/255]", f"REM[{LONG}]"], "the higher one first"
    assert "#" in address
    opened.refresh()
    assert shown() == before
    opened.get("about:blank")
    opened.get(address)
    assert shown() == before
    opened.execute_script("location.hash = '#attacks=em&order=descending&metric=none&sort=x'")
    wait_until(opened, lambda: rows(opened) == ["EM", "EM[eps=16/255]"])
    assert "last epoch" in texts(opened, "[aria-pressed=true]"), "what means nothing is ignored"


def test_sections_and_records_keep_the_view(opened: Any) -> None:
    write_filter(opened, "rows", "em")
    click(opened, "nav a", "Plots")
    assert "attacks=em" in opened.current_url
    click(opened, ".heat td a")
    assert css(opened, ".record")
    click(opened, ".record .close")
    wait_until(opened, lambda: not css(opened, ".record"))
    assert "attacks=em" in opened.current_url
    assert rows(opened) == ["EM", "EM[eps=16/255]"]


def test_published_numbers_and_costs_stand_next_to_ours(opened: Any) -> None:
    assert not css(opened, ".published, .cost")
    click(opened, "[data-show=published]")
    cell = css(opened, ".heat tr.poison td")[0]
    low, _, high = css(opened, ".heat tr.poison td .published")[0].text[5:].partition("–")
    assert 19 < float(low) < float(high) < 24, "EM under standard training, in several sources"
    title = cell.find_element("css selector", ".published").get_attribute("title")
    assert title.startswith("apbench-2023 ")
    assert "ueraser-2023 21.2" in title
    assert "from the lowest to the highest" in texts(opened, ".board .note.published")[0]
    assert "rem's options" in texts(opened, ".board .note.published")[0]
    click(opened, "[data-show=cost]")
    assert texts(opened, ".heat tr.clean td .cost")[:3] == ["90 s", "3.0 min", "4.5 min"]
    assert texts(opened, ".heat tr th .cost") == ["crafted in 2.0 h"] * 4


def test_underlined_is_explained_as_what_it_is(opened: Any) -> None:
    note = texts(opened, ".board.on .note")[0]
    assert "Underlined" in note
    assert "Bold" not in note
    best = css(opened, ".heat strong")[0]
    assert "underline" in best.value_of_css_property("text-decoration")
    plain = css(opened, ".heat .value")[0]
    assert "underline" not in plain.value_of_css_property("text-decoration")


def test_the_present_view_is_copied_as_csv_markdown_and_latex(opened: Any) -> None:
    write_filter(opened, "rows", "em[eps=16/255],rem")
    write_filter(opened, "columns", "ueraser_max,standard")
    click(opened, ".heat thead .sort", "standard")
    table = list(csv.reader(io.StringIO(copied(opened, "csv"))))
    names = ["standard", "UEraser-Max[repeats=2]"]
    assert table[0] == ["attack", *(f"{n}{end}" for n in names for end in ("", " sd")),
                        "best defense (attacker's worst case)"]  # fmt: skip
    rem, em = f"REM[{LONG}]", "EM[eps=16/255]"
    assert [line[0] for line in table[1:]] == [rem, em, "worst case over attacks"]
    assert table[2] == [em, "68.20", "0.3", "63.20", "0.3", "73.20"]
    markdown = copied(opened, "markdown").splitlines()
    assert markdown[1] == "| :-- | --: | --: | --: |"
    assert markdown[2].startswith(r"| REM\[train\_steps=300,transform\_draws=1,adv\_steps=4\] | ")
    assert markdown[3].split(" | ")[1:3] == ["**68.2** ± 0.3", "63.2 ± 0.3"]
    click(opened, "[data-show=published]")
    latex = copied(opened, "latex")
    assert r"REM{[}train\_steps=300,transform\_draws=1,adv\_steps=4{]} & " in latex
    assert r"EM{[}eps=16/255{]} & \textbf{68.2} $\pm$ 0.3 {\scriptsize (pub. 22.6)} & " in latex
    assert latex.count(r"\midrule") == 2
    assert r"\begin{tabular}{lrrr}" in latex


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_view_fits_a_phone_and_a_desk_in_both_themes(
    driver: Any, opened: Any, width: int, theme: str
) -> None:
    look(driver, width, theme)
    click(opened, "[data-show=published]")
    assert wider_than_the_window(opened) == []
    for small in css(opened, ".heat tbody th small"):
        words = opened.execute_script(
            "const r = document.createRange(); r.selectNodeContents(arguments[0]);"
            "return new Set([...r.getClientRects()].map(x => Math.round(x.top))).size", small
        )  # fmt: skip
        assert words <= small.text.count(",") + 1, "an option is not broken within its name"


def test_foreign_names_are_copied_as_text(driver: Any, tmp_path: Path) -> None:
    row = FINISHED | {"attack": "ours", "attack_options": HOSTILE, "key": "k", "defense": "a|b"}
    write_cells(pd.DataFrame([row]), tmp_path / "cells.csv")
    with opened_page(driver, write_page(read_results(tmp_path)).as_uri()):
        assert list(csv.reader(io.StringIO(copied(driver, "csv"))))[1][0] == f"ours[{HOSTILE}]"
        assert r"| attack | a\|b |" in copied(driver, "markdown")
        latex = copied(driver, "latex")
        assert r"\textless{}/script\textgreater{}" in latex
        assert r"\symbol{34}'\&\{\{ 7{*}7 \}\}" in latex
        assert rows(driver) == [f"ours[{HOSTILE}]".replace(" ", "")]
