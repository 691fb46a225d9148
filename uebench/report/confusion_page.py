"""Confusion matrices for the page: as a small table, or as a picture."""

import base64
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from .colors import COLOR_STEPS, ramp
from .confusion import ConfusionMatrix

READABLE = 12
"""Matrices with more classes than this are shown as pictures, not as tables of numbers."""
MOST_PIXELS = 100
"""Largest side of a picture; with more classes, several neighbouring ones share a pixel."""
WORST_PAIRS = 5


@dataclass(frozen=True)
class MatrixCell:
    """The number of images of one true class that were taken for one class, and its colour."""

    count: int
    step: int
    """Step of the colour ramp in 0..COLOR_STEPS, for the share of the true class."""


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix for the page; its rows are true classes, its columns predicted ones."""

    names: tuple[str, ...]
    picture: str
    """The data URI of a PNG; empty if there are rows."""
    group: int
    """The number of neighbouring classes that share a pixel of the picture."""
    rows: tuple[tuple[MatrixCell, ...], ...]
    """The entries as numbers; empty if there are too many classes."""
    recalls: tuple[str, ...]
    """The share of each true class that was recognised, in percent."""
    pairs: tuple[str, ...]
    """The most frequent mistakes in words."""


def group_size(matrix: ConfusionMatrix) -> int:
    """Return how many neighbouring classes share a pixel, so that a picture stays small."""
    return max(1, -(-len(matrix) // MOST_PIXELS))


def shares(matrix: ConfusionMatrix) -> npt.NDArray[np.float64]:
    """Return each row divided by its sum, binned for a picture; classes without images have zeros.

    The share of a block is that of its true classes' images: with classes of equal size, the mean
    over these classes of the share that was taken for any of its predicted classes.
    """
    counts = matrix.binned(group_size(matrix)).astype(np.float64)
    counts /= np.maximum(1, counts.sum(axis=1, keepdims=True))
    return counts


def confusion(matrix: ConfusionMatrix, names: Sequence[str]) -> Confusion:
    """Return a matrix with the names of its classes, as the page shows it."""
    totals = matrix.row_totals()
    right = matrix.rows == matrix.columns
    recognised = np.zeros_like(totals)
    recognised[matrix.rows[right]] = matrix.counts[right]
    small = len(matrix) <= READABLE
    rows = tuple(
        tuple(MatrixCell(n, round(COLOR_STEPS * n / max(1, sum(row)))) for n in row)
        for row in (matrix.dense().tolist() if small else ())
    )
    return Confusion(
        tuple(names),
        "" if small else matrix_picture(matrix),
        group_size(matrix),
        rows,
        tuple(f"{share:.0f}" for share in 100 * recognised / np.maximum(1, totals)),
        tuple(_pairs(matrix, names)),
    )


def matrix_picture(matrix: ConfusionMatrix) -> str:
    """Return the data URI of a picture of the shares, with one pixel per class or group of them."""
    levels = np.rint(255 * shares(matrix)).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.putpalette(_palette())
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return png_uri(out.getvalue())


@functools.cache
def _palette() -> bytes:
    return b"".join(bytes.fromhex(ramp(level / 255)[1:]) for level in range(256))


def png_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _pairs(matrix: ConfusionMatrix, names: Sequence[str]) -> list[str]:
    wrong = np.flatnonzero(matrix.rows != matrix.columns)
    # The sort is stable and the entries are ordered, so ties come in the order of the classes.
    worst = wrong[np.argsort(-matrix.counts[wrong], kind="stable")][:WORST_PAIRS]
    totals = matrix.row_totals()
    return [
        f"{names[i]} taken for {names[j]}: {count} of {totals[i]}"
        for i, j, count in zip(
            matrix.rows[worst], matrix.columns[worst], matrix.counts[worst], strict=True
        )
    ]
