"""The search for one-pixel shortcuts, which OPS and CIFAR10-S share.

Source: Wu et al., "One-Pixel Shortcut", ICLR 2023, arXiv:2205.12141, and its authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from uebench import Facts, Option, Split, UserError
from uebench.methods.base import Method

from ._class_wise import check_classes

SUMMED = 256
"""Images whose squares are summed at a time."""
SMALLEST_SPREAD = 1e-12
"""Added to the spread, which is zero where all images of a class have the same value."""


class Shortcuts(NamedTuple):
    """The pixels that the images of each class share, the best of a class first.

    Attributes:
        positions: the row-major positions, int64 [k, s]; -1 for classes without images.
        colors: 0 or 1 in each channel, float [k, s, c].
    """

    positions: Int[Tensor, "k s"]
    colors: Float[Tensor, "k s c"]


class OnePixelOptions(Method):
    """The options of the search."""

    sparsity: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pixels that are set in each image."""
    score: Annotated[Literal["mean/sd", "mean/variance"], Option(variant=True)] = "mean/sd"
    """What a class's pixel maximises: the mean distance between the images and its colour, divided
    by the standard deviation (authors' code) or by the variance (paper)."""

    def check_pixels(self, facts: Facts) -> None:
        """Refuse a data set whose classes cannot all be given pixels of their own.

        Raises:
            UserError: there is one class, or the classes need more pairs of position and colour
                than the images have.
        """
        name, k, (c, h, w) = self.info.name, facts.n_classes, facts.shape
        check_classes(name, facts)
        pairs, needed = h * w * 2**c, self.sparsity * k
        if needed > pairs:
            raise UserError(
                f"{name}: {k} classes with {self.sparsity} pixels each need {needed:,} pairs of "
                f"position and colour, but images of {h}x{w} pixels with {c} channels have only "
                f"{pairs:,}; lower sparsity, or use fewer classes or larger images"
            )


def find_shortcuts(data: Split, sparsity: int, score: str) -> Shortcuts:
    """Return the pairs of position and colour with the highest scores, class after class.

    The distance of a pixel to a colour is taken per channel, and a score is the mean of these
    distances over the images of the class and the channels, divided by their spread. A pair that
    an earlier class uses is not taken again. Of equal scores the last wins, ordered by position and
    then by colour, black first.
    """
    c = data.shape[0]
    device = data.device
    palette = torch.tensor(list(itertools.product((0.0, 1.0), repeat=c)), device=device)
    scores = torch.stack([_scores(data, label, palette, score) for label in range(data.n_classes)])
    positions = torch.full((data.n_classes, sparsity), -1, device=device)
    colors = torch.zeros(data.n_classes, sparsity, c, device=device)
    used = torch.zeros_like(scores[0], dtype=torch.bool)
    for label, size in enumerate(data.class_sizes):
        if not size:
            continue
        free = scores[label].masked_fill(used, -1.0)
        best = free.argsort(stable=True)[-sparsity:].flip(0)
        used[best] = True
        positions[label], colors[label] = best // len(palette), palette[best % len(palette)]
    return Shortcuts(positions, colors)


def _scores(
    data: Split, label: int, palette: Float[Tensor, "p c"], score: str
) -> Float[Tensor, " pairs"]:
    """Return the scores of one class, ordered by position and then by colour.

    All of them follow from the mean and the mean square of each value over the images: the distance
    to 0 is x and to 1 is 1 - x, whose square has the mean 1 - 2 E[x] + E[x^2].
    """
    c, h, w = data.shape
    rows = (data.labels == label).nonzero().squeeze(1)
    total = torch.zeros(c, h * w, dtype=torch.float64, device=data.device)
    squares = torch.zeros_like(total)
    for part in rows.split(SUMMED):
        values = data.take(part).view(-1, c, h * w)
        total += values.sum(0)  # integers, so exact
        squares += values.float().square_().sum(0)  # below 2^24, so exact
    mean = total / (255 * max(1, len(rows)))
    square = squares / (255**2 * max(1, len(rows)))
    one = palette.double().unsqueeze(-1)  # [p, c, 1]
    distance = (one + (1 - 2 * one) * mean).mean(1)
    second = (one * (1 - 2 * mean) + square).mean(1)
    spread = (second - distance.square()).clamp_min_(0)
    if score == "mean/sd":
        spread = spread.sqrt_()
    return (distance / (spread + SMALLEST_SPREAD)).T.flatten()


def painted(
    data: Split, shortcuts: Shortcuts
) -> Iterator[tuple[Int[Tensor, " m"], int, int, Float[Tensor, " c"]]]:
    """Yield images of one class, row and column of a pixel of theirs, and its colour.

    A later one replaces an earlier one at the same position.
    """
    width = data.shape[2]
    for label, size in enumerate(data.class_sizes):
        if not size:
            continue
        rows = (data.labels == label).nonzero().squeeze(1)
        positions = shortcuts.positions[label].tolist()
        for position, color in zip(positions, shortcuts.colors[label], strict=True):
            yield rows, *divmod(position, width), color


def paint(data: Split, delta: Float[Tensor, "n c h w"], shortcuts: Shortcuts) -> None:
    """Change `delta` in place so that x + delta has the pixels of each image's class."""
    for rows, y, x, color in painted(data, shortcuts):
        before = data.images[rows.to(data.images.device), :, y, x].to(delta.device)
        delta[rows.to(delta.device), :, y, x] = color.to(delta.device) - before / 255
