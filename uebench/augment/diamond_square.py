"""Plasma maps: smooth random fields, grown by the diamond-square algorithm.

Source: kornia's `contrib.diamond_square` (after Nicolaou et al., "TorMentor", 2022); written anew.
Departs from it: kornia filters the full-size grid twice a level. Here a level touches only the
nodes it adds, in place, with the maps in the innermost dimension, so that every step is a vector
operation; the first levels, of few nodes, are products with small matrices, since there the cost is
the number of calls. A node has one draw, of 16 random bits (kornia: 24), in steps of 1/256 of an
8-bit level.

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
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uebench.augment.color import Kornia

__all__ = ["plasma_maps", "scaled_maps"]

_DRAW_UNIT = 2**16 - 1
_FEW_NODES = 200
"""Up to so many nodes (9x9, 9x17) a level is a matrix product; on a CPU more are slower so."""


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
    grid = _draws(rows * columns * n, rng, roughness.device).view(rows, columns, n)
    grow(grid, roughness, kornia)
    # A map is linear in its draws, so that their unit is taken out here, in the pass that crops.
    # Then a matrix is transposed: 3 times as fast as one strided copy of the cropped grid.
    cropped = torch.addcmul(shift, grid[:h, :w], gain / _DRAW_UNIT)
    return cropped.view(h * w, n).t().contiguous().view(n, h, w)


def _grid_side(pixels: int) -> int:
    """Return the smallest 2^k + 1 that covers `pixels`, at least 3."""
    return (1 << math.ceil(math.log2(max(pixels, 3) - 1))) + 1


def _draws(n: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Return `n` uniform draws from 0 to `_DRAW_UNIT`, four from each 64 random bits.

    Three times as fast as `torch.rand`, and maps are made of little else.
    """
    words = torch.empty((n + 3) // 4, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=rng)
    return words.view(torch.uint16)[:n].float()


def grow(
    grid: Float[Tensor, "rows columns n"], roughness: Float[Tensor, " n"], kornia: Kornia
) -> None:
    """Turn a grid of uniform draws into plasma maps, in place, from coarse to fine."""
    rows, columns, n = grid.shape
    first = (min(rows, columns) - 1) // 2
    keeps = (1 - roughness.expand(first.bit_length() - 1, n).cumprod(0)).unbind(0)

    start = _start(rows, columns, kornia, grid.device)
    nodes = grid.view(rows * columns, n).index_select(0, start.order)
    n_seed = len(start.seed)
    nodes[:n_seed] = start.seed @ nodes[:n_seed]
    for known, means, level in start.steps:
        nodes[known : known + len(means)].lerp_(means @ nodes[:known], keeps[level])
    coarse = grid[:: start.spacing, :: start.spacing]
    coarse.copy_(nodes.index_select(0, start.raster).view(coarse.shape))

    for level in range((first // start.spacing).bit_length() - 1, len(keeps)):
        _set_middles(grid, first >> level, keeps[level])
        _set_sides(grid, first >> level, keeps[level], kornia)


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
        ends = torch.lerp(corners[:, :-1], corners[:, 1:], 0.5)
        inside = torch.lerp(middles[:-1], middles[1:], 0.5)
        sides[1:-1].lerp_(inside.lerp_(ends[1:-1], 0.5), keep)
        # The two borders have one middle node beside them; strides take first and last row at
        # once, and there may be one row of middles for both.
        last = len(ends) - 1
        border, inner = ends[::last], middles[:: max(last - 1, 1)]
        legacy = kornia == "0.6"
        means = border.add_(inner).mul_(2 / 3) if legacy else border.lerp_(inner, 1 / 3)
        sides[::last].lerp_(means, keep)


class _Start(NamedTuple):
    """The first levels of a grid as matrices over its coarse nodes, in the order of making."""

    spacing: int
    """Between the coarse nodes, in the grid."""
    order: Tensor
    """Where the coarse nodes lie in the flat grid."""
    raster: Tensor
    """Where each coarse node, row by row, lies in that order."""
    seed: Tensor
    """Leads from the first nodes' draws to these nodes; does not depend on the roughness."""
    steps: list[tuple[int, Tensor, int]]
    """Number of nodes known, the matrix from these to the next nodes' means, and the level."""


@lru_cache(maxsize=64)
def _start(rows: int, columns: int, kornia: Kornia, device: torch.device) -> _Start:
    """Return the first levels as matrices, read off from what they do to unit vectors."""
    first = spacing = (min(rows, columns) - 1) // 2
    while spacing > 1 and _count(rows, spacing // 2) * _count(columns, spacing // 2) <= _FEW_NODES:
        spacing //= 2
    # From here on in units of the coarse grid.
    height, width = _count(rows, spacing), _count(columns, spacing)
    index = torch.arange(height * width).view(height, width)
    whole = torch.ones(1)

    def units() -> Tensor:
        return torch.eye(height * width).view(height, width, -1)

    step = first // spacing
    blocks = [index[::step, ::step].flatten()]
    grid = units()
    _set_seed(grid, step, kornia)
    seed = grid.view(height * width, -1)[blocks[0]][:, blocks[0]]
    steps = []
    for level in range(step.bit_length() - 1):
        gap, half = step >> level, step >> (level + 1)
        middles = index[half::gap, half::gap].flatten()
        sides = [index[::gap, half::gap].flatten(), index[half::gap, ::gap].flatten()]
        for kind, block in enumerate((middles, torch.cat(sides))):
            grid = units()
            if kind == 0:
                _set_middles(grid, gap, whole)
            else:
                _set_sides(grid, gap, whole, kornia)
            known = torch.cat(blocks)
            means = grid.view(height * width, -1)[block][:, known]
            steps.append((len(known), means.to(device), level))
            blocks.append(block)
    made = torch.cat(blocks)
    order = (made // width) * spacing * columns + (made % width) * spacing
    return _Start(spacing, order.to(device), made.argsort().to(device), seed.to(device), steps)


def _count(nodes: int, spacing: int) -> int:
    """Return how many of `nodes` in a row are left at a larger spacing."""
    return (nodes - 1) // spacing + 1


def _set_seed(grid: Tensor, spacing: int, kornia: Kornia) -> None:
    """Set the first nodes, three on the shorter side, from the draws at them, in place."""
    rows, columns, _ = grid.shape
    if kornia == "0.6":
        seed = grid[::spacing, ::spacing]
        _set_legacy_seed(seed.transpose(0, 1) if rows >= columns else seed)
    else:
        _set_middles(grid, 2 * spacing, torch.ones(1))
        _set_sides(grid, 2 * spacing, torch.ones(1), kornia)


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
