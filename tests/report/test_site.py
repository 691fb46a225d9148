"""The site's pages: what they show, their links, and strangers' texts, which are only texts."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any
from urllib.parse import unquote

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
from tests.report.story import HOSTILE, story_rows, write_story
from tests.report.test_view import MEANINGS, view_rows
from uebench.report import read_results, write_cells
from uebench.report.method_pages import departures
from uebench.report.site import Site, is_site, site_files

ABOUT = "EM: noise.\n\nSource: Huang et al.\nDeparts from it: `rounds` are\ncapped.\nCost: little."
EM = {
    "kind": "attack",
    "name": "em",
    "title": "EM",
    "source": "arXiv:2101.04898",
    "version": 2,
    "text": "",
    "about": ABOUT,
    "options": [{"name": "eps", "default": "8/255", "accepts": "it", "meaning": "See `norm`."}],
}
Files = dict[str, str | bytes]


def files_of(folder: Path, **changes: Any) -> Files:
    site = Site(read_results(folder), MEANINGS, [EM], {}, [str(folder)], has_docs=False)
    return dict(site_files(replace(site, **changes)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp("story"))


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    return files_of(folder, commands={story_rows()[0]["key"]: f"uebench run {HOSTILE}"})


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, content: str | bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(str(content))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(files: Files) -> Iterator[tuple[str, Page]]:
    yield from ((n, Page(content)) for n, content in files.items() if n.endswith(".html"))


def test_every_link_leads_to_a_file_of_the_site(files: Files) -> None:
    for name, page in pages(files):
        for tag, attributes in page.elements:
            address = attributes.get("href") or attributes.get("src") or ""
            if tag == "use" or address.startswith(("https://arxiv.org/abs/", "data:")):
                continue
            path, _, fragment = address.partition("#")
            if path:
                assert unquote(normpath(join(dirname(name), path))) in files, f"{address} in {name}"
            elif fragment:
                assert any(a.get("id") == fragment for _, a in page.elements), address


def test_every_cell_and_every_method_has_a_page(files: Files) -> None:
    for row in story_rows():
        page = Page(files[f"cells/{row['key'][:16]}.html"])
        assert row["key"] in page.text
        if row["status"] == "ok":
            assert f"{100 * row['test_acc']:.1f} %" in page.text
            assert "training loss" in page.text, "the curve"
            assert "cat taken for dog" in page.text, "the confusion matrix"
        if row["poison_sha256"]:
            assert row["poison_sha256"] in page.text
        if row["attack"] == "em" and row["dataset"] == "one":
            (picture,) = [a["src"] for tag, a in page.elements if tag == "img"]
            assert isinstance(files[normpath(join("cells", picture))], bytes)
    methods = {row[kind] for row in story_rows() for kind in ("attack", "defense")}
    assert len([name for name in files if name.startswith("methods/")]) == len(methods)


def test_a_cell_with_several_seeds_links_to_its_others(files: Files) -> None:
    first, second = [row for row in story_rows() if row["attack"] == "em"][:2]
    page = Page(files[f"cells/{first['key'][:16]}.html"])
    assert f"{second['key'][:16]}.html" in [a.get("href") for _, a in page.elements]
    assert "seed 1" in page.text


def test_the_page_of_a_method_has_its_definition_options_and_numbers(tmp_path: Path) -> None:
    write_cells(pd.DataFrame(view_rows()), tmp_path / "cells.csv")
    files = files_of(tmp_path)
    text = Page(files["methods/attack-em.html"]).text
    for words in ("EM: noise.", "Departs from it: rounds are capped.", "8/255", "See norm.",
                  "apbench-2023 20.8", "ueraser-2023 21.2", "90 s", "Version 2"):  # fmt: skip
        assert words in text, words
    own = [r for r in view_rows() if r["attack"] == "em" and r["arch"] == "resnet18"]
    mean = sum(r["test_acc"] for r in own[:2]) / 2
    assert f"{100 * mean:.1f} ± 0.3" in text
    assert "Departs from it: rounds are capped." in Page(files["differences.html"]).text
    assert "Cost" not in Page(files["differences.html"]).text


def test_the_page_of_a_foreign_method_says_where_it_came_from(tmp_path: Path) -> None:
    rows = story_rows()[:4]
    for row in rows:
        row |= {"attack": "veil", "attack_options": f"eps={row['seed']}"}
    write_cells(pd.DataFrame(rows), tmp_path / "cells.csv")
    assert (
        "Not known, since its code was not installed"
        in Page(files_of(tmp_path)["methods/attack-veil.html"]).text
    )
    facts = {"veil": {"title": "Veil", "source": "a test", "origin": "file veil.py"}}
    (tmp_path / "run.json").write_text(json.dumps({"methods": facts}))
    text = Page(files_of(tmp_path)["methods/attack-veil.html"]).text
    assert "From file veil.py." in text
    assert "this suite" not in text.replace("not a method of this suite", "")


def test_a_victim_has_a_page_with_its_leaderboards(tmp_path: Path) -> None:
    rows = view_rows()
    for row in rows:
        row["victim"] = "simclr[probe=poisoned]" if row["arch"] == "resnet8" else ""
    write_cells(pd.DataFrame(rows), tmp_path / "cells.csv")
    victims = [{**EM, "kind": "victim", "name": name} for name in ("simclr", "moco")]
    files = files_of(tmp_path, methods=[EM, *victims])
    page = Page(files["methods/victim-simclr.html"])
    assert "victim simclr[probe=poisoned]" in page.text
    assert page.text.count("4 attacks, 4 defenses, 40 trained models") == 1
    assert "No results" in Page(files["methods/victim-moco.html"]).text
    assert "victim-simclr.html" in str(files["methods.html"])
    listed = Page(files["methods.html"]).text
    assert listed.count("on 1 leaderboard") == 1, "SimCLR"
    assert listed.count("on 2 leaderboards") == 8, "four attacks and clean data, four defenses"


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        (ABOUT, "Departs from it: `rounds` are\ncapped.\n"),
        ("No word.", ""),
        ("Source: x.\nDeparts from y: a.\n\nMore.", "Departs from y: a."),
        ("Source: x.\nDeparts from y: a; b\nc: d.", "Departs from y: a; b\nc: d."),
    ],
)
def test_departures_end_where_another_subject_begins(about: str, expected: str) -> None:
    assert departures(about) == expected


def test_the_largest_leaderboard_is_the_headline(tmp_path: Path) -> None:
    rows = view_rows()
    for row in rows:
        if row["arch"] == "resnet8":
            row |= {"n_train": 60_000, "dataset": "larger"}
    write_cells(pd.DataFrame(rows), tmp_path / "cells.csv")
    front = Page(files_of(tmp_path)["index.html"]).text
    assert front.index("larger, resnet8") < front.index("All leaderboards")
    assert front.count("cifar10, resnet18") == 1
    assert "4 attacks, 4 defenses, 40 trained models" in front


def test_comparisons_know_which_differences_are_noise(tmp_path: Path) -> None:
    rows = [row | {"n_test": 10_000} for row in view_rows() if row["arch"] == "resnet18"]
    for row in rows:
        if row["attack"] == "rem":
            row["test_acc"] = next(
                r["test_acc"] + 0.001 for r in rows
                if r["attack"] == "em" and not r["attack_options"]
                and (r["defense"], r["seed"]) == (row["defense"], row["seed"])
            )  # fmt: skip
    write_cells(pd.DataFrame(rows), tmp_path / "cells.csv")
    data = str(files_of(tmp_path)["assets/data.js"])
    (board,) = json.loads(data.removeprefix("window.uebench = ").removesuffix(";\n"))["boards"]
    specs = [each["spec"] for each in board["attacks"]]
    em, rem = specs.index("em"), next(i for i, spec in enumerate(specs) if spec.startswith("rem"))
    tied = {tuple(triple) for triple in board["ties"]["last"]["attacks"]}
    assert {(em, rem, k) for k in range(4)} <= tied
    assert (0, rem, 0) not in tied, "clean"
    assert board["cells"][em][0]["last"]["text"].startswith("74.2 ± 0.3")


def test_foreign_text_is_never_markup_and_never_a_path(files: Files) -> None:
    assert all(is_site(name) for name in files)
    hostile = 0
    for name, page in pages(files):
        raw = str(files[name])
        assert "<script>alert" not in raw
        assert "<img src=x" not in raw
        assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
        scripts = [attributes for tag, attributes in page.elements if tag == "script"]
        assert all(re.fullmatch(r"(\.\./)?assets/\w+\.js", each["src"]) for each in scripts)
        (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv")]
        assert "script-src 'self' file:;" in policy
        assert "default-src 'none'" in policy
        hostile += HOSTILE in page.text
    assert hostile > 5
    assert "<" not in str(files["assets/data.js"]).removeprefix("window.uebench = ")


def test_hostile_methods_and_keys_get_harmless_names(tmp_path: Path) -> None:
    rows = story_rows()[:4]
    for i, row in enumerate(rows):
        row |= {"attack": "../../etc", "attack_options": f"x={i}", "key": f"../../{i}"}
    write_cells(pd.DataFrame(rows), tmp_path / "cells.csv")
    names = [name for name in files_of(tmp_path) if name.startswith(("cells/", "methods/"))]
    assert all(re.fullmatch(r"(cells|methods)/[a-z0-9_-]+\.html", name) for name in names)
    assert len(names) == 4 + 4, "cells, EM, the foreign attack and two defenses"


@pytest.fixture(scope="module")
def site(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@needs_chromium
@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (390, "dark")])
def test_a_reader_clicks_from_the_question_to_a_cell_and_its_method(
    driver: Any, site: Path, width: int, theme: str
) -> None:
    look(driver, width, theme)
    with opened_page(driver, (site / "index.html").as_uri()):
        assert "Which unlearnable examples" in texts(driver, "h1")[0]
        click(driver, "article.card a", "two, resnet8")
        wait_until(driver, lambda: css(driver, ".board"))
        assert {e.get_attribute("data-dataset") for e in css(driver, ".board, .plot")} == {"two"}
        click(driver, "[data-metric=best]")
        click(driver, ".heat tr.poison td a")
        wait_until(driver, lambda: "cells/" in driver.current_url)
        assert "training seed 0" in texts(driver, "h2")[0].lower()
        driver.back()
        wait_until(driver, lambda: css(driver, ".board"))
        assert "best epoch" in texts(driver, "[aria-pressed=true]"), "the view is still there"
        click(driver, ".heat tr.poison td a")
        wait_until(driver, lambda: "cells/" in driver.current_url)
        click(driver, "header a code", "em")
        wait_until(driver, lambda: "methods/attack-em" in driver.current_url)
        assert "Departs from it" in texts(driver, "main")[0]
        click(driver, "header a", "Compare it")
        wait_until(driver, lambda: css(driver, "[data-side=a]"))
        assert css(driver, "[data-side=a]")[0].get_attribute("value") == "em"


@needs_chromium
@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (390, "dark")])
def test_two_methods_are_compared_side_by_side(
    driver: Any, site: Path, width: int, theme: str
) -> None:
    look(driver, width, theme)
    with opened_page(driver, (site / "compare.html").as_uri()):
        from selenium.webdriver.support.ui import Select

        Select(css(driver, "[data-side=a]")[0]).select_by_value("em")
        Select(css(driver, "[data-side=b]")[0]).select_by_value("lsp")
        rows = texts(driver, "#compared section:first-child tbody tr")
        em, _, lsp, _, difference = map(float, re.findall(r"[\d.]+", rows[0]))
        assert rows[0].startswith("standard ")
        assert difference == pytest.approx(abs(lsp - em), abs=0.11)
        assert HOSTILE in " ".join(texts(driver, "#compared section:first-child td"))
        address = driver.current_url
        driver.refresh()
        assert texts(driver, "#compared section:first-child tbody tr") == rows
        click(driver, "button[data-metric=best]")
        assert texts(driver, "#compared section:first-child tbody tr") != rows
        click(driver, "[data-kind=defenses]")
        heads = texts(driver, "#compared section:first-child th[scope=col]")
        assert heads[0] == "attack"
        driver.get("about:blank")
        driver.get(address.partition("#")[0] + "#kind=attacks&a=nothing&b=none")
        assert texts(driver, "#compared tbody tr"), "a name that is gone gives way to another"
        assert driver.execute_script("return document.querySelectorAll('img[src=x]').length") == 0


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_no_page_is_wider_than_a_phone_or_a_desk(
    driver: Any, site: Path, files: Files, width: int, theme: str
) -> None:
    look(driver, width, theme)
    cell = next(f"cells/{r['key'][:16]}.html" for r in story_rows() if r["attack"] == "em")
    names = ["index", "leaderboards", "compare", "methods", "differences", "methods/attack-em"]
    for name in (*(f"{name}.html" for name in names), cell):
        with opened_page(driver, (site / name).as_uri()):
            assert wider_than_the_window(driver) == [], name
            back = css(driver, "body")[0].value_of_css_property("background-color")
            assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) == (theme == "dark"), name
