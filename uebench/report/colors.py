"""Colours of heat maps and lines that colour-blind readers can tell apart.

The ramp runs from dark blue to light yellow with a steady rise in lightness, so that it works with
red-green blindness, in grey print and in both themes. The line colours are those of Okabe and Ito
(2008), with a darker yellow that shows on white; lines also differ in dashes and marks.
"""

import math

import numpy as np

RAMP = ("#08244f", "#2f4a78", "#5d6b80", "#8f8d7e", "#c4b26c", "#f7dd72")
"""Low to high, at equal distances."""

LINES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b4508c",
    "#c98a00",
    "#3a9bd1",
    "#000000",
    "#7a6a00",
)
"""Colours of lines on white; the page has lighter ones for its dark theme."""

DASHES: tuple[tuple[float, ...], ...] = ((), (6, 3), (2, 2), (8, 3, 2, 3))
"""Lengths of dashes and gaps in units of a chart; the next pattern for each round of colours."""

MARKS: tuple[tuple[tuple[float, float], ...], ...] = (
    tuple((3.6 * math.cos(i * math.pi / 8), 3.6 * math.sin(i * math.pi / 8)) for i in range(16)),
    ((-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)),
    ((0, -4.3), (4, 2.9), (-4, 2.9)),
    ((0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0)),
    ((-3.6, -3.6), (0, -1.6), (3.6, -3.6), (3.6, 3.6), (0, 1.6), (-3.6, 3.6)),
)
"""Corners of the marks around their centre, in units of a chart, y downwards.

A circle (16 corners look round at this size), a square, a triangle, a diamond and a bow tie.
"""

COLOR_STEPS = 20
"""Steps of the ramp that the style sheet has as classes, for tables with many coloured cells."""


def ramp_steps() -> list[tuple[str, str]]:
    """Return the colours of the steps 0..COLOR_STEPS, each with the ink that is legible on it."""
    colors = [ramp(step / COLOR_STEPS) for step in range(COLOR_STEPS + 1)]
    return [(color, ink_on(color)) for color in colors]


def ramp(share: float) -> str:
    """Return the colour of a share in [0, 1], as `#rrggbb`; shares outside are clipped."""
    place, places = share * (len(RAMP) - 1), range(len(RAMP))
    channels = zip(*map(_rgb, RAMP), strict=True)
    return "#" + "".join(f"{round(np.interp(place, places, levels)):02x}" for levels in channels)


def ink_on(color: str) -> str:
    """Return black or white, whichever has more contrast with a colour."""
    light = luminance(color)
    return "#000000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"


def luminance(color: str) -> float:
    """Return the relative luminance of `#rrggbb` in [0, 1] (WCAG 2)."""
    linear = [
        level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4
        for level in (level / 255 for level in _rgb(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
