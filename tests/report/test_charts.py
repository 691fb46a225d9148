"""Every point of every plot lies inside its axes, whatever was measured."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.report.conftest import FINISHED
from tests.report.story import write_story
from uebench.report import Results, conform_cells, plots, read_results
from uebench.report.charts import Chart, charts, legend, log_ticks, small_chart, ticks
from uebench.report.figures import figures
from uebench.report.records import CellRecord, RunFacts
from uebench.report.series import Figure, Line, Panel, Point, curves_figures, ratio_figures

ACCURACY = st.floats(0, 1)
SECONDS = st.floats(1e-3, 1e6)
BUDGETS = {"": 8 / 255, "eps=16/255": 16 / 255}
DEFENSES = ("", "repeats=2", "repeats=9")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(write_story(tmp_path_factory.mktemp("story")))


@st.composite
def random_results(draw: st.DrawFn) -> Results:
    """Return random results in which share, budget, repeats and cost were all varied."""
    rows, recipes, records = [], {}, {}
    seeds = range(draw(st.integers(1, 2)))
    poisons = [("none", "", 1.0), ("lsp", "", 1.0)]
    poisons += [("em", options, share) for options in BUDGETS for share in (0.3, 1.0)]
    for (attack, attack_options, share), options, seed in product(poisons, DEFENSES, seeds):
        key = f"{len(rows):064x}"
        rows.append(
            FINISHED
            | {"attack": attack, "attack_options": attack_options, "ratio": share, "key": key}
            | {"defense": "ueraser" if options else "standard", "defense_options": options}
            | {"seed": seed, "test_acc": draw(ACCURACY), "test_acc_best": draw(ACCURACY)}
            | {"train_seconds": draw(SECONDS)}
        )
        poison = {"options": {"norm": "linf", "eps": BUDGETS[attack_options]}}
        repeats = {"repeats": int(options[-1])} if options else {}
        recipes[key] = {"poison": {} if attack == "none" else poison, "options": repeats}
        n_epochs = draw(st.integers(1, 30))
        curve = {
            "epoch": [float(epoch) for epoch in range(n_epochs)],
            "test_acc": draw(st.lists(ACCURACY, min_size=n_epochs, max_size=n_epochs)),
        }
        records[key] = CellRecord(curve=curve)
    cells = conform_cells(pd.DataFrame(rows))
    return Results(Path("random"), cells, RunFacts(recipes=recipes), records)


def check_inside(chart: Chart) -> None:
    marks = [(mark.x, mark.y) for line in chart.lines for mark in line.marks]
    places = [place for line in chart.lines for place in line.places]
    bars = [(x, y) for line in chart.lines for x, *ends in line.bars for y in ends]
    x_ticks = [(tick.at, chart.bottom) for tick in chart.x_ticks]
    y_ticks = [(chart.left, tick.at) for tick in chart.y_ticks]
    assert marks or places
    for x, y in (*marks, *places, *bars, *x_ticks, *y_ticks):
        assert chart.left <= x <= chart.right
        assert chart.top <= y <= chart.bottom


def check_true(figure: Figure, panels: list[Chart]) -> None:
    """Check that heights are proportional to accuracies, so that no point was moved inside."""
    for chart, panel in zip(panels, figure.panels, strict=True):
        zero = next(tick for tick in chart.y_ticks if tick.text == "0").at
        other = chart.y_ticks[-1]
        for drawn, line in zip(chart.lines, panel.lines, strict=True):
            heights = [y for _, y in drawn.places] or [mark.y for mark in drawn.marks]
            for height, point in zip(heights, line.points, strict=True):
                percent = (zero - height) / (zero - other.at) * float(other.text)
                assert percent == pytest.approx(100 * point.y, abs=0.2)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_results())
def test_every_point_of_every_plot_lies_inside_its_axes(results: Results) -> None:
    drawn = [*curves_figures(results), *figures(results)]
    assert {figure.kind for figure in drawn} == {"curves", "ratio", "budget", "repeats", "cost"}
    for figure in drawn:
        panels = charts(figure)
        check_true(figure, panels)
        for chart in panels:
            check_inside(chart)


def test_the_files_have_every_panel_as_the_page_has_it(results: Results) -> None:
    """matplotlib paints the points of all panels at the positions of the page's SVG."""
    (figure,) = [f for f in ratio_figures(results) if f.settings.dataset == "two"]
    with plots.style():
        canvas = plots._lines(figure)
    for axes, chart in zip(canvas.axes, charts(figure), strict=False):
        assert axes.get_xlim() == (0, chart.width)
        assert axes.get_ylim()[0] == chart.height
        painted = [tuple(map(tuple, line.get_xydata())) for line in axes.get_lines()]  # type: ignore[call-overload]
        for line in chart.lines:
            assert line.places in painted


def test_a_chart_keeps_all_points_inside_and_each_line_its_colour(results: Results) -> None:
    figure = ratio_figures(results)[0]
    for chart in charts(figure):
        for line in chart.lines:
            for x, y in line.places:
                assert chart.left <= x <= chart.right
                assert chart.top <= y <= chart.bottom
    labels = [key.label for key in legend(figure)]
    assert labels == list(dict.fromkeys(labels))
    styles = {(line.label, line.style) for panel in figure.panels for line in panel.lines}
    assert len(styles) == len(labels)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 100, 5) == [0, 20, 40, 60, 80, 100]
    assert ticks(0, 2.3, 4, upwards=True)[-1] >= 2.3
    assert ticks(1, 3, 5, whole=True) == [1, 2, 3]
    assert log_ticks(8, 300) == [10, 20, 50, 100, 200]


@given(SECONDS, st.floats(1.6, 10))
def test_a_narrow_logarithmic_axis_has_two_ticks_or_more(low: float, ratio: float) -> None:
    assert log_ticks(5.3, 11) == [6, 8, 10], "of 1, 2 and 5 times powers of ten, only 10"
    values = log_ticks(low, low * ratio)
    assert 2 <= len(values) <= 6
    assert all(low * 0.999 <= value <= low * ratio * 1.001 for value in values)


def test_the_axis_of_seconds_has_plain_numbers(results: Results) -> None:
    points = (Point(46, 0.1, math.nan, 1), Point(350, 0.6, math.nan, 1))
    panels = (Panel("", (Line("", 0, points),)),)
    (chart,) = charts(replace(ratio_figures(results)[0], panels=panels, log_x=True))
    assert [tick.text for tick in chart.x_ticks] == ["50", "100", "200"]


def test_a_loss_is_drawn_from_zero_to_a_round_value_above_it() -> None:
    chart = small_chart([(0, 2.3), (1, 0.4)], "epoch", "training loss")
    assert chart.y_ticks[0].text == "0"
    assert float(chart.y_ticks[-1].text) >= 2.3
    check_inside(chart)
