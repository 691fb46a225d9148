"""Confusion matrices for the page: as a small table, or as a picture with one pixel per entry."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from .colors import COLOR_STEPS, ramp

READABLE = 12
"""Matrices with more classes than this are shown as pictures, not as tables of numbers."""
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
    """The data URI of a PNG with one pixel per entry; empty if there are rows."""
    rows: tuple[tuple[MatrixCell, ...], ...]
    """The entries as numbers; empty if there are too many classes."""
    recalls: tuple[str, ...]
    """The share of each true class that was recognised, in percent."""
    pairs: tuple[str, ...]
    """The most frequent mistakes in words."""


def shares(matrix: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return each row divided by its sum; a class without images has zeros."""
    return [[count / max(1, sum(row)) for count in row] for row in matrix]


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Confusion:
    """Return a matrix with the names of its classes, as the page shows it."""
    parts = shares(matrix)
    small = len(matrix) <= READABLE
    rows = tuple(
        tuple(MatrixCell(n, round(COLOR_STEPS * share)) for n, share in zip(*pair, strict=True))
        for pair in (zip(matrix, parts, strict=True) if small else ())
    )
    return Confusion(
        tuple(names),
        "" if small else matrix_picture(parts),
        rows,
        tuple(f"{100 * row[i]:.0f}" for i, row in enumerate(parts)),
        tuple(_pairs(matrix, names)),
    )


def matrix_picture(parts: Sequence[Sequence[float]]) -> str:
    """Return the data URI of a picture of the shares, with one pixel per entry."""
    table = {share: bytes.fromhex(ramp(share)[1:]) for row in parts for share in row}
    pixels = b"".join(table[share] for row in parts for share in row)
    picture = Image.frombytes("RGB", (len(parts), len(parts)), pixels)
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return png_uri(out.getvalue())


def png_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _pairs(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[str]:
    mistakes = [
        (-count, i, j)
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    worst = sorted(mistakes)[:WORST_PAIRS]
    return [
        f"{names[i]} taken for {names[j]}: {-count} of {sum(matrix[i])}" for count, i, j in worst
    ]
