"""The page in a headless Chromium, by clicking; skipped, and said so, where there is none."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import click, css, needs_chromium, opened_page, texts, wait_until
from tests.report.story import write_story
from uebench.report import read_results, write_page

pytestmark = [needs_chromium, pytest.mark.slow]
WIDTHS = {"light": 1280, "dark": 1280, "phone": 390}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_story(tmp_path_factory.mktemp("story"))
    return write_page(read_results(folder))


@pytest.fixture
def opened(driver: Any, page: Path) -> Iterator[Any]:
    with opened_page(driver, page.as_uri()):
        yield driver


def rows(driver: Any) -> list[str]:
    """Return the heads of the table's rows as they are seen."""
    return texts(driver, ".heat tbody th")


def column(driver: Any, number: int) -> list[str]:
    """Return what is seen in a column of the poisons' rows."""
    return [text.split()[0] for text in texts(driver, f".heat tr.poison td:nth-of-type({number})")]


def test_a_click_sorts_and_a_second_click_reverses(opened: Any) -> None:
    before = rows(opened)
    assert before == ["clean", "EM", "EM [eps=16/255]", "lsp", "worst case over attacks"]
    click(opened, ".heat thead .sort", "standard")
    up = [float(text) for text in column(opened, 1)]
    assert up == sorted(up)
    click(opened, ".heat thead .sort", "standard")
    assert [float(text) for text in column(opened, 1)] == up[::-1] != up
    assert rows(opened)[0] == "clean"
    assert rows(opened)[-1] == "worst case over attacks"
    head = opened.find_element("css selector", ".board.on th[aria-sort=descending]")
    assert "standard" in head.text
    click(opened, ".heat thead .sort", "attack")
    assert rows(opened) == sorted(before[:-1], key=lambda r: (r != "clean", r)) + before[-1:]


def test_failed_cells_are_sorted_after_numbers(opened: Any) -> None:
    for _ in range(2):
        click(opened, ".heat thead .sort", "alert")
        assert column(opened, 4)[-1] == "failed"


def test_typed_words_filter_rows_and_columns(opened: Any) -> None:
    opened.find_element("css selector", "[data-filter=rows]").send_keys("eps, LSP")
    assert rows(opened) == ["EM [eps=16/255]", "lsp", "worst case over attacks"]
    assert "hidden" in opened.find_element("css selector", ".hint").text
    opened.find_element("css selector", "[data-filter=columns]").send_keys("repeats")
    heads = [text.partition(" ↕")[0] for text in texts(opened, ".heat thead th")]
    assert heads[0] == "attack"
    assert [head.split()[0] for head in heads[1:3]] == ["UEraser-Max", "UEraser-Max"]
    assert len(heads) == 4, "the defenses and the best one"
    assert len(css(opened, ".heat tr.poison:not([hidden]) td")) == 6
    for name in ("rows", "columns"):
        field = opened.find_element("css selector", f"[data-filter={name}]")
        field.clear()
        field.send_keys(" ")
    assert len(rows(opened)) == 5
    assert len(css(opened, ".heat thead th")) == 6


def test_tabs_show_one_data_set_and_network_and_what_belongs_to_it(opened: Any) -> None:
    def shown() -> tuple[str, str, str]:
        boards = css(opened, ".board")
        assert len(boards) == 1
        return tuple(boards[0].get_attribute(f"data-{n}") for n in ("dataset", "arch", "ratio"))  # type: ignore[return-value]

    assert shown() == ("one", "resnet8", "0.5")
    click(opened, "button[data-tab=ratio]", "100")
    click(opened, "button[data-tab=arch]", "resnet18")
    assert shown() == ("one", "resnet18", "1.0")
    click(opened, "button[data-tab=dataset]", "two")
    assert shown() == ("two", "resnet8", "1.0"), "the nearest that there is"
    pressed = texts(opened, "[data-tab][aria-pressed=true]")
    assert pressed == ["two", "resnet8", "100 %"]
    for kind in (".plot", "#confusion .follows"):
        plots = css(opened, kind)
        assert plots
        assert {e.get_attribute("data-dataset") for e in plots} == {"two"}
    assert any("poisoned share" in text for text in texts(opened, ".plot h3"))


def test_the_switch_shows_the_best_epoch_in_cells_colours_plots_and_order(opened: Any) -> None:
    click(opened, ".heat thead .sort", "standard")
    last, before = column(opened, 1), rows(opened)
    cell = css(opened, ".heat tr.poison td.colored")[0]
    color = cell.value_of_css_property("background-color")
    click(opened, "button[data-metric=best]")
    best = column(opened, 1)
    assert best != last
    assert [float(text) for text in best] == sorted(float(text) for text in best), "sorted anew"
    assert rows(opened) != before
    cell = css(opened, ".heat tr.poison td.colored")[0]
    assert cell.value_of_css_property("background-color") != color or best[0] != last[0]
    assert "chosen on the test set" in texts(opened, ".board .note")[0]
    assert any("best epoch" in text for text in texts(opened, ".plot .label"))
    click(opened, "button[data-metric=last]")
    assert column(opened, 1) == last


def test_a_cell_opens_its_record_and_escape_closes_it(opened: Any) -> None:
    cell = css(opened, ".heat tr.poison td a")[1]
    address = cell.get_attribute("href")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    place = opened.execute_script("return scrollY")
    cell.click()
    (record,) = css(opened, ".record")
    assert opened.current_url == address
    assert opened.switch_to.active_element == record
    for words in ("EM × UEraser-Max[repeats=2]", "training seed 0", "Confusion matrix",
                  "Poison audit", "protocol", "32.5", "1.5 s", "25 %"):  # fmt: skip
        assert words in record.text, words
    assert len(css(opened, ".record .chart svg")) == 2, "test accuracy and loss of the first run"
    click(opened, ".record summary", "seed 1")
    assert len(css(opened, ".record .chart svg")) == 4
    opened.switch_to.active_element.send_keys("\ue00c")  # Escape
    wait_until(opened, lambda: not css(opened, ".record"))
    assert abs(opened.execute_script("return scrollY") - place) < 50, "back where one was"
    opened.get(address)
    assert css(opened, ".record"), "the address alone opens it"
    click(opened, ".record .close")
    wait_until(opened, lambda: not css(opened, ".record"))


def test_a_failed_cell_shows_its_error_and_no_foreign_script_runs(opened: Any) -> None:
    click(opened, ".heat td a", "failed")
    (record,) = css(opened, ".record")
    assert "ValueError: </script><script>alert(1)" in record.text
    assert "{{ 7*7 }}" in record.text
    assert opened.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert opened.execute_script("return document.scripts.length") == 1


def test_the_page_fits_a_phone_and_both_themes_and_paper(
    opened: Any, tmp_path: Path, page: Path
) -> None:
    folder = Path(os.environ.get("UEBENCH_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    backs = {}
    for name, width in WIDTHS.items():
        theme = {"name": "prefers-color-scheme", "value": "dark" if name == "dark" else "light"}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert opened.save_screenshot(str(folder / f"{name}.png"))
        wide = opened.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{name}: the page itself must not scroll sideways"
        body = opened.find_element("css selector", "body")
        backs[name] = body.value_of_css_property("background-color")
    assert backs["dark"] != backs["light"] == backs["phone"]
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not css(opened, ".controls, .filters, nav")
    assert css(opened, ".board")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
