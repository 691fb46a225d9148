"""The one engine that draws charts: it places axes, ticks, lines, error bars and marks.

A `Chart` is a display list in its own units, y downwards. The page's template writes it as inline
SVG, whose colours follow the reader's theme, and `plots.py` paints it with matplotlib as PDF and
PNG. Neither of them decides where anything goes, so that both show the same picture. Drawing the
page with matplotlib was rejected: importing it takes longer than writing the whole page, and its
SVG is several times as large.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .colors import DASHES, LINES, MARKS
from .series import Figure, Line, Point

MOST_MARKS = 20
"""A joined line with more points than this has no marks: they would cover the line."""
LEAST_APART = 8.0
"""The least distance between the labels of two ticks."""
LETTER = 7.0
"""The width of a letter or digit in units of a chart."""
CHANCE = "chance"
"""The label of the line of chance."""
SMALLEST = 1e-9
"""The smallest value on a logarithmic axis, which has no zero."""


@dataclass(frozen=True)
class Tick:
    """A position on an axis and its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """The centre of a mark, and the text that appears when a reader points at it."""

    x: float
    y: float
    tip: str


@dataclass(frozen=True)
class Look:
    """Indices into `LINES`, `DASHES` and `MARKS`, which tell one line from another."""

    color: int
    dash: int
    mark: int

    @classmethod
    def of(cls, style: int) -> "Look":
        """Return the look of a line by its number; the dashes change when the colours run out."""
        return cls(style % len(LINES), style // len(LINES) % len(DASHES), style % len(MARKS))


@dataclass(frozen=True)
class ChartLine:
    """A line with its error bars and marks."""

    look: Look
    places: tuple[tuple[float, float], ...]
    """The points to join; empty where the points are not joined."""
    bars: tuple[tuple[float, float, float], ...]
    """x, and the two ends in y, of each error bar."""
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """One pair of axes with everything in it."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[ChartLine, ...]
    chance: float | None = None
    """Where the line lies that a model reaches which has learned nothing."""
    width, height = 320.0, 220.0
    left, right, top, bottom = 42.0, 310.0, 10.0, 182.0
    """Where the axes of every chart lie."""

    @property
    def chance_label(self) -> tuple[float, float]:
        """The right end of the baseline of the label of the line of chance.

        It is the first free place from right to left, below the line before above it; if marks or
        lines run through all of them, the one with the fewest.
        """
        line = self.bottom if self.chance is None else self.chance
        width = LETTER * len(CHANCE)
        baselines = [line + 10, line - 3] if self.bottom - line >= 14 else [line - 3]
        steps = range(int((self.right - self.left) / width))
        drawn = [place for each in self.lines for place in _drawn_places(each)]

        def hits(corner: tuple[float, float]) -> int:
            right, base = corner
            return sum(
                right - width - 4 <= x <= right + 4 and base - 12 <= y <= base + 4 for x, y in drawn
            )

        return min(((self.right - n * width, base) for n in steps for base in baselines), key=hits)


@dataclass(frozen=True)
class LegendEntry:
    """The label of a line and its look."""

    label: str
    look: Look


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False
    """Whether it counts something, such as epochs, and so has ticks at whole numbers only."""

    def __call__(self, value: float) -> float:
        """Return the position of a value; one outside the axis is moved to its nearer end."""
        low, high, value = (self._linear(v) for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)

    def ticks(self) -> tuple[Tick, ...]:
        """Return round values in [low, high] at their positions."""
        if self.log:
            values = log_ticks(self.low, self.high)
        else:
            values = ticks(self.low, self.high, 5, whole=self.whole)
        return tuple(Tick(self(value), number(value)) for value in values)

    def ticks_at(self, values: Sequence[float]) -> tuple[Tick, ...]:
        """Return ticks at these values, without those whose labels would touch one before."""
        chosen: list[Tick] = []
        for value in sorted(set(values)):
            tick = Tick(self(value), number(value))
            near = chosen[-1] if chosen else None
            letters = len(tick.text) + len(near.text) if near else 0
            if near is None or tick.at - near.at >= letters * LETTER / 2 + LEAST_APART:
                chosen.append(tick)
        return tuple(chosen)

    def _linear(self, value: float) -> float:
        return math.log10(max(value, SMALLEST)) if self.log else value


def charts(figure: Figure) -> list[Chart]:
    """Return the panels of a figure, all with the same axes, which hold every point."""
    panels = [
        [
            replace(line, points=tuple(Point(p.x, 100 * p.y, 100 * p.sd, p.n) for p in line.points))
            for line in panel.lines
        ]
        for panel in figure.panels
    ]
    points = [point for lines in panels for line in lines for point in line.points]
    # The axes are chosen from all panels before any is drawn: limits that are set while drawing
    # would leave out what a later panel has.
    top = max([10.0, 100 * (figure.chance or 0), *(p.y + spread(p) for p in points)])
    low, high = limits([p.x for p in points], figure.log_x)
    if figure.x_names:  # room for half a name at both ends
        low, high = -0.5, len(figure.x_names) - 0.5
    x_axis = Axis(low, high, Chart.left, Chart.right, figure.log_x, figure.whole_x)
    lowest = min([0.0, *(p.y - spread(p) for p in points)]) if figure.signed else 0.0
    lowest = 10.0 * math.floor(lowest / 10)
    y_axis = Axis(lowest, min(100.0, 10 * math.ceil(top / 10)), Chart.bottom, Chart.top)
    x_ticks = _x_ticks(figure, x_axis, points)
    over = max((tick.at + LETTER * len(tick.text) / 2 for tick in x_ticks), default=0) - Chart.width
    if over > 0:  # a label would be cut off at the edge of the chart
        share = (x_ticks[-1].at - x_axis.start) / (x_axis.end - x_axis.start)
        if figure.x_names:  # the first name gets as much room as the last
            room = over / (2 * share - 1)
            x_axis = replace(x_axis, start=x_axis.start + room, end=x_axis.end - room)
        else:
            x_axis = replace(x_axis, end=x_axis.end - over / share)
        x_ticks = _x_ticks(figure, x_axis, points)
    chance = None if figure.chance is None else y_axis(100 * figure.chance)
    return [
        Chart(
            panel.title,
            figure.x_label,
            figure.y_label,
            x_ticks,
            y_axis.ticks(),
            tuple(_draw(line, x_axis, y_axis, figure.joined, "%") for line in lines),
            chance,
        )
        for panel, lines in zip(figure.panels, panels, strict=True)
    ]


def _x_ticks(figure: Figure, axis: Axis, points: Sequence[Point]) -> tuple[Tick, ...]:
    if figure.x_names:
        return tuple(Tick(axis(place), name) for place, name in enumerate(figure.x_names))
    if figure.at_points and not figure.log_x:
        return axis.ticks_at([point.x for point in points])
    return axis.ticks()


def legend(figure: Figure) -> list[LegendEntry]:
    """Return the lines of a figure, each once, in the order of their styles."""
    labels = {line.style: line.label for panel in figure.panels for line in panel.lines}
    return [LegendEntry(labels[style], Look.of(style)) for style in sorted(labels)]


def small_chart(
    pairs: Sequence[tuple[float, float]], x_label: str, y_label: str, unit: str = ""
) -> Chart:
    """Return the chart of a single line, its y axis from zero to a round value above its maximum.

    Args:
        pairs: The points (x, y); x counts something, such as epochs.
        x_label: What x is.
        y_label: What y is.
        unit: Follows the value in the text of a mark.
    """
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    ceiling = ticks(0, max([*ys, SMALLEST]), 4, upwards=True)[-1]
    x_axis = Axis(*limits(xs, False), Chart.left, Chart.right, whole=True)
    y_axis = Axis(0.0, ceiling, Chart.bottom, Chart.top)
    line = Line("", 0, tuple(Point(x, y, math.nan, 1) for x, y in pairs))
    drawn = _draw(line, x_axis, y_axis, True, unit)
    return Chart("", x_label, y_label, x_axis.ticks(), y_axis.ticks(), (drawn,))


def spread(point: Point) -> float:
    """Return the sd of a point, 0 for a single run."""
    return 0.0 if math.isnan(point.sd) else point.sd


def limits(xs: Sequence[float], log: bool) -> tuple[float, float]:
    """Return where an axis begins and ends: at its data, with room around a lone value."""
    low, high = min(xs, default=0.0), max(xs, default=1.0)
    if log:
        return max(low, SMALLEST) / 1.25, max(high, SMALLEST) * 1.25
    if low == high:
        return low - 1, high + 1
    return low, high


def ticks(
    low: float, high: float, about: int, upwards: bool = False, whole: bool = False
) -> list[float]:
    """Return round values from `low` to `high`.

    Args:
        low: The lowest value.
        high: The highest value.
        about: The approximate number of steps.
        upwards: Whether to add a value above `high` where none equals it.
        whole: Whether to keep to whole numbers.
    """
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if upwards and last * step < high:
        last += 1
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between `low` and `high`, at most six of them.

    Where fewer than three of them lie in the range, equidistant round values are returned instead.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    if len(values) < 3:
        values = ticks(low, high, 5)
    return values[:: max(1, math.ceil(len(values) / 6))]


def number(value: float) -> str:
    """Return the label of a tick, with no more digits than it needs."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _drawn_places(line: ChartLine) -> Iterator[tuple[float, float]]:
    """Yield the marks of a line, and places on it that are about a letter apart."""
    yield from ((mark.x, mark.y) for mark in line.marks)
    for (x, y), (next_x, next_y) in pairwise(line.places):
        n = 1 + int((next_x - x) / LETTER)
        yield from ((x + (next_x - x) * i / n, y + (next_y - y) * i / n) for i in range(n + 1))


def _draw(line: Line, x_axis: Axis, y_axis: Axis, joined: bool, unit: str) -> ChartLine:
    points = line.points
    places = tuple((x_axis(p.x), y_axis(p.y)) for p in points)
    bars = ((x_axis(p.x), y_axis(p.y - p.sd), y_axis(p.y + p.sd)) for p in points if spread(p))
    marks = [Mark(x, y, _tip(line, p, unit)) for p, (x, y) in zip(points, places, strict=True)]
    marked = len(places) <= MOST_MARKS or not joined
    return ChartLine(
        Look.of(line.style), places if joined else (), tuple(bars), tuple(marks if marked else ())
    )


def _tip(line: Line, point: Point, unit: str) -> str:
    label = f"{line.label}: " if line.label else ""
    sd = f" ± {point.sd:.1f}" if spread(point) else ""
    runs = f", n = {point.n}" if point.n > 1 else ""
    y = f"{point.y:.1f} {unit}" if unit else f"{point.y:.4g}"
    return f"{label}{y}{sd} at {number(point.x)}{runs}"
