"""Plots as files: PDF and PNG, the same bytes again, and a sentence where there is no plot."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from tests.report.conftest import FINISHED
from tests.report.story import write_story
from uebench.report import Results, conform_cells, read_results
from uebench.report.canvas import plain_label, slug, style
from uebench.report.charts import charts
from uebench.report.plots import _lines, draw
from uebench.report.records import RunFacts
from uebench.report.selection import selected
from uebench.report.series import budget_figures, cost_figures


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One data set, two networks, one ratio more than one."""
    read = read_results(write_story(tmp_path_factory.mktemp("story")))
    kept = read.cells[read.cells["dataset"] == "two"].reset_index(drop=True)
    return Results(read.folder, kept, read.run, read.records, read.pictures, read.titles)


@pytest.mark.parametrize(
    ("kind", "stems"),
    [
        ("ratio", ["ratio-two-resnet8"]),
        ("budget", ["budget-linf-two-resnet8-ratio-0.5", "budget-linf-two-resnet8-ratio-1.0"]),
        ("confusion", ["confusion-two-resnet8-ratio-0.5", "confusion-two-resnet8-ratio-1.0"]),
    ],
)
def test_each_kind_is_a_pdf_and_a_png(
    kind: str, stems: list[str], results: Results, tmp_path: Path
) -> None:
    paths = draw(results, kind, tmp_path)
    assert [path.name for path in paths] == [f"{s}.{e}" for s in stems for e in ("pdf", "png")]
    for path in paths:
        if path.suffix == ".pdf":
            text = path.read_bytes()
            assert text.startswith(b"%PDF")
            assert b"Date" not in text
        else:
            with Image.open(path) as image:
                levels = image.convert("L").getextrema()
                assert levels == (0, 255), "something is drawn"
                assert not image.info.get("Software")


def test_the_same_results_make_the_same_files(results: Results, tmp_path: Path) -> None:
    first = draw(results, "repeats", tmp_path / "a")
    second = draw(results, "repeats", tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    best = draw(results, "repeats", tmp_path / "c", "test_acc_best")
    assert best[1].read_bytes() != first[1].read_bytes()


@pytest.mark.parametrize("kind", ["curves", "ratio", "budget", "repeats", "confusion", "cost"])
def test_a_plot_that_cannot_be_drawn_gives_a_reason_and_no_file(
    kind: str, results: Results, tmp_path: Path
) -> None:
    standard = results.cells["defense"] == "standard"
    alone = results.cells[standard & (results.cells["ratio"] == 1)].reset_index(drop=True)
    with pytest.raises(ValueError, match="run") as caught:
        draw(Results(results.folder, alone), kind, tmp_path / "out")
    assert str(results.folder) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_file_names_and_labels_of_plots_are_sanitised() -> None:
    assert slug("../a b[c=1/2]") == "a-b-c-1-2"
    assert plain_label("$x$ 漢") == r"\$x\$ ?"


def budgets(defenses: Sequence[str], attack: str = "em") -> Results:
    """Return results of one attack with three budgets, and clean ones, under some defenses."""
    rows, recipes = [], {}
    for number, (defense, eps) in enumerate(product(defenses, (0, 4, 8, 16))):
        key = f"{number:064x}"
        rows.append(
            FINISHED
            | {"attack": attack if eps else "none", "defense": defense, "key": key}
            | {"attack_options": f"eps={eps}/255" if eps else "", "chance": 0.1}
            | {"test_acc": 0.9 - eps / 40, "train_seconds": 1.0 + number}
        )
        poison = {"options": {"norm": "linf", "eps": eps / 255}} if eps else {}
        recipes[key] = {"poison": poison, "options": {}}
    return Results(Path("made"), conform_cells(pd.DataFrame(rows)), RunFacts(recipes=recipes))


@pytest.mark.parametrize("width", [2.83, 3.25, 6.75])
def test_a_figure_for_a_paper_has_its_width_and_letters_of_seven_points(width: float) -> None:
    results = budgets(["standard", "ueraser", "iss"])
    for figure in (*budget_figures(results), *cost_figures(results)):
        with style():
            canvas = _lines(figure, width)
            canvas.draw_without_rendering()
            assert canvas.get_figwidth() == pytest.approx(width)
            texts = [text for text in canvas.findobj(Text) if text.get_text()]
            assert min(text.get_fontsize() for text in texts) >= 7 - 1e-9
            edges = canvas.bbox
            for text in texts:
                box = text.get_window_extent()
                assert box.x0 >= edges.x0 - 1
                assert box.x1 <= edges.x1 + 1
                assert box.y0 >= edges.y0 - 1
                assert box.y1 <= edges.y1 + 1


def several(n_attacks: int) -> Results:
    """Return results of some attacks, each with three budgets, under two defenses."""
    each = [budgets(["standard", "iss"], f"attack{number}") for number in range(n_attacks)]
    frames = [
        results.cells.assign(key=results.cells["key"] + name)
        for name, results in zip(map(str, range(n_attacks)), each, strict=True)
    ]
    recipes = {
        key + str(n): recipe for n, r in enumerate(each) for key, recipe in r.run.recipes.items()
    }
    clean = [f if n == 0 else f[f["attack"] != "none"] for n, f in enumerate(frames)]
    return Results(Path("made"), pd.concat(clean, ignore_index=True), RunFacts(recipes=recipes))


@pytest.mark.parametrize(("n", "width", "n_rows"), [(4, 3.25, 4), (6, 6.75, 3), (5, 6.75, 3)])
def test_a_figure_with_a_width_fits_a_page(n: int, width: float, n_rows: int) -> None:
    (figure,) = budget_figures(several(n))
    assert len(figure.panels) == n
    with style():
        canvas = _lines(figure, width)
    assert canvas.get_figwidth() == pytest.approx(width)
    assert canvas.get_figheight() <= 9 + 1e-9
    assert len({axes.get_position().y0 for axes in canvas.axes}) == n_rows
    texts = [text for text in canvas.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7 - 1e-9


@pytest.mark.parametrize(
    ("n", "width", "answer"),
    [
        (5, 3.25, r"cannot hold 5 panels .* at most 4 of them .* or give --width page$"),
        (9, 3.25, r"cannot hold 9 panels .* at most 4 of them with --attacks or --defenses$"),
        (9, 6.75, r"cannot hold 9 panels .* at most 8 of them with --attacks or --defenses$"),
    ],
)
def test_a_figure_that_is_higher_than_a_page_is_refused(n: int, width: float, answer: str) -> None:
    (figure,) = budget_figures(several(n))
    with style(), pytest.raises(ValueError, match=answer):
        _lines(figure, width)


def test_confusion_matrices_fit_a_page(results: Results, tmp_path: Path) -> None:
    for path in draw(results, "confusion", tmp_path, width=20, formats=["png"]):
        with Image.open(path) as image:
            assert image.height <= 9 * image.info["dpi"][1] + 1
    finished = results.cells[results.cells["key"].isin(list(results.records))].head(1)
    rows = [finished.assign(attack=f"attack{number}") for number in range(20)]
    many = Results(results.folder, pd.concat(rows), results.run, results.records)
    with pytest.raises(ValueError, match=r"of 20 attacks .* select at most \d with --attacks$"):
        draw(many, "confusion", tmp_path / "out", width=6.75)


def test_the_last_tick_and_the_word_chance_are_legible() -> None:
    """No label ends outside of the chart, and no mark covers the word."""
    results = budgets(["standard", "iss"])
    for recipe in results.run.recipes.values():
        if poison := recipe["poison"]:
            poison["options"] = {"norm": "l2", "eps": poison["options"]["eps"] * 2.0325}
    results.cells.loc[results.cells["attack"] != "none", "test_acc"] = 0.08
    (figure,) = budget_figures(results)
    (chart,) = charts(figure)
    assert chart.x_ticks[-1].text == "0.1275"
    last = chart.x_ticks[-1]
    assert last.at + 7 * len(last.text) / 2 <= chart.width
    assert chart.lines[0].marks[-1].x == pytest.approx(last.at, abs=0.11)
    right, base = chart.chance_label
    for mark in (mark for line in chart.lines for mark in line.marks):
        covers_x = right - 42 - 4 <= mark.x <= right + 4
        assert not (covers_x and base - 12 <= mark.y <= base + 4), (mark, right, base)
    with style():
        canvas = _lines(figure, 3.25)
        canvas.draw_without_rendering()
    edge = canvas.bbox.x1
    assert all(text.get_window_extent().x1 <= edge for text in canvas.findobj(Text))


def test_ticks_are_the_budgets_used_and_chance_has_a_line() -> None:
    (figure,) = budget_figures(budgets(["standard"]))
    (chart,) = charts(figure)
    assert [tick.text for tick in chart.x_ticks] == ["0", "4", "8", "16"]
    tenth = next(t.at for t in chart.y_ticks if t.text == "0")
    hundred = {tick.text: tick.at for tick in chart.y_ticks}
    assert chart.chance == pytest.approx(tenth + (hundred["20"] - tenth) / 2, abs=0.1)
    with style():
        (axes, *_) = _lines(figure).axes
    assert "chance" in [text.get_text() for text in axes.texts]


def test_a_defense_has_one_style_in_every_plot_and_folder() -> None:
    def styles(*defenses: str) -> dict[str, int]:
        results = budgets(defenses)
        drawn = [*budget_figures(results), *cost_figures(results)]
        pairs = {(line.label, line.style) for f in drawn for p in f.panels for line in p.lines}
        assert len(pairs) == len(defenses)
        return dict(pairs)

    some = styles("iss", "standard", "mine")
    others = styles("ueraser", "standard", "at", "iss")
    assert some["iss"] == others["iss"]
    assert some["standard"] == others["standard"]
    assert len(set(some.values())) == 3
    assert len(set(others.values())) == 4


def test_formats_are_chosen_and_files_are_the_same_again(tmp_path: Path) -> None:
    results = budgets(["standard", "iss"])
    first = draw(results, "budget", tmp_path / "a", width=3.25, formats=["svg", "pdf"])
    assert [path.suffix for path in first] == [".svg", ".pdf"]
    second = draw(results, "budget", tmp_path / "b", width=3.25, formats=["svg", "pdf"])
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    text = first[0].read_text()
    assert ">chance</text>" in text, "text stays text"
    assert "<dc:date>" not in text


def test_a_width_that_leaves_small_letters_is_refused(results: Results, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"smaller than 7 points; give at least 2\.83 inches"):
        draw(results, "budget", tmp_path / "out", width=2.5)
    message = r"cannot hold the confusion matrices of \d+ defenses .* or give \d\.\d\d inches"
    with pytest.raises(ValueError, match=message):
        draw(results, "confusion", tmp_path / "out", width=3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_cells_are_selected_by_name_or_by_spec(kind: Literal["attack", "defense"]) -> None:
    cells = budgets(["standard", "iss"]).cells
    wanted = {"attack": "em[eps=8/255]", "defense": "iss"}[kind]
    kept = selected(cells, **{f"{kind}s": [wanted]})
    assert len(kept) == {"attack": 2, "defense": 4}[kind]
    assert len(selected(cells, ["em"], ["standard"])) == 3
    assert len(selected(cells)) == 8
    with pytest.raises(ValueError, match=f"no cell has the {kind} xyz; there are"):
        selected(cells, **{f"{kind}s": ["xyz"]})
