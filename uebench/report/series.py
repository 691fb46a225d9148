"""The data of every plot as lines in panels; `charts.py` draws them.

Cells are grouped as in the tables, so that runs under different protocols, versions or data sets
are never averaged. Where nothing was varied there is no plot.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ..common.text import comma_parts
from .folder import Results
from .groups import CellRow, MethodSpec, Settings, by_pair, grouped, the_attack, the_defense
from .statistics import Stat
from .styles import method_styles
from .tables import METRICS, Metric, value_of
from .words import CLEAN, QUANTITIES, method_label, settings_in_words

PlotKind = Literal["curves", "ratio", "budget", "repeats", "cost", "victims"]


@dataclass(frozen=True)
class Point:
    """One point of a line: y in [0, 1] or in seconds, with its sd over `n` runs (NaN if n = 1)."""

    x: float
    y: float
    sd: float
    n: int


@dataclass(frozen=True)
class Line:
    """A line, or the marks of one method; its `style` is the same number in all panels."""

    label: str
    style: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Figure:
    """Panels that share their axes and their legend."""

    kind: PlotKind
    name: str
    """The first part of the name of its file; it tells figures of one kind and setting apart."""
    settings: Settings
    title: str
    x_label: str
    y_label: str
    note: str
    """The settings and the number of runs, for a caption."""
    panels: tuple[Panel, ...]
    log_x: bool = False
    whole_x: bool = False
    """Whether x counts something, such as epochs."""
    at_points: bool = False
    """Whether the ticks of x are the values that were used, such as the budgets."""
    chance: float | None = None
    """The accuracy of a model that has learned nothing, where it is known."""
    signed: bool = False
    """Whether y may be negative."""
    joined: bool = True
    """Whether the points of a line are joined."""
    varied: tuple[str, ...] = ()
    """The settings that vary along x, in which the figure may differ from a leaderboard."""
    x_names: tuple[str, ...] = ()
    """Names of the values 0, 1, ... of x, if these only number something."""


def curves_figures(results: Results) -> list[Figure]:
    """Return accuracy by epoch, with one panel per attack and one line per defense.

    One figure is of the test images. Another one is of the training images, for results whose
    records have that accuracy.
    """
    return [
        figure
        for settings, runs in grouped(results.cells).items()
        for column, images in (("test_acc", "test"), ("train_acc", "training"))
        for figure in make_figure(
            results,
            settings,
            make_panels(
                results, runs, the_attack, the_defense, partial(_mean_curve, results, column)
            ),
            kind="curves",
            name="curves" if column == "test_acc" else "curves-train",
            title=f"Accuracy on {images} images during training",
            x_label="epoch",
            whole_x=True,
        )
    ]


def ratio_figures(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against the poisoned share of the training images."""
    merged: dict[Settings, list[CellRow]] = {}
    for settings, runs in grouped(results.cells).items():
        merged.setdefault(replace(settings, ratio=1.0), []).extend(runs)
    points = partial(mean_points, metric, lambda run: 100 * run["ratio"])
    figures = []
    for settings, runs in merged.items():
        poisoned = [run for run in runs if not the_attack(run).is_clean]
        if len({run["ratio"] for run in poisoned if run["status"] == "ok"}) > 1:
            figures += make_figure(
                results,
                settings,
                make_panels(results, _with_clean(runs, poisoned), the_attack, the_defense, points),
                metric,
                kind="ratio",
                title="Accuracy against the poisoned share",
                x_label="poisoned training images (%)",
                at_points=True,
                varied=("ratio",),
            )
    return figures


def budget_figures(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against the attack's budget, for attacks that were run with several."""
    return [
        figure
        for settings, runs in grouped(results.cells).items()
        for norm, unit in (("linf", "levels of 255"), ("l2", "in the range [0, 1]"))
        for figure in make_figure(
            results,
            settings,
            _varied(results, runs, "attack", "eps", partial(_budget, results, norm), metric),
            metric,
            kind="budget",
            name=f"budget-{norm}",
            title=f"Accuracy against the {norm} budget",
            x_label=f"{norm} budget ({unit}), 0 is clean",
            at_points=True,
        )
    ]


def repeats_figures(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against K, the number of augmentations of which UEraser takes the hardest."""

    def repeats(run: CellRow) -> float | None:
        return _number(results.options(run["key"], "defense").get("repeats"))

    return [
        figure
        for settings, runs in grouped(results.cells).items()
        for figure in make_figure(
            results,
            settings,
            _varied(results, runs, "defense", "repeats", repeats, metric),
            metric,
            kind="repeats",
            title="Accuracy against the repeats K of the augmentation",
            x_label="K",
            at_points=True,
            whole_x=True,
        )
    ]


def cost_figures(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against the seconds of training.

    One panel has a mark for each poison and defense, the other the worst poison of each defense.
    """
    figures = []
    for settings, runs in grouped(results.cells).items():
        timed = [r for r in runs if r["status"] == "ok" and r["train_seconds"]]
        marks: dict[MethodSpec, list[Point]] = {the_defense(run): [] for run in runs}
        for (attack, defense), its_runs in by_pair(timed).items():
            if not attack.is_clean and (mark := _mark(its_runs, metric)).n:
                marks[defense].append(mark)
        if len({the_defense(run) for run in timed}) < 2:
            continue
        styles = method_styles(results.cells, "defense")
        every = [
            Line(method_title(results, defense), styles[defense], tuple(points))
            for defense, points in marks.items()
            if points
        ]
        worst = [replace(line, points=(min(line.points, key=lambda p: p.y),)) for line in every]
        figures += make_figure(
            results,
            settings,
            [Panel("every poison", tuple(every)), Panel("worst poison", tuple(worst))],
            metric,
            kind="cost",
            title="Accuracy against the cost of training",
            x_label="seconds of training",
            log_x=True,
            joined=False,
        )
    return figures


def without(method: MethodSpec, option: str) -> MethodSpec:
    """Return a method without one of its options."""
    parts = comma_parts(method.options)
    return MethodSpec(method.name, ",".join(p for p in parts if not p.startswith(f"{option}=")))


def method_title(results: Results, method: MethodSpec) -> str:
    """Return the display name of a method with its options."""
    return str(method_label(method, results.titles, CLEAN))


def make_figure(
    results: Results,
    settings: Settings,
    panels: Sequence[Panel],
    metric: Metric | None = None,
    *,
    kind: PlotKind,
    name: str = "",
    title: str,
    x_label: str,
    **look: Any,
) -> list[Figure]:
    """Return the figure, or nothing if its panels are empty."""
    counts = {point.n for panel in panels for line in panel.lines for point in line.points}
    if not counts:
        return []
    low, high = min(counts), max(counts)
    runs = f"Means over n = {low}{f' to {high}' if high > low else ''} runs"
    if high > 1:
        runs += "; bars are the sample standard deviation"
    same = results.cells["dataset"] == settings.dataset
    chances = results.cells.loc[same, "chance"].dropna().unique()
    best = ", best epoch" if metric == "test_acc_best" else ""
    y_label = QUANTITIES[metric].lower() if metric else "accuracy (%)"
    has_chance = len(chances) == 1 and metric in (None, *METRICS)
    return [
        Figure(
            kind,
            name or kind,
            settings,
            title,
            x_label,
            f"{y_label}{best}",
            f"{', '.join(settings_in_words(settings, results.titles))}. "
            f"{'One run each' if high == 1 else runs}.",
            tuple(panels),
            signed=metric == "gap",
            chance=float(chances[0]) if has_chance else None,
            **look,
        )
    ]


def make_panels(
    results: Results,
    runs: Sequence[CellRow],
    panel_of: Callable[[CellRow], MethodSpec],
    line_of: Callable[[CellRow], MethodSpec],
    points_of: Callable[[Sequence[CellRow]], tuple[Point, ...]],
) -> list[Panel]:
    """Return a panel for each method of one kind, with a line for each of the other kind."""
    panels = []
    styles = method_styles(results.cells, "attack" if line_of is the_attack else "defense")
    for panel in _methods(runs, panel_of):
        lines = []
        for line in _methods(runs, line_of):
            points = points_of([r for r in runs if panel_of(r) == panel and line_of(r) == line])
            if points:
                lines.append(Line(method_title(results, line), styles[line], points))
        if lines:
            panels.append(Panel(method_title(results, panel), tuple(lines)))
    return panels


def _varied(
    results: Results,
    runs: Sequence[CellRow],
    kind: Literal["attack", "defense"],
    option: str,
    value: Callable[[CellRow], float | None],
    metric: Metric,
) -> list[Panel]:
    """Return a panel for each method that was run with several values of an option."""
    method_of, opponent_of = the_attack, the_defense
    if kind == "defense":
        method_of, opponent_of = the_defense, the_attack

    def base(run: CellRow) -> MethodSpec:
        return without(method_of(run), option)

    values: dict[MethodSpec, set[float]] = {}
    for run in runs:
        x = value(run)
        if run["status"] == "ok" and x is not None:
            values.setdefault(base(run), set()).add(x)
    # A clean run is an attack with a budget of zero, so each attack's lines begin with it.
    clean = [run for run in runs if kind == "attack" and the_attack(run).is_clean]
    clean_keys = {run["key"] for run in clean}

    def x_of(run: CellRow) -> float | None:
        return 0.0 if run["key"] in clean_keys else value(run)

    panels = []
    for method in (method for method, xs in values.items() if len(xs) > 1):
        its_runs = [run for run in runs if base(run) == method]
        its_runs += [_as_attack(run, method) for run in clean]
        panels += make_panels(
            results, its_runs, base, opponent_of, partial(mean_points, metric, x_of)
        )
    return panels


def _as_attack(run: CellRow, attack: MethodSpec) -> CellRow:
    """Return a clean run under the name of an attack that left the images as they are."""
    return {**run, "attack": attack.name, "attack_options": attack.options}


def _with_clean(runs: Sequence[CellRow], poisoned: Sequence[CellRow]) -> list[CellRow]:
    """Return the poisoned runs, and each clean one as every attack at a ratio of zero, once."""
    clean = {run["key"]: run for run in runs if the_attack(run).is_clean}
    attacks = dict.fromkeys(the_attack(run) for run in poisoned)
    at_zero = {(the_attack(run), the_defense(run)) for run in poisoned if run["ratio"] == 0}
    lent = [
        {**_as_attack(run, attack), "ratio": 0.0}
        for attack in attacks
        for run in clean.values()
        if (attack, the_defense(run)) not in at_zero
    ]
    return [*poisoned, *lent]


def mean_points(
    metric: Metric, x_of: Callable[[CellRow], float | None], records: Sequence[CellRow]
) -> tuple[Point, ...]:
    """Return the means over the finished runs of each value of x."""
    by_x: dict[float, list[float]] = {}
    for record in records:
        x = x_of(record) if record["status"] == "ok" else None
        value = None if x is None else value_of(record, metric)
        if x is not None and value is not None:
            by_x.setdefault(round(x, 6), []).append(value)
    return _means(by_x)


def _mean_curve(results: Results, column: str, records: Sequence[CellRow]) -> tuple[Point, ...]:
    """Return the mean over runs at each epoch at which all of them were evaluated."""
    measured = []
    for record in records:
        curve = results.record(record["key"]).curve
        pairs = zip(curve.get("epoch", []), curve.get(column, []), strict=False)
        measured.append({x: y for x, y in pairs if x is not None and y is not None})
    measured = [by_epoch for by_epoch in measured if by_epoch]
    common = set[float]().union(*measured).intersection(*measured)
    return _means({x: [by_epoch[x] for by_epoch in measured] for x in common})


def _means(by_x: dict[float, list[float]]) -> tuple[Point, ...]:
    stats = ((x, Stat.of(values)) for x, values in sorted(by_x.items()))
    return tuple(Point(x, stat.mean, stat.sd, stat.n) for x, stat in stats)


def _mark(records: Sequence[CellRow], metric: Metric) -> Point:
    values = (value_of(record, metric) for record in records)
    stat = Stat.of([value for value in values if value is not None])
    return Point(statistics.mean(r["train_seconds"] for r in records), stat.mean, stat.sd, stat.n)


def _budget(results: Results, norm: str, run: CellRow) -> float | None:
    """Return an attack's budget in a norm: in levels of 255 for linf, as it is for l2."""
    options = {} if the_attack(run).is_clean else results.options(run["key"], "attack")
    eps = _number(options.get("eps"))
    if eps is None or options.get("norm") != norm:
        return None
    return 255 * eps if norm == "linf" else eps


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _methods(runs: Sequence[CellRow], of: Callable[[CellRow], MethodSpec]) -> list[MethodSpec]:
    """Return the methods in plan order, clean first."""
    methods = dict.fromkeys(of(run) for run in runs)
    return sorted(methods, key=lambda method: not method.is_clean)
