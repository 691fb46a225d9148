"""Rotation, shear and translation of a batch in one `grid_sample`, with a matrix for every image.

Moves and crops along the axes alone are products of matrices (`interpolated`).

Source: the definitions of kornia's RandomRotation, RandomShear and RandomTranslate (0.6.10 and
0.9.0): bilinear, black outside, about the image's middle; rewritten.
Departs from it: along an axis of one pixel nothing moves (kornia 0.6 returns black).

The two behaviours differ in shear and translation: 0.6 samples with `align_corners=False` a grid
that was made for `True`, so that a translation of t pixels is one of t * w / (w - 1), and a shear
of an image that is not square is off by a like ratio. Rotation, and all of 0.9, use `True`.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .color import Kornia, clip_unit

__all__ = [
    "affine_matrix",
    "interpolated",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "warp",
    "warp_pixels",
]

Filter = Literal["nearest", "bilinear"]
"""What a pixel between others becomes: the nearest one's copy, or their weighted mean."""

_UNITS = torch.tensor([math.pi / 180] * 3 + [1.0, 1.0])


def warp(
    images: Float[Tensor, "b c h w"], moves: Float[Tensor, "b 5"], kornia: Kornia = "0.6"
) -> Float[Tensor, "b c h w"]:
    """Return each image rotated, sheared or shifted by its row of `moves`; gradients pass.

    Args:
        images: in [0, 1].
        moves: one row per image: rotation in degrees, counter-clockwise; shear along x in degrees
            (rows below the middle move left); shear along y in degrees (columns right of the
            middle move up); shift to the right as a share of the width; shift down as a share of
            the height. Of the first three at most one is not 0: the order of several would matter.
        kornia: whose sampling.
    """
    _, _, h, w = images.shape
    device = images.device
    angle, lean_x, lean_y, right, down = (moves.float() * _UNITS.to(device)).unbind(1)
    # The matrix leads from a target pixel to its source, in coordinates that run from -1 to 1
    # between the middles of the outer pixels, hence the ratio of the sides.
    wide, high = max(w - 1, 1), max(h - 1, 1)
    ratio = shear_ratio = high / wide
    unit_x, unit_y = -2 * w / wide, -2 * h / high
    if kornia == "0.6":
        shear_ratio *= (high / h) / (wide / w)
        unit_x, unit_y = unit_x * w / wide, unit_y * h / high
    cos, sin = angle.cos(), angle.sin()
    x_from_y = lean_x.tan() * shear_ratio - sin * ratio
    y_from_x = lean_y.tan() / shear_ratio + sin / ratio
    x, y = _centred(w, 1.0, device), _centred(h, 1.0, device)
    grid = torch.empty(len(images), h, w, 2, device=device)
    # 6 times as fast as `affine_grid`, which multiplies matrices.
    torch.add(_row(cos, x), _column(x_from_y, y, unit_x * right), out=grid[..., 0])
    torch.add(_row(y_from_x, x), _column(cos, y, unit_y * down), out=grid[..., 1])
    grid = grid.to(images.dtype)
    # The four weights of a pixel sum to 1 only up to rounding.
    return clip_unit(F.grid_sample(images, grid, "bilinear", "zeros", align_corners=True))


def interpolated(
    images: Float[Tensor, "b c h w"], x: Float[Tensor, "b w"], y: Float[Tensor, "b h"]
) -> Float[Tensor, "b c h w"]:
    """Return each image resampled along its axes, bilinear, black outside; gradients pass.

    It is what `grid_sample` does with such a grid, by a product of matrices for each axis: forward
    and backward together take a fifth of the time (32 px, one thread of a CPU).

    Args:
        images: in [0, 1].
        x: the column, in pixels, that each column of the result shows.
        y: the row that each row of the result shows.
    """
    across, down = _hats(x, images), _hats(y, images)
    with torch.autocast(images.device.type, enabled=False):
        return torch.einsum("bchw,bxw,byh->bcyx", images, across, down)


def _hats(places: Float[Tensor, "b n"], images: Tensor) -> Float[Tensor, "b n n"]:
    """Return the share of each source pixel in each place between them."""
    pixels = torch.arange(places.shape[1], device=places.device)
    return (1 - (places[..., None] - pixels).abs()).clamp_(min=0).to(images.dtype)


def warp_pixels(
    images: Float[Tensor, "b c h w"],
    matrix: Float[Tensor, "b 2 3"],
    mode: Filter = "nearest",
) -> Float[Tensor, "b c h w"]:
    """Return each image resampled through its own matrix, black outside; gradients pass.

    Args:
        images: in [0, 1].
        matrix: from a target pixel (x to the right, y down, 1) to its source, both in pixels from
            the image's middle, as torchvision's `affine` has it.
        mode: what a source between pixels gives.
    """
    _, _, h, w = images.shape
    device = images.device
    x, y = _centred(w, (w - 1) / 2, device), _centred(h, (h - 1) / 2, device)
    grid = torch.empty(len(images), h, w, 2, device=device)
    for axis, side in enumerate((w, h)):
        # grid_sample's own unit: -1 and 1 are the outer edges of the outer pixels.
        from_x, from_y, shift = (matrix[:, axis].float() * (2 / side)).unbind(1)
        torch.add(_row(from_x, x), _column(from_y, y, shift), out=grid[..., axis])
    out = F.grid_sample(images, grid.to(images.dtype), mode, "zeros", align_corners=False)
    return clip_unit(out) if mode == "bilinear" else out


def affine_matrix(
    angle: Float[Tensor, " b"], shear: Float[Tensor, " b"], scale: Float[Tensor, " b"]
) -> Float[Tensor, "b 2 3"]:
    """Return the matrices that lead from target to source pixels, as torchvision's `affine`.

    Args:
        angle: rotation in radians, clockwise.
        shear: shear along x in radians.
        scale: magnification.
    """
    cos, sin, lean = angle.cos(), angle.sin(), shear.tan()
    zero = torch.zeros_like(cos)
    rows = ((cos - sin * lean, cos * lean + sin, zero), (-sin, cos, zero))
    return torch.stack([torch.stack(row, 1) for row in rows], 1) / scale.view(-1, 1, 1)


def _centred(n: int, end: float, device: torch.device) -> Tensor:
    """Return `n` even steps from -end to end; a single one is 0."""
    return torch.linspace(-end, end, n, device=device) if n > 1 else torch.zeros(1, device=device)


def _row(factor: Tensor, x: Tensor) -> Tensor:
    return torch.outer(factor, x)[:, None, :]


def _column(factor: Tensor, y: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift[:, None], factor[:, None], y)[:, :, None]


def _only(column: int, amount: Tensor) -> Tensor:
    """Return the moves in which `column` is `amount` and all else 0."""
    return F.pad(amount[:, None], (column, 4 - column))


def rotate(
    images: Float[Tensor, "b c h w"], degrees: Float[Tensor, " b"], kornia: Kornia = "0.6"
) -> Float[Tensor, "b c h w"]:
    """Return the images turned counter-clockwise about their middle by `degrees`."""
    return warp(images, _only(0, degrees), kornia)


def shear_x(
    images: Float[Tensor, "b c h w"], degrees: Float[Tensor, " b"], kornia: Kornia = "0.6"
) -> Float[Tensor, "b c h w"]:
    """Return the images sheared along x: rows below the middle move to the left."""
    return warp(images, _only(1, degrees), kornia)


def shear_y(
    images: Float[Tensor, "b c h w"], degrees: Float[Tensor, " b"], kornia: Kornia = "0.6"
) -> Float[Tensor, "b c h w"]:
    """Return the images sheared along y: columns right of the middle move up."""
    return warp(images, _only(2, degrees), kornia)


def translate_x(
    images: Float[Tensor, "b c h w"], share: Float[Tensor, " b"], kornia: Kornia = "0.6"
) -> Float[Tensor, "b c h w"]:
    """Return the images moved to the right by `share` of their width."""
    return warp(images, _only(3, share), kornia)


def translate_y(
    images: Float[Tensor, "b c h w"], share: Float[Tensor, " b"], kornia: Kornia = "0.6"
) -> Float[Tensor, "b c h w"]:
    """Return the images moved down by `share` of their height."""
    return warp(images, _only(4, share), kornia)
