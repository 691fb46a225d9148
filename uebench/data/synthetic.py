"""The embedded data set: procedural pictures of textured objects, made in a second, no download.

A picture is a smooth, lit, cluttered background with one object on it. The class is the object's
shape together with its texture; colour, light, background, place, size, rotation, mirroring and
focus are drawn independently of the class. Objects are antialiased and equal in area, and a few
levels of sensor noise lie over everything, so that the spectrum falls off like a photograph's, and
pictures differ in contrast as much as photographs do.

Source: ours. The same arguments give the same bytes: everything is computed in float64 with
element-wise operations and FFTs, and rounded to whole levels once, at the end.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError

F = NDArray[np.float64]
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

MAX_CLASSES = 100
"""Number of shape x texture combinations."""

_CHUNK = 128
"""Images rendered together: their planes stay in a core's cache at 32 px."""

_THREADS = 4
"""NumPy works on large arrays side by side; the pictures do not depend on it."""

_CONTRAST = (0.25, 1.8)
"""Least and largest contrast of an image. Photographs are pale or bold, and so are these: with one
contrast for all, strong edges everywhere hid a weak poison that the same network finds on CIFAR-10
at once (LSP on 2,500 images left 84 % of a clean 84; with a spread of 0.2 to 1.8, 11 % of a clean
76; one run each, before the pictures had their present numbers)."""

_SALT = 0x0EB5
"""Keeps our random streams apart from those of other users of the same seed."""


class SyntheticArrays(NamedTuple):
    """A training and a test set, drawn from disjoint random streams."""

    train_images: U8
    """uint8 [n, h, w, 3], RGB."""
    train_labels: I64
    """int64 [n], in [0, k)."""
    test_images: U8
    """uint8 [n, h, w, 3], RGB."""
    test_labels: I64
    """int64 [n], in [0, k)."""
    class_names: tuple[str, ...]
    """k names such as `striped disc`, all different."""


Outline = Callable[[F, F], F]
Texture = Callable[[F, F, F, F], F]


def _box(u: F, v: F, a: float, b: float) -> F:
    return np.maximum(np.abs(u) - a, np.abs(v) - b)


def _star(u: F, v: F) -> F:
    fifth = 0.4 * np.pi
    angle = np.abs(np.mod(np.arctan2(u, -v) + fifth / 2, fifth) - fifth / 2)
    radius = np.hypot(u, v)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    # The edge from the tip (1, 0) to the notch at radius 0.42, half a fifth away.
    notch = 0.42 * np.cos(fifth / 2), 0.42 * np.sin(fifth / 2)
    length = np.hypot(1 - notch[0], notch[1])
    distance: F = ((x - 1.0) * notch[1] + y * (1.0 - notch[0])) / length
    return distance


def _heart(u: F, v: F) -> F:
    lobes = np.hypot(np.abs(u) - 0.42, v + 0.36) - 0.54
    tip = np.maximum(0.74 * np.abs(u) + 0.67 * v - 0.62, -v - 0.36)
    return np.minimum(lobes, tip)


_SHAPES: dict[str, Outline] = {
    "disc": lambda u, v: np.hypot(u, v) - 1.0,
    "square": lambda u, v: _box(u, v, 1.0, 1.0),
    "triangle": lambda u, v: np.maximum(v, 0.866 * np.abs(u) - 0.5 * v) - 0.6,
    "cross": lambda u, v: np.minimum(_box(u, v, 1.0, 0.32), _box(u, v, 0.32, 1.0)),
    "star": _star,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.78) - 0.24,
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 1.0, 0.75 - np.hypot(u, v + 0.55)),
    "heart": _heart,
    "hourglass": lambda u, v: np.maximum(
        np.abs(v) - 0.9, 0.75 * np.abs(u) - 0.66 * np.abs(v) - 0.06
    ),
    "dumbbell": lambda u, v: np.minimum(np.hypot(np.abs(u) - 0.85, v) - 0.5, _box(u, v, 0.8, 0.14)),
}
"""Signed distances, negative inside, on the object's plane: v points down, radius about 1."""

_TEXTURES: dict[str, Texture] = {
    "striped": lambda u, v, p, f: np.sin(6.5 * f * v + p),
    "plain": lambda u, v, p, f: np.sin(1.2 * f * u + p) * 0.5,
    "checked": lambda u, v, p, f: 1.5 * np.sin(4.6 * f * u + p) * np.sin(4.6 * f * v + 2 * p),
    "rimmed": lambda u, v, p, f: 5.0 * (np.hypot(u, v) - 0.55),
    "halved": lambda u, v, p, f: 4.0 * u + 0.5 * np.sin(p),
    "rayed": lambda u, v, p, f: np.sin(6 * np.arctan2(v, u) + p),
    "dotted": lambda u, v, p, f: (
        0.9 * (np.cos(6.0 * f * u + p) + np.cos(6.0 * f * v + 2 * p)) - 0.5
    ),
    "waved": lambda u, v, p, f: np.sin(6.0 * f * v + 1.6 * np.sin(4.5 * u + 2 * p) + p),
    "netted": lambda u, v, p, f: (
        3.0 * (np.maximum(np.cos(5.5 * f * u + p), np.cos(5.5 * f * v + 2 * p)) - 0.55)
    ),
    "banded": lambda u, v, p, f: np.sin(6.5 * f * np.hypot(u, v) + p),
}
"""Waves, cut off at +-0.7, on the same plane; p is a random phase, f a frequency near 1. About two
periods cross the object, so that a period has four pixels or more at 32 px."""


@cache
def _radius(shape: str) -> float:
    """Return the object's unit, as a share of its size, that gives all shapes one area."""
    axis = (np.arange(240) + 0.5) / 80 - 1.5
    share = float((_SHAPES[shape](axis[None, :], axis[:, None]) < 0).mean()) * 9.0
    return float(np.sqrt(2.0 / share))


def _class(label: int) -> tuple[str, str]:
    """Return a class's texture and shape: the first ten share neither, a hundred differ."""
    return tuple(_TEXTURES)[(label + label // 10) % 10], tuple(_SHAPES)[label % 10]


def _labels(rng: np.random.Generator, n: int, k: int) -> I64:
    """Return n labels in a random order, the classes' sizes differing by one at most."""
    return rng.permutation(np.arange(n, dtype=np.int64) % k)


def _palette(rng: np.random.Generator, luma: F, vivid: float) -> F:
    """Return colours [n, 3] of the given luminance [n] and a random tint, vivid at most."""
    n = len(luma)
    hue = rng.uniform(0, 2 * np.pi, n)
    chroma = vivid * rng.random(n)
    shift = np.array([0.0, 2.0, 4.0]) * (np.pi / 3)
    tint = chroma[:, None] * np.cos(hue[:, None] + shift)
    tint -= (tint * np.array([0.299, 0.587, 0.114])).sum(1, keepdims=True)
    return luma[:, None] + tint


def _clouds(rng: np.random.Generator, n: int, size: int, slope: float) -> F:
    """Return n random fields [n, size, size], amplitude 1/f^slope, mean 0, sd 1."""
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    f = np.hypot(fy, fx)
    f[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((n, size, size))) * f**-slope
    field = np.fft.irfft2(spectrum, s=(size, size))
    result: F = field / field.std(axis=(1, 2), keepdims=True)
    return result


def _col(values: F) -> F:
    """Return a value an image as [n, 1, 1]."""
    return values[:, None, None]


def _blend(canvas: F, colour: F, alpha: F) -> None:
    """Lay colour (broadcast to [n, 3, h, w]) over the canvas in place, by alpha [n, h, w]."""
    canvas += alpha[:, None] * (colour - canvas)


def _background(rng: np.random.Generator, n: int, size: int, luma: F) -> F:
    """Return lit, cloudy, cluttered scenes [n, 3, size, size] around the given luminance."""
    axis = (np.arange(size) + 0.5) * (2 / size) - 1
    x, y = axis[None, None, :], axis[None, :, None]
    angle = rng.uniform(0, 2 * np.pi, n)
    slope = _col(np.cos(angle)) * x + _col(np.sin(angle)) * y
    canvas = np.empty((n, 3, size, size))
    base = _palette(rng, luma, 0.06)
    canvas[:] = base[:, :, None, None]
    second = (base + _palette(rng, rng.uniform(-0.09, 0.09, n), 0.04))[:, :, None, None]
    edge = _col(rng.uniform(0.8, 4.0, n))
    _blend(canvas, second, np.clip(0.5 + edge * (slope - _col(rng.uniform(-0.7, 0.7, n))), 0, 1))
    for _ in range(3):
        colour = (base + _palette(rng, rng.normal(0, 0.045, n), 0.05))[:, :, None, None]
        turn = rng.uniform(0, np.pi, n)
        dx, dy = x - _col(rng.uniform(-1.1, 1.1, n)), y - _col(rng.uniform(-1.1, 1.1, n))
        a = _col(np.cos(turn)) * dx + _col(np.sin(turn)) * dy
        b = _col(np.cos(turn)) * dy - _col(np.sin(turn)) * dx
        wide, high = _col(rng.uniform(0.15, 0.9, n)), _col(rng.uniform(0.1, 0.4, n))
        inside = 1 - np.hypot(a / wide, b / high)
        _blend(canvas, colour, np.clip(inside * _col(rng.uniform(0.7, 4.0, n)), 0, 1))
    light = _clouds(rng, n, size, 1.4) * _col(rng.uniform(0.004, 0.0125, n))
    canvas += light[:, None]
    return canvas


def _place(rng: np.random.Generator, n: int, size: int, unit: float) -> tuple[F, F, F]:
    """Return the object's plane (u, v), each [n, size, size], and a pixel's length on it [n].

    Place, size, rotation, mirroring, aspect and a slight bending are drawn again for each image.
    """
    axis = (np.arange(size) + 0.5) * (2 / size) - 1
    scale = rng.uniform(0.55, 0.80, n)
    dx = axis[None, None, :] - _col(rng.uniform(-0.28, 0.28, n))
    dy = axis[None, :, None] - _col(rng.uniform(-0.28, 0.28, n))
    turn = rng.uniform(-np.pi, np.pi, n)
    mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    aspect = np.exp(rng.uniform(-0.15, 0.15, n))
    length = 1 / (scale * unit)
    u = (_col(np.cos(turn)) * dx + _col(np.sin(turn)) * dy) * _col(length * mirror * aspect)
    v = (_col(np.cos(turn)) * dy - _col(np.sin(turn)) * dx) * _col(length / aspect)
    bend, phase = _col(rng.uniform(0, 0.09, n)), _col(rng.uniform(0, 2 * np.pi, n))
    return u + bend * np.sin(2.5 * v + phase), v + bend * np.sin(2.5 * u - phase), length * 2 / size


def _render(rng: np.random.Generator, label: int, n: int, size: int) -> U8:
    """Return n images [n, size, size, 3] of a class."""
    texture, shape = _class(label)
    ground = rng.uniform(0.40, 0.60, n)
    canvas = _background(rng, n, size, ground)
    u, v, pixel = _place(rng, n, size, _radius(shape))

    # The object is lighter or darker than its ground, from barely to boldly: as in photographs,
    # easy and hard pictures are mixed.
    step = rng.uniform(0.15, 0.40, n)
    luma = ground + np.where(rng.random(n) < ground, -step, step)
    swing = rng.uniform(0.033, 0.135, n)
    light = _palette(rng, luma + swing, 0.11)[:, :, None, None]
    dark = _palette(rng, luma - swing, 0.11)[:, :, None, None]
    wave = _TEXTURES[texture](
        u, v, _col(rng.uniform(0, 2 * np.pi, n)), _col(rng.uniform(0.88, 1.12, n))
    )
    weight = 0.5 + 0.5 * np.clip(1.4 * wave * _col(np.where(rng.random(n) < 0.5, -1, 1)), -1, 1)
    side = rng.uniform(0, 2 * np.pi, n)
    shade = (_col(np.cos(side)) * u + _col(np.sin(side)) * v) * _col(rng.uniform(0, 0.07, n))
    colour = dark + weight[:, None] * (light - dark) + shade[:, None]
    soft = _col(pixel * rng.uniform(1.0, 1.8, n))
    _blend(canvas, colour, np.clip(0.5 - _SHAPES[shape](u, v) / soft, 0, 1))

    # The camera: contrast, white balance, exposure and sensor noise.
    canvas -= 0.5
    faint, bold = np.log(_CONTRAST)
    canvas *= np.exp(rng.uniform(faint, bold, n))[:, None, None, None]
    canvas *= rng.uniform(0.94, 1.06, (n, 3, 1, 1))
    canvas += 0.5 + rng.uniform(-0.05, 0.05, n)[:, None, None, None]
    canvas += (
        rng.standard_normal(canvas.shape) * rng.uniform(0.0015, 0.0035, n)[:, None, None, None]
    )
    levels: U8 = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def _split(seed: int, stream: int, n: int, k: int, size: int) -> tuple[U8, I64]:
    """Return the images [n, size, size, 3] and labels [n] of one random stream.

    Every class has a stream of its own, so that they can be drawn side by side.
    """
    labels = _labels(np.random.default_rng([_SALT, seed, stream]), n, k)
    images = np.empty((n, size, size, 3), np.uint8)

    def draw(label: int) -> None:
        rng = np.random.default_rng([_SALT, seed, stream, label])
        where = np.flatnonzero(labels == label)
        for start in range(0, len(where), _CHUNK):
            part = where[start : start + _CHUNK]
            images[part] = _render(rng, label, len(part), size)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(draw, range(k)))
    return images, labels


def _check(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError unless value is a whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def make_synthetic(
    n_train: int = 3000, n_test: int = 1000, n_classes: int = 10, size: int = 32, seed: int = 0
) -> SyntheticArrays:
    """Return a training and a test set of procedural pictures, the same for the same arguments.

    Args:
        n_train: Training images, at least one a class. The test set does not depend on it.
        n_test: Test images, at least one a class. The training set does not depend on it.
        n_classes: 2 to 100. The first ten classes share neither shape nor texture.
        size: Height and width in pixels, 8 to 512. Scenes keep their proportions.
        seed: Chooses both random streams, 0 or more.

    Raises:
        ValueError: If an argument is not a whole number in its range.
    """
    _check("n_classes", n_classes, 2, MAX_CLASSES)
    _check("n_train", n_train, n_classes, 10_000_000)
    _check("n_test", n_test, n_classes, 10_000_000)
    _check("size", size, 8, 512)
    _check("seed", seed, 0, 2**63 - 1)
    names = tuple(" ".join(_class(label)) for label in range(n_classes))
    train = _split(seed, 0, n_train, n_classes, size)
    test = _split(seed, 1, n_test, n_classes, size)
    return SyntheticArrays(*train, *test, names)
