"""What the plots show: the right cells at the right places, and nothing that was not varied."""

import math
from pathlib import Path

import pytest

from tests.report.story import EPOCHS, story_rows, write_story
from uebench.report import Results, read_results
from uebench.report.charts import charts
from uebench.report.colors import COLOR_STEPS, LINES, RAMP, ink_on, luminance, ramp, ramp_steps
from uebench.report.confusion import ConfusionMatrix
from uebench.report.confusion_page import confusion
from uebench.report.series import (
    Figure,
    budget_figures,
    cost_figures,
    curves_figures,
    ratio_figures,
    repeats_figures,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(write_story(tmp_path_factory.mktemp("story")))


def mean(column: str = "test_acc", **wanted: object) -> float:
    """Return the mean over the story's rows of which these columns hold these values."""
    found = [
        row[column]
        for row in story_rows()
        if all(row[name] == value for name, value in wanted.items())
    ]
    assert len(found) == 2, "two seeds"
    return float(sum(found) / 2)


def points(figure: Figure, panel: str, line: str) -> dict[float, float]:
    (lines,) = [p.lines for p in figure.panels if p.title == panel]
    (found,) = [each.points for each in lines if each.label == line]
    assert all(point.n == 2 for point in found)
    return {point.x: point.y for point in found}


def test_ratio_joins_tables_and_starts_at_clean(results: Results) -> None:
    made = ratio_figures(results)
    assert [(f.settings.dataset, f.settings.arch) for f in made] == [
        ("one", "resnet8"),
        ("two", "resnet8"),
    ]
    wanted = {"dataset": "two", "defense": "standard"}
    em = {"attack": "em", "attack_options": ""}
    assert points(made[1], "EM", "standard") == pytest.approx(
        {
            0: mean(**wanted, attack="none"),
            50: mean(**wanted, **em, ratio=0.5),
            100: mean(**wanted, **em, ratio=1.0),
        }
    )
    best = ratio_figures(results, "test_acc_best")[1]
    assert points(best, "EM", "standard")[100] == pytest.approx(
        mean("test_acc_best", **wanted, **em, ratio=1.0)
    )
    assert "best epoch" in best.y_label
    assert "poisoning ratio" not in made[0].note


def test_budget_takes_levels_from_the_recipes(results: Results) -> None:
    made = [
        f for f in budget_figures(results) if f.settings.dataset == "two" and f.settings.ratio == 1
    ]
    (figure,) = made
    assert [panel.title for panel in figure.panels] == ["EM"], "LSP has one budget"
    found = points(figure, "EM", "UEraser-Max[repeats=5]")
    wanted = {"dataset": "two", "defense_options": "repeats=5"}
    em = {"attack": "em", "ratio": 1.0}
    assert found == pytest.approx(
        {
            0: mean(**wanted, attack="none"),
            8: mean(**wanted, **em, attack_options=""),
            16: mean(**wanted, **em, attack_options="eps=16/255"),
        }
    )


def test_the_repeats_plot_has_one_line_per_attack(results: Results) -> None:
    (figure,) = [
        f for f in repeats_figures(results) if f.settings.dataset == "two" and f.settings.ratio == 1
    ]
    (panel,) = figure.panels
    assert panel.title == "UEraser-Max"
    assert [line.label for line in panel.lines] == ["clean", "EM", "EM[eps=16/255]", "lsp"]
    assert list(points(figure, "UEraser-Max", "clean")) == [2, 5]


def test_curves_are_means_over_runs(results: Results) -> None:
    made = [
        f for f in curves_figures(results) if f.settings.dataset == "two" and f.settings.ratio == 1
    ]
    (figure,) = made
    found = points(figure, "EM", "standard")
    last = mean(dataset="two", attack="em", attack_options="", defense="standard", ratio=1.0)
    assert found == pytest.approx({e: last * e / 3 for e in EPOCHS}, abs=1e-5)
    assert [panel.title for panel in figure.panels] == ["clean", "EM", "EM[eps=16/255]", "lsp"]


def test_cost_shows_each_defenses_worst_poison(results: Results) -> None:
    (figure,) = [
        f for f in cost_figures(results) if f.settings.dataset == "two" and f.settings.ratio == 1
    ]
    every, worst = figure.panels
    for line in worst.lines:
        (lowest,) = line.points
        (others,) = [each.points for each in every.lines if each.label == line.label]
        assert lowest.y == min(point.y for point in others)
    assert {p.x for line in worst.lines for p in line.points} == {10, 20, 30, 40}


def test_a_quantity_that_does_not_vary_gets_no_plot(results: Results, tmp_path: Path) -> None:
    cells = results.cells
    one = cells[(cells["ratio"] == 1) & (cells["attack_options"] == "")]
    alone = one[(one["defense"] == "standard")].reset_index(drop=True)
    bare = Results(tmp_path, alone)
    for make in (ratio_figures, budget_figures, repeats_figures, cost_figures):
        assert make(bare) == []
    assert curves_figures(bare) == [], "no records"


def test_colours_rise_in_lightness_and_ink_is_read_on_all_of_them() -> None:
    lights = [luminance(ramp(i / 100)) for i in range(101)]
    assert lights == sorted(lights), "in grey, and to any colour-blind eye, more is lighter"
    assert ramp(-1) == RAMP[0]
    assert ramp(2) == RAMP[-1]
    for color in [ramp(i / 100) for i in range(101)]:
        light, ink = luminance(color), luminance(ink_on(color))
        assert (max(light, ink) + 0.05) / (min(light, ink) + 0.05) > 4.5, color
    assert len(ramp_steps()) == COLOR_STEPS + 1
    assert all(1.05 / (luminance(color) + 0.05) > 2.5 for color in LINES), "seen on white"


def test_a_confusion_matrix_names_its_mistakes() -> None:
    shown = confusion(ConfusionMatrix.read([[8, 2, 0], [0, 5, 0], [1, 0, 0]]), ["a", "b", "c"])
    assert shown.pairs == ("a taken for b: 2 of 10", "c taken for a: 1 of 1")
    assert shown.recalls == ("80", "100", "0")
    assert [cell.step for cell in shown.rows[0]] == [16, 4, 0]
    large = confusion(ConfusionMatrix.read([[1] * 30] * 30), [str(i) for i in range(30)])
    assert not large.rows
    assert large.picture.startswith("data:image/png;base64,")


def test_single_runs_have_no_error_bar(
    results: Results,
) -> None:
    one = Results(results.folder, results.cells[results.cells["seed"] == 0], results.run)
    figure = ratio_figures(one)[0]
    assert "One run each" in figure.note
    assert all(math.isnan(p.sd) for panel in figure.panels for x in panel.lines for p in x.points)
    assert not any(line.bars for chart in charts(figure) for line in chart.lines)
