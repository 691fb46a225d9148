"""Panels as drawings: positions, ticks and paths in an SVG's own units; the template sets them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .colors import LINES
from .series import Figure, Line, Panel, Point, spread

WIDTH, HEIGHT = 320.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 10.0, 10.0, 38.0
MARK = 3.6
"""Half of a mark's size."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A mark at a point, and what it tells when it is pointed at."""

    path: str
    tip: str


@dataclass(frozen=True)
class Drawn:
    """A line: `style` picks its colour and dashes from the style sheet."""

    style: int
    dash: int
    path: str
    bars: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """One drawn panel."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Drawn, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    style: int
    dash: int
    path: str


@dataclass(frozen=True)
class Scale:
    """Maps values to positions."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False
    """Whether it counts something, such as epochs."""

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        low, high, value = (self._at(v) for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def _at(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.log else value


def charts(figure: Figure) -> list[Chart]:
    """Return the panels of a figure, drawn on the same axes."""
    points = [p for panel in figure.panels for line in panel.lines for p in line.points]
    percent = [replace_y(p, 100) for p in points]
    top = max([10.0, *(p.y + spread(p) for p in percent)])
    high = min(100.0, 10 * math.ceil(top / 10))
    xs = [p.x for p in points]
    low_x, high_x = limits(xs, figure.log_x)
    counts = figure.kind in ("curves", "repeats")
    x_scale = Scale(low_x, high_x, LEFT, WIDTH - RIGHT, figure.log_x, counts)
    y_scale = Scale(0.0, high, HEIGHT - BOTTOM, TOP)
    return [_chart(figure, panel, x_scale, y_scale) for panel in figure.panels]


def legend(figure: Figure) -> list[Key]:
    """Return what the lines of a figure are called, each once, in the order of their styles."""
    labels = {line.style: line.label for panel in figure.panels for line in panel.lines}
    return [
        Key(labels[style], style % len(LINES), dash_of(style), mark_path(style, 12, 6))
        for style in sorted(labels)
    ]


def small_chart(
    line: Sequence[tuple[float, float]], x_label: str, y_label: str, unit: str = ""
) -> Chart:
    """Return one line alone, its axis from zero to its highest value."""
    xs, ys = [x for x, _ in line], [y for _, y in line]
    ceiling = ticks(0, max([*ys, 1e-9]), 4, upwards=True)[-1]
    x_scale = Scale(*limits(xs, False), LEFT, WIDTH - RIGHT, whole=True)
    y_scale = Scale(0.0, ceiling, HEIGHT - BOTTOM, TOP)
    drawn = _drawn(
        Line("", 0, tuple(Point(x, y, math.nan, 1) for x, y in line)), x_scale, y_scale, True, unit
    )
    return Chart("", x_label, y_label, _ticks(x_scale), _ticks(y_scale), (drawn,))


def limits(xs: Sequence[float], log: bool) -> tuple[float, float]:
    """Return where an axis begins and ends: at its data, with room around a lone value."""
    low, high = min(xs, default=0.0), max(xs, default=1.0)
    if log:
        return low / 1.25, high * 1.25
    if low == high:
        return low - 1, high + 1
    return low, high


def ticks(
    low: float, high: float, about: int, upwards: bool = False, whole: bool = False
) -> list[float]:
    """Return round values from `low` to `high`, `about` so many.

    `upwards` adds one above, and `whole` keeps to whole numbers.
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
    """Return 1, 2 and 5 times the powers of ten between `low` and `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return found[:: max(1, math.ceil(len(found) / 6))]


def number(value: float) -> str:
    """Return a tick's text: no more digits than it needs."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def replace_y(point: Point, factor: float) -> Point:
    """Return a point with y and sd multiplied."""
    return Point(point.x, point.y * factor, point.sd * factor, point.n)


def dash_of(style: int) -> int:
    """Return which dashes a line has: others for every round through the colours."""
    return style // len(LINES) % 4


def mark_path(style: int, x: float, y: float) -> str:
    """Return a mark: circle, square, triangle, diamond, cross, in turn."""
    r = MARK
    match style % 5:
        case 0:
            return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
        case 1:
            s = r * 0.9
            return f"M{x - s:.1f} {y - s:.1f}h{2 * s:.1f}v{2 * s:.1f}h{-2 * s:.1f}z"
        case 2:
            return f"M{x:.1f} {y - r * 1.2:.1f}l{r * 1.1:.1f} {r * 2:.1f}h{-2.2 * r:.1f}z"
        case 3:
            s = r * 1.25
            return f"M{x:.1f} {y - s:.1f}l{s:.1f} {s:.1f}l{-s:.1f} {s:.1f}l{-s:.1f} {-s:.1f}z"
        case _:
            return (
                f"M{x - r:.1f} {y - r:.1f}l{r:.1f} {r * 0.55:.1f}l{r:.1f} {-r * 0.55:.1f}"
                f"v{2 * r:.1f}l{-r:.1f} {-r * 0.55:.1f}l{-r:.1f} {r * 0.55:.1f}z"
            )


def _chart(figure: Figure, panel: Panel, x_scale: Scale, y_scale: Scale) -> Chart:
    lines = []
    for line in panel.lines:
        percent = Line(line.label, line.style, tuple(replace_y(p, 100) for p in line.points))
        lines.append(_drawn(percent, x_scale, y_scale, figure.joined, "%"))
    return Chart(
        panel.title,
        figure.x_label,
        figure.y_label,
        _ticks(x_scale),
        _ticks(y_scale),
        tuple(lines),
    )


def _drawn(line: Line, x_scale: Scale, y_scale: Scale, joined: bool, unit: str) -> Drawn:
    places = [(x_scale(p.x), y_scale(p.y)) for p in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) if joined and places else ""
    bars = "".join(
        f"M{x_scale(p.x):.1f} {y_scale(p.y - p.sd):.1f}V{y_scale(p.y + p.sd):.1f}"
        for p in line.points
        if spread(p)
    )
    few = len(line.points) <= 20 or not joined
    marks = tuple(
        Mark(mark_path(line.style, x, y), _tip(line, point, unit))
        for point, (x, y) in zip(line.points, places, strict=True)
        if few
    )
    return Drawn(line.style % len(LINES), dash_of(line.style), path, bars, marks)


def _tip(line: Line, point: Point, unit: str) -> str:
    label = f"{line.label}: " if line.label else ""
    sd = f" ± {point.sd:.1f}" if spread(point) else ""
    runs = f", n = {point.n}" if point.n > 1 else ""
    y = f"{point.y:.1f} {unit}" if unit else f"{point.y:.4g}"
    return f"{label}{y}{sd} at {number(point.x)}{runs}"


def _ticks(scale: Scale) -> tuple[Tick, ...]:
    if scale.log:
        values = log_ticks(scale.low, scale.high)
    else:
        values = ticks(scale.low, scale.high, 5, whole=scale.whole)
    return tuple(Tick(round(scale(value), 1), number(value)) for value in values)
