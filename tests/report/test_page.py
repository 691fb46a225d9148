"""The report's page: what it shows, that strangers' texts are only texts, and what is missing."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from tests.report.conftest import FINISHED
from tests.report.story import HOSTILE, story_rows, write_story
from uebench.report import read_results, write_cells, write_page


class Elements(HTMLParser):
    """Collects the elements of a page, and the text that is read."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts += data
        elif not self._inside:
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.tags
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]


def page_of(folder: Path) -> Elements:
    return Elements(write_page(read_results(folder)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_story(tmp_path_factory.mktemp("story"))
    write_page(read_results(made))
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Elements:
    return page_of(folder)


def test_every_cell_is_linked_to_its_record(page: Elements) -> None:
    records = {found["id"] for found in page.all("article", **{"class": "record"})}
    links = [a["href"] for a in page.all("a") if (a.get("href") or "").startswith("#cell")]
    assert {str(link)[1:] for link in links} == records
    runs = len(page.all("details", **{"class": "run"}))
    assert runs == len(story_rows()), "each run once, also where clean cells stand in two tables"
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    targets = [a["href"] for a in page.all("a") if (a.get("href") or "").startswith("#")]
    assert {str(target)[1:] for target in targets} <= set(ids), "no link leads nowhere"


def test_a_record_shows_options_curve_times_audit_and_hash(page: Elements, folder: Path) -> None:
    row = next(row for row in story_rows() if row["attack"] == "em")
    for words in (row["key"], row["poison_sha256"], "psnr", "0.0313725", "25 %", "1,234", "seed 1"):
        assert words.lower() in page.text.lower(), words
    assert "cat taken for dog" in page.text
    assert "training loss" in page.text


def test_numbers_are_those_of_the_cells(page: Elements, folder: Path) -> None:
    cells = read_results(folder).cells_with_chance
    mine = cells[(cells["dataset"] == "two") & (cells["attack"] == "em") & (cells["ratio"] == 1)]
    mine = mine[(mine["attack_options"] == "") & (mine["defense"] == "standard")]
    values = [td["data-last"] for td in page.all("td") if td.get("data-last")]
    mean = 100 * mine["test_acc"].mean()
    assert any(abs(float(str(value)) - mean) < 1e-9 for value in values)
    best = 100 * mine["test_acc_best"].mean()
    shown = [td["data-best"] for td in page.all("td") if td.get("data-best")]
    assert any(abs(float(str(value)) - best) < 1e-9 for value in shown)


def test_tabs_show_what_differs_and_always_data_set_and_network(
    page: Elements, tmp_path: Path
) -> None:
    def tabs(of: Elements) -> set[tuple[str | None, str | None]]:
        found = [b for b in of.all("button") if "data-tab" in b]
        return {(b["data-tab"], b["data-value"]) for b in found}

    assert tabs(page) == {
        ("dataset", "one"),
        ("dataset", "two"),
        ("arch", "resnet8"),
        ("arch", "resnet18"),
        ("ratio", "0.5"),
        ("ratio", "1.0"),
    }
    rows = [row for row in story_rows() if row["dataset"] == "two" and row["ratio"] == 1]
    write_cells(pd.DataFrame(rows), tmp_path / "cells.csv")
    assert tabs(page_of(tmp_path)) == {("dataset", "two"), ("arch", "resnet8")}


def test_no_tab_repeats_what_the_tabs_before_it_decide(tmp_path: Path) -> None:
    rows = [row for row in story_rows() if row["ratio"] == 1 and row["arch"] == "resnet8"]
    rows = [row | {"n_train": 4000 if row["dataset"] == "one" else 8000} for row in rows]

    def tabs() -> set[str | None]:
        write_cells(pd.DataFrame(rows), tmp_path / "cells.csv")
        return {b["data-tab"] for b in page_of(tmp_path).all("button") if "data-tab" in b}

    assert tabs() == {"dataset", "arch"}, "the data set decides the number of images"
    rows.append(rows[0] | {"key": "another", "n_train": 2000})
    assert tabs() == {"dataset", "arch", "n-train"}


def test_foreign_text_is_never_markup(page: Elements, folder: Path) -> None:
    raw = (folder / "index.html").read_text()
    assert page.text.count(HOSTILE) > 10, (
        "names, options, classes, errors and the title, as they are"
    )
    assert "<script>alert" not in raw
    assert "<img src=x" not in raw
    assert len(page.all("script")) == 1
    assert "alert" not in page.scripts
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    hrefs = [found["href"] for _, found in page.tags if "href" in found]
    kinds = {str(href).partition(":")[0] if ":" in str(href) else "#" for href in hrefs}
    assert kinds == {"#", "data", "https"}, "a source is a link only where it is an arXiv number"
    assert {href for href in hrefs if str(href).startswith("https")} == {
        "https://arxiv.org/abs/2101.04898"
    }
    styles = [found["style"] for _, found in page.tags if "style" in found]
    assert all(re.fullmatch(r"(--[a-z-]+:(#[0-9a-f]{6})?;?|flex:\d+)+", str(s)) for s in styles)


def test_the_page_makes_no_requests_and_runs_only_its_own_script(page: Elements) -> None:
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    digest = base64.b64encode(hashlib.sha256(page.scripts.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy["content"]).split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["script-src"] == f"'sha256-{digest}'"
    for tag, found in page.tags:
        source = found.get("src")
        assert source is None or str(source).startswith("data:image/png;base64,"), tag
        assert tag not in ("iframe", "object", "embed", "base", "form")
        assert tag != "link" or found["href"] == "data:,"


def test_the_cells_lie_in_the_page(page: Elements, folder: Path) -> None:
    (link,) = page.all("a", download="cells.csv")
    kept = base64.b64decode(str(link["href"]).partition(",")[2]).decode()
    assert kept == (folder / "cells.csv").read_text()


def test_the_command_shown_on_the_page_can_be_typed_again(page: Elements) -> None:
    assert "uebench run --attacks none,em --out 'a b </script>" in page.text
    assert "2.15.0" in page.text
    assert page.text.count("Traceback\n") >= 1


def test_the_same_results_make_the_same_page(folder: Path, tmp_path: Path) -> None:
    first = (folder / "index.html").read_bytes()
    assert write_page(read_results(folder), tmp_path).read_bytes() == first


def test_an_older_folder_is_shown_and_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes((folder / "cells.csv").read_bytes())
    bare = page_of(tmp_path)
    assert "There is no run.json" in bare.text
    assert "no entry in records.json" in bare.text
    assert bare.all("table", **{"class": "heat"})
    told = json.loads((folder / "run.json").read_text())
    for name in ("datasets", "methods", "machine", "failures"):
        del told[name]
    (tmp_path / "run.json").write_text(json.dumps(told))
    older = page_of(tmp_path)
    assert "There is no run.json" not in older.text
    assert "poisons have no picture" in older.text
    assert "uebench run --attacks" in older.text


def test_odd_cells_make_a_page(odd: pd.DataFrame, tmp_path: Path) -> None:
    write_cells(odd, tmp_path / "cells.csv")
    shown = page_of(tmp_path)
    assert "[red]markup[/red]" in shown.text
    assert "\x1b" not in shown.text


@pytest.mark.parametrize(
    ("chance", "clean", "ends"),
    [(0.1, 0.8, ("10.0 %", "80.0 %")), (None, 0.8, ("0.0 %", "80.0 %")), (0.1, None, None)],
)
def test_the_colours_run_from_chance_to_the_clean_accuracy(
    chance: float | None, clean: float | None, ends: tuple[str, str] | None, tmp_path: Path
) -> None:
    rows = [
        row | {"chance": chance, "test_acc": clean, "test_acc_best": clean, "attack": "none"}
        for row in story_rows()[:1]
        if clean is not None
    ]
    low = FINISHED | {"key": "k", "test_acc": 0.3, "test_acc_best": 0.3, "chance": chance}
    write_cells(pd.DataFrame([*rows, low | {"dataset": "one"}]), tmp_path / "cells.csv")
    page = page_of(tmp_path)
    shown = page.text.partition("Leaderboard")[2]
    low_end, high_end = ends or ("10.0 %", "100.0 %")
    assert f"{low_end}{high_end}" in shown.replace("\n", "")


def test_an_older_folder_takes_chance_from_its_records(folder: Path) -> None:
    cells = read_results(folder).cells_with_chance
    finished = cells[cells["status"] == "ok"]
    assert set(finished["chance"]) == {1 / 3}, "its test set has three classes of one size"
    assert cells[cells["status"] == "failed"]["chance"].isna().all()
