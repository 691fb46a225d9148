"""Plasma maps: smooth random fields, grown by the diamond-square algorithm.

Source: kornia's `contrib.diamond_square` (after Nicolaou et al., "TorMentor", 2022); written anew.
Departs from it: kornia filters the full-size grid twice a level. Here a level touches only the
nodes it adds, in place, with the maps in the innermost dimension, so that every step is a vector
operation. A node has one draw, of 16 random bits (kornia: 24), in steps of 1/256 of an 8-bit level.

A grid has 2^k + 1 nodes a side, is grown from 3 nodes on its shorter side, and is cropped to its
upper left corner. At level k a new node becomes `(1 - s) * mean of its neighbours + s * draw` with
`s = roughness^k`: first the nodes in the middle of four, then those at the sides between two.

The two behaviours. 0.9: a border node takes the mean of its three neighbours, so every pixel has
mean 0.5 and lies in [0, 1]. 0.6 (0.6.10 to 0.8.3): the inner neighbour of a border node counts
twice in a sum still divided by 3, and the first nodes are all divided by 3. Hence, at 32x32 with
roughness U(.1, .7), a mean of .457 over all pixels, from .166 in the corner to .797, and values up
to 1.48 (kornia 0.6.10, torch 2.15, CPU, 40,000 maps, seed 0).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from uebench.augment.color import Kornia

__all__ = ["plasma_maps", "scaled_maps"]

_DRAW_UNIT = 2**16 - 1


def plasma_maps(
    n: int,
    h: int,
    w: int,
    roughness: Float[Tensor, " n"],
    rng: torch.Generator,
    kornia: Kornia = "0.6",
) -> Float[Tensor, "n h w"]:
    """Return `n` independent plasma maps of `h` x `w` pixels, on the device of `roughness`.

    Args:
        n: number of maps.
        h: height in pixels, 1 or more.
        w: width in pixels, 1 or more.
        roughness: one number in [0, 1] a map; 0 is smooth, 1 white noise.
        rng: source of the draws, on the device of `roughness`.
        kornia: whose maps; "0.6" is biased (see the file), "0.9" has mean 0.5 at every pixel.

    Raises:
        ValueError: there are not `n` numbers in `roughness`.
    """
    if roughness.shape != (n,):
        raise ValueError(
            f"roughness must hold one number for each of {n} maps, got {list(roughness.shape)}; "
            "expand it"
        )
    ones = torch.ones_like(roughness)
    return scaled_maps(h, w, roughness, ones, torch.zeros_like(ones), rng, kornia)


def scaled_maps(
    h: int,
    w: int,
    roughness: Float[Tensor, " n"],
    gain: Float[Tensor, " n"],
    shift: Float[Tensor, " n"],
    rng: torch.Generator,
    kornia: Kornia,
) -> Float[Tensor, "n h w"]:
    """Return maps times their `gain` plus their `shift`, one number a map each."""
    n = len(roughness)
    rows, columns = _grid_side(h), _grid_side(w)
    # Without autograd's bookkeeping for views, of which there are hundreds: a tenth of the time.
    with torch.inference_mode():
        grid = _draws(rows * columns * n, rng, roughness.device).view(rows, columns, n)
        grow(grid, roughness, kornia)
        # A map is linear in its draws, so that their unit is taken out here, in the pass that
        # crops. Then a matrix is transposed: twice as fast as a strided copy of the grid.
        cropped = torch.addcmul(shift, grid[:h, :w], gain / _DRAW_UNIT).view(h * w, n)
    # The copy is an ordinary tensor again, which autograd may keep.
    return cropped.t().clone(memory_format=torch.contiguous_format).view(n, h, w)


def _grid_side(pixels: int) -> int:
    """Return the smallest 2^k + 1 that covers `pixels`, at least 3."""
    return (1 << math.ceil(math.log2(max(pixels, 3) - 1))) + 1


def _draws(n: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Return `n` uniform draws from 0 to `_DRAW_UNIT`, four from each 64 random bits.

    Nearly twice as fast as `torch.rand`, which would be a third of the time of a map.
    """
    words = torch.empty((n + 3) // 4, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=rng)
    return words.view(torch.uint16)[:n].float()


def grow(
    grid: Float[Tensor, "rows columns n"], roughness: Float[Tensor, " n"], kornia: Kornia
) -> None:
    """Turn a grid of uniform draws into plasma maps, in place, from coarse to fine."""
    rows, columns, n = grid.shape
    spacing = (min(rows, columns) - 1) // 2
    if kornia == "0.6":
        seed = grid[::spacing, ::spacing]
        _set_legacy_seed(seed.transpose(0, 1) if rows >= columns else seed)
    else:
        whole = torch.ones_like(roughness)
        _set_middles(grid, 2 * spacing, whole)
        _set_sides(grid, 2 * spacing, whole, kornia)
    n_levels = spacing.bit_length() - 1
    for keep in 1 - roughness.expand(n_levels, n).cumprod(0):
        _set_middles(grid, spacing, keep)
        _set_sides(grid, spacing, keep, kornia)
        spacing //= 2


def _set_middles(grid: Tensor, spacing: int, keep: Tensor) -> None:
    """Set the nodes in the middle of four of those at `spacing`."""
    half = spacing // 2
    corners = grid[::spacing, ::spacing]
    down = torch.lerp(corners[:-1], corners[1:], 0.5)
    means = torch.lerp(down[:, :-1], down[:, 1:], 0.5)
    grid[half::spacing, half::spacing].lerp_(means, keep)


def _set_sides(grid: Tensor, spacing: int, keep: Tensor, kornia: Kornia) -> None:
    """Set the nodes between two of those at `spacing`, along rows and then along columns."""
    half = spacing // 2
    for plane in (grid, grid.transpose(0, 1)):
        corners = plane[::spacing, ::spacing]
        middles = plane[half::spacing, half::spacing]
        sides = plane[::spacing, half::spacing]
        means = torch.lerp(corners[:, :-1], corners[:, 1:], 0.5)
        means[1:-1].lerp_(torch.lerp(middles[:-1], middles[1:], 0.5), 0.5)
        # The two borders have one middle node beside them; strides take first and last row at
        # once, and there may be one row of middles for both.
        last = len(means) - 1
        border, inner = means[::last], middles[:: max(last - 1, 1)]
        if kornia == "0.6":
            border.add_(inner).mul_(2 / 3)
        else:
            border.lerp_(inner, 1 / 3)
        sides.lerp_(means, keep)


def _set_legacy_seed(seed: Tensor) -> None:
    """Make kornia 0.6's first nodes, in place, from draws in `seed` [3, k, n].

    Only corners are averaged as one would expect; every node is divided by 3 in the end, also those
    that are no sum of three, and the last end's sum takes in the wrong corner.
    """
    top, centre, bottom = seed[0], seed[1], seed[2]
    centre[1::2] = (top[:-1:2] + top[2::2] + bottom[:-1:2] + bottom[2::2]) / 4
    centre[0] = top[0] + centre[1] + bottom[0]
    centre[-1] = bottom[-1] + centre[-2] + bottom[0]
    top[1::2] = top[:-1:2] + top[2::2] + centre[1::2]
    bottom[1::2] = bottom[:-1:2] + bottom[2::2] + centre[1::2]
    seed /= 3
