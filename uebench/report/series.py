"""What the plots show, as numbers: lines in panels. The page and matplotlib draw the same.

Cells are grouped as in the tables, so nothing of two protocols, versions or data sets is averaged.
A plot of what was not varied does not exist.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..common.text import comma_parts, one_line
from .folder import Results
from .groups import Method, Record, Settings, grouped, the_attack, the_defense
from .layout import CLEAN, settings_in_words
from .tables import Metric, Stat

Kind = Literal["curves", "ratio", "budget", "repeats", "cost"]


@dataclass(frozen=True)
class Point:
    """One point of a line: y in [0, 1] or seconds, with its sd over `n` runs (NaN for one)."""

    x: float
    y: float
    sd: float
    n: int


@dataclass(frozen=True)
class Line:
    """A line, or one mark: `style` counts the colours, the same for a method in all panels."""

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

    kind: Kind
    settings: Settings
    title: str
    x_label: str
    y_label: str
    note: str
    """Settings and number of runs, for a caption."""
    panels: tuple[Panel, ...]
    log_x: bool = False
    joined: bool = True
    """Whether the points of a line are joined."""


def curves(results: Results) -> list[Figure]:
    """Return accuracy by epoch: a panel an attack, a line a defense.

    On the test images; also on the training images, where the records have that.
    """
    made = []
    for settings, runs in grouped(results.cells).items():
        for column, words in (("test_acc", "test"), ("train_acc", "training")):

            def line(records: Sequence[Record], column: str = column) -> tuple[Point, ...]:
                return _mean_curve(results, records, column)

            panels = _panels(results, runs, the_attack, the_defense, line)
            made += _figure(
                settings,
                results,
                panels,
                "curves",
                f"Accuracy on {words} images while training",
                "epoch",
            )
    return made


def ratio(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against the poisoned share of the training images."""
    merged: dict[Settings, list[Record]] = {}
    for settings, runs in grouped(results.cells).items():
        merged.setdefault(replace(settings, ratio=1.0), []).extend(runs)

    def line(records: Sequence[Record]) -> tuple[Point, ...]:
        return _points(records, lambda r: 100 * r["ratio"], metric)

    made = []
    for settings, runs in merged.items():
        poisoned = [run for run in runs if not the_attack(run).is_clean]
        if len({run["ratio"] for run in poisoned if run["status"] == "ok"}) < 2:
            continue
        panels = _panels(results, _with_clean(runs, poisoned), the_attack, the_defense, line)
        made += _figure(
            settings,
            results,
            panels,
            "ratio",
            "Accuracy against the poisoned share",
            "poisoned training images (%)",
            metric,
        )
    return made


def budget(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against the attack's budget, for attacks that were run with several."""
    made = []
    for settings, runs in grouped(results.cells).items():
        for norm, unit in (("linf", "levels of 255"), ("l2", "in the range [0, 1]")):

            def value(run: Record, norm: str = norm) -> float | None:
                return _budget(results, run, norm)

            panels = _varied(results, runs, "attack", "eps", value, metric)
            made += _figure(
                settings,
                results,
                panels,
                "budget",
                f"Accuracy against the {norm} budget",
                f"{norm} budget ({unit}), 0 is clean",
                metric,
            )
    return made


def repeats(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against K, the augmentations of which a defense takes the hardest."""

    def value(run: Record) -> float | None:
        return _number(results.options(run["key"], "defense").get("repeats"))

    made = []
    for settings, runs in grouped(results.cells).items():
        panels = _varied(results, runs, "defense", "repeats", value, metric)
        made += _figure(
            settings,
            results,
            panels,
            "repeats",
            "Accuracy against the repeats K of the augmentation",
            "K",
            metric,
        )
    return made


def cost(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy against the seconds that training took.

    One panel has a mark for each poison and defense, the other the worst poison of each defense.
    """
    made = []
    for settings, runs in grouped(results.cells).items():
        timed = [r for r in runs if r["status"] == "ok" and r["train_seconds"]]
        if len({the_defense(r) for r in timed}) < 2:
            continue
        defenses = list(dict.fromkeys(the_defense(r) for r in runs))
        marks: dict[Method, list[Point]] = {}
        for defense in defenses:
            its = [r for r in timed if the_defense(r) == defense]
            attacks = dict.fromkeys(the_attack(r) for r in its)
            marks[defense] = [
                _mark([r for r in its if the_attack(r) == attack], metric)
                for attack in attacks
                if not attack.is_clean
            ]
        worst = {d: min(points, key=lambda p: p.y) for d, points in marks.items() if points}
        panels = [
            Panel("every poison", _marks(results, defenses, marks)),
            Panel("worst poison", _marks(results, defenses, {d: [p] for d, p in worst.items()})),
        ]
        made += _figure(
            settings,
            results,
            panels,
            "cost",
            "Accuracy against the cost of training",
            "seconds of training",
            metric,
            log_x=True,
            joined=False,
        )
    return made


def figures(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return every plot that the results allow, but curves."""
    return [figure for make in (ratio, budget, repeats, cost) for figure in make(results, metric)]


def accuracy_words(metric: Metric) -> str:
    """Return what the accuracy is."""
    return "test accuracy (%)" + (", best epoch" if metric == "test_acc_best" else "")


def spread(point: Point) -> float:
    """Return a point's sd, 0 for a single run."""
    return 0.0 if math.isnan(point.sd) else point.sd


def _figure(
    settings: Settings,
    results: Results,
    panels: Sequence[Panel],
    kind: Kind,
    title: str,
    x_label: str,
    metric: Metric | None = None,
    **how: bool,
) -> list[Figure]:
    """Return the figure, or none where there is nothing in it."""
    if not any(panel.lines for panel in panels):
        return []
    words = settings_in_words(settings, results.titles)
    if kind == "ratio":
        words = [word for word in words if not word.startswith("poisoning ratio")]
    n = sorted({point.n for panel in panels for line in panel.lines for point in line.points})
    runs = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
    spread = "" if n[-1] == 1 else "; bars are the sample standard deviation"
    y_label = accuracy_words(metric) if metric else "accuracy (%)"
    note = f"{', '.join(words)}. Means over {runs} runs{spread}."
    if n == [1]:
        note = f"{', '.join(words)}. One run each."
    return [Figure(kind, settings, title, x_label, y_label, note, tuple(panels), **how)]


def _panels(
    results: Results,
    runs: Sequence[Record],
    panel_of: Callable[[Record], Method],
    line_of: Callable[[Record], Method],
    points: Callable[[Sequence[Record]], tuple[Point, ...]],
) -> list[Panel]:
    """Return a panel for each method of one kind, with a line for each of the other kind."""
    panels, lines = _methods(runs, panel_of), _methods(runs, line_of)
    made = []
    for panel in panels:
        found = []
        for style, line in enumerate(lines):
            its = [r for r in runs if panel_of(r) == panel and line_of(r) == line]
            shown = points(its)
            if shown:
                found.append(Line(method_title(results, line), style, shown))
        if found:
            made.append(Panel(method_title(results, panel), tuple(found)))
    return made


def _varied(
    results: Results,
    runs: Sequence[Record],
    kind: Literal["attack", "defense"],
    option: str,
    value: Callable[[Record], float | None],
    metric: Metric,
) -> list[Panel]:
    """Return a panel for each method that was run with several values of an option."""

    def base(run: Record) -> Method:
        method = the_attack(run) if kind == "attack" else the_defense(run)
        return without(method, option)

    opponent = the_defense if kind == "attack" else the_attack
    clean = [run for run in runs if the_attack(run).is_clean]
    values: dict[Method, set[float]] = {}
    for run in runs:
        x = value(run)
        if run["status"] == "ok" and x is not None:
            values.setdefault(base(run), set()).add(x)
    lent = {run["key"] for run in clean} if kind == "attack" else set()

    def points(records: Sequence[Record]) -> tuple[Point, ...]:
        return _points(records, lambda r: 0.0 if r["key"] in lent else value(r), metric)

    panels = []
    for method in (method for method, found in values.items() if len(found) > 1):
        its = [run for run in runs if base(run) == method]
        if kind == "attack":
            its += [
                {**run, "attack": method.name, "attack_options": method.options} for run in clean
            ]

        panels += _panels(results, its, base, opponent, points)
    return panels


def _with_clean(runs: Sequence[Record], poisoned: Sequence[Record]) -> list[Record]:
    """Return the runs with clean ones as each attack at a ratio of zero, once."""
    clean = {run["key"]: run for run in runs if the_attack(run).is_clean}
    attacks = dict.fromkeys(the_attack(run) for run in poisoned)
    there = {(the_attack(run), the_defense(run)) for run in poisoned if run["ratio"] == 0}
    lent = [
        {**run, "attack": attack.name, "attack_options": attack.options, "ratio": 0.0}
        for attack in attacks
        for run in clean.values()
        if (attack, the_defense(run)) not in there
    ]
    return [*poisoned, *lent]


def _points(
    records: Sequence[Record], x_of: Callable[[Record], float | None], metric: Metric
) -> tuple[Point, ...]:
    """Return the mean accuracy at each x, in order."""
    by_x: dict[float, list[float]] = {}
    for record in records:
        x = x_of(record) if record["status"] == "ok" else None
        if x is not None and record[metric] is not None:
            by_x.setdefault(round(x, 6), []).append(record[metric])
    stats = {x: Stat.of(values) for x, values in by_x.items()}
    return tuple(Point(x, stat.mean, stat.sd, stat.n) for x, stat in sorted(stats.items()))


def _mean_curve(results: Results, records: Sequence[Record], column: str) -> tuple[Point, ...]:
    """Return the mean over runs at each epoch that all of them looked at."""
    found = []
    for record in records:
        curve = results.record(record["key"]).curve
        pairs = zip(curve.get("epoch", []), curve.get(column, []), strict=False)
        found.append({x: y for x, y in pairs if x is not None and y is not None})
    found = [curve for curve in found if curve]
    common = sorted(set.intersection(*(set(curve) for curve in found))) if found else []
    stats = [(x, Stat.of([curve[x] for curve in found])) for x in common]
    return tuple(Point(x, stat.mean, stat.sd, stat.n) for x, stat in stats)


def _mark(records: Sequence[Record], metric: Metric) -> Point:
    """Return mean seconds and mean accuracy of some runs."""
    stat = Stat.of([r[metric] for r in records if r[metric] is not None])
    return Point(statistics.mean(r["train_seconds"] for r in records), stat.mean, stat.sd, stat.n)


def _marks(
    results: Results, defenses: Sequence[Method], marks: dict[Method, list[Point]]
) -> tuple[Line, ...]:
    return tuple(
        Line(method_title(results, d), style, tuple(marks[d]))
        for style, d in enumerate(defenses)
        if marks.get(d)
    )


def _budget(results: Results, run: Record, norm: str) -> float | None:
    """Return an attack's budget in a norm: in levels of 255 for linf, as it is for l2."""
    if the_attack(run).is_clean:
        return None
    options = results.options(run["key"], "attack")
    eps = _number(options.get("eps"))
    if eps is None or options.get("norm") != norm:
        return None
    return 255 * eps if norm == "linf" else eps


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _methods(runs: Sequence[Record], of: Callable[[Record], Method]) -> list[Method]:
    """Return the methods in plan order, clean first."""
    found = dict.fromkeys(of(run) for run in runs)
    return sorted(found, key=lambda method: not method.is_clean)


def without(method: Method, option: str) -> Method:
    """Return a method without one of its options."""
    parts = comma_parts(method.options)
    return Method(method.name, ",".join(p for p in parts if not p.startswith(f"{option}=")))


def method_title(results: Results, method: Method) -> str:
    """Return what a method is called, with its options."""
    title = CLEAN if method.is_clean else results.titles.get(method.name, method.name)
    return one_line(f"{title}[{method.options}]" if method.options else title)
