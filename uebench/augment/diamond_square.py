"""Plasma maps: smooth random fields, grown by the diamond-square algorithm.

Source: kornia's `contrib.diamond_square` (after Nicolaou et al., "TorMentor", 2022); rewritten.
Departs from it: kornia filters the full-size grid twice a level. Here a level touches only the
nodes it adds, in place, with the maps in the innermost dimension, so that every step is a vector
operation; the coarsest levels, of few nodes, are products with small matrices. A node has one draw,
of 16 random bits (kornia: 24), or of 8 in the last of three levels or more, whose draws weigh
`roughness^3` or less.

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
from jaxtyping import Float, Int
from torch import Tensor

from ..common.errors import UserError
from .color import Kornia

__all__ = ["plasma_maps", "scaled_maps"]

Fine = tuple[Tensor, Tensor, Tensor]
"""Draws of a level: for the middles, for the sides along rows, for those along columns."""

_DRAW_UNIT = 2**8 - 1
_FEW_NODES = 96
"""A grid of at most this many nodes is grown by matrix products."""


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
        roughness: one number in [0, 1] per map; 0 is smooth, 1 white noise.
        rng: source of the draws, on the device of `roughness`.
        kornia: whose maps; "0.6" is biased (see the file), "0.9" has mean 0.5 at every pixel.

    Raises:
        ValueError: there are not `n` numbers in `roughness`.
    """
    if roughness.shape != (n,):
        raise UserError(
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
    """Return maps times their `gain` plus their `shift`, one number of each per map."""
    n = len(roughness)
    rows, columns = _grid_side(h), _grid_side(w)
    # Without autograd's bookkeeping for views, of which there are hundreds: a tenth of the time.
    # Trainers call this under autocast, which would round the products to bfloat16.
    with torch.inference_mode(), torch.autocast(roughness.device.type, enabled=False):
        grid, fine = _draws(rows, columns, n, rng, roughness.device)
        grow(grid, roughness, kornia, fine)
        # A map is linear in its draws, so that their unit is taken out here, in the pass that
        # crops. Then a matrix is transposed: twice as fast as a strided copy of the grid.
        cropped = torch.addcmul(shift, grid[:h, :w], gain / _DRAW_UNIT).view(h * w, n)
    # The copy is an ordinary tensor again, which autograd may keep.
    return cropped.t().clone(memory_format=torch.contiguous_format).view(n, h, w)


def _grid_side(pixels: int) -> int:
    """Return the smallest 2^k + 1 that covers `pixels`, at least 3."""
    return (1 << math.ceil(math.log2(max(pixels, 3) - 1))) + 1


def _draws(
    rows: int, columns: int, n: int, rng: torch.Generator, device: torch.device
) -> tuple[Float[Tensor, "rows columns n"], Fine | None]:
    """Return a grid of uniform draws from 0 to `_DRAW_UNIT`, those of the last level apart.

    Making random bits takes longer on a CPU than most of what is computed with them, and writing
    the last level's into the grid four times as long as leaving them side by side.
    """
    if min(rows, columns) < 17:
        words = _random_words(rows * columns * n, torch.uint16, rng, device)
        return words.float().div_(257).view(rows, columns, n), None
    grid = torch.empty(rows, columns, n, device=device)
    r, c = (rows + 1) // 2, (columns + 1) // 2
    coarse = _random_words(r * c * n, torch.uint16, rng, device).float().div_(257)
    grid[::2, ::2] = coarse.view(r, c, n)
    shapes = (r - 1, c - 1, n), (r, c - 1, n), (r - 1, c, n)
    sizes = [math.prod(shape) for shape in shapes]
    parts = _random_words(sum(sizes), torch.uint8, rng, device).float().split(sizes)
    middles, across, along = (part.view(x) for part, x in zip(parts, shapes, strict=True))
    return grid, (middles, across, along)


def _random_words(n: int, dtype: torch.dtype, rng: torch.Generator, device: torch.device) -> Tensor:
    """Return `n` random whole numbers of an unsigned type, all values equally likely."""
    each = 8 // dtype.itemsize
    words = torch.empty((n + each - 1) // each, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=rng)
    return words.view(dtype)[:n]


def grow(
    grid: Float[Tensor, "rows columns n"],
    roughness: Float[Tensor, " n"],
    kornia: Kornia,
    fine: Fine | None = None,
) -> None:
    """Turn a grid of uniform draws into plasma maps, in place, from coarse to fine.

    `fine` holds the last level's draws where they are not in the grid.
    """
    rows, columns, n = grid.shape
    spacing = (min(rows, columns) - 1) // 2
    keeps = list(1 - roughness.expand(spacing.bit_length() - 1, n).cumprod(0))
    n_coarse = 0
    while (
        spacing > 1
        and ((rows - 1) * 2 // spacing + 1) * ((columns - 1) * 2 // spacing + 1) <= _FEW_NODES
    ):
        n_coarse, spacing = n_coarse + 1, spacing // 2
    _grow_coarse(grid[::spacing, ::spacing], keeps[:n_coarse], kornia)
    for keep in keeps[n_coarse:]:
        drawn = fine if spacing == 2 else None
        _set_middles(grid, spacing, keep, drawn)
        _set_sides(grid, spacing, keep, kornia, drawn)
        spacing //= 2


def _grow_coarse(grid: Tensor, keeps: list[Tensor], kornia: Kornia) -> None:
    """Set a small grid's nodes, in place: first nodes, then a level for each of `keeps`."""
    rows, columns, n = grid.shape
    order, back, first, steps = _matrices(rows, columns, len(keeps), kornia, grid.device)
    nodes = grid.reshape(rows * columns, n).index_select(0, order)
    begin = len(first)
    nodes[:begin] = first @ nodes[:begin]
    for i, matrix in enumerate(steps):
        end = begin + len(matrix)
        nodes[begin:end].lerp_(matrix @ nodes[:begin], keeps[i // 2])
        begin = end
    grid.copy_(nodes.index_select(0, back).view(rows, columns, n))


class _Matrices(NamedTuple):
    """What makes a small grid's nodes from each other, in the order in which they are made."""

    order: Int[Tensor, " nodes"]
    """Place in the grid of each node: the first ones, then each level's middles and sides."""
    back: Int[Tensor, " nodes"]
    first: Float[Tensor, "first first"]
    steps: list[Float[Tensor, "_ _"]]
    """From all nodes before to the means of the next ones: middles, sides, middles, ..."""


@lru_cache(maxsize=64)
def _matrices(
    rows: int, columns: int, n_levels: int, kornia: Kornia, device: torch.device
) -> _Matrices:
    """Return the matrices of a grid, found by growing grids that are 1 at one node."""
    with torch.inference_mode(False), torch.no_grad():
        n = rows * columns
        unit, whole = torch.eye(n), torch.ones(n)
        spacing = 2**n_levels
        grid = unit.clone().view(rows, columns, n)
        _set_first(grid[::spacing, ::spacing], kornia)
        places = torch.arange(n).view(rows, columns)
        order = places[::spacing, ::spacing].reshape(-1)
        first = grid.view(n, n)[order][:, order]
        steps = []
        for _ in range(n_levels):
            half = spacing // 2
            grid = unit.clone().view(rows, columns, n)
            _set_middles(grid, spacing, whole)
            sides = [places[::spacing, half::spacing], places[half::spacing, ::spacing]]
            for new in ([places[half::spacing, half::spacing]], sides):
                if new is sides:
                    grid = unit.clone().view(rows, columns, n)
                    _set_sides(grid, spacing, whole, kornia)
                added = torch.cat([part.reshape(-1) for part in new])
                steps.append(grid.view(n, n)[added][:, order].to(device))
                order = torch.cat([order, added])
            spacing = half
        return _Matrices(order.to(device), order.argsort().to(device), first.to(device), steps)


def _set_first(seed: Tensor, kornia: Kornia) -> None:
    """Set the first nodes, in place, from draws in `seed` [r, k, n], of which one side is 3."""
    rows, columns, n = seed.shape
    if kornia == "0.6":
        _set_legacy_seed(seed.transpose(0, 1) if rows >= columns else seed)
    else:
        whole = torch.ones(n, device=seed.device)
        _set_middles(seed, 2, whole)
        _set_sides(seed, 2, whole, kornia)


def _set_middles(grid: Tensor, spacing: int, keep: Tensor, fine: Fine | None = None) -> None:
    """Set the nodes in the middle of four of those at `spacing`."""
    half = spacing // 2
    corners = grid[::spacing, ::spacing]
    down = torch.lerp(corners[:-1], corners[1:], 0.5)
    means = torch.lerp(down[:, :-1], down[:, 1:], 0.5)
    middles = grid[half::spacing, half::spacing]
    torch.lerp(middles if fine is None else fine[0], means, keep, out=middles)


def _set_sides(
    grid: Tensor, spacing: int, keep: Tensor, kornia: Kornia, fine: Fine | None = None
) -> None:
    """Set the nodes between two of those at `spacing`, along rows and then along columns."""
    half = spacing // 2
    for axis, plane in enumerate((grid, grid.transpose(0, 1))):
        corners = plane[::spacing, ::spacing]
        middles = plane[half::spacing, half::spacing]
        sides = plane[::spacing, half::spacing]
        means = torch.lerp(corners[:, :-1], corners[:, 1:], 0.5)
        means[1:-1].lerp_(torch.lerp(middles[:-1], middles[1:], 0.5), 0.5)
        # The two borders have one middle node next to them; strides take first and last row at
        # once, and there may be one row of middles for both.
        last = len(means) - 1
        border, inner = means[::last], middles[:: max(last - 1, 1)]
        if kornia == "0.6":
            border.add_(inner).mul_(2 / 3)
        else:
            border.lerp_(inner, 1 / 3)
        drawn = sides if fine is None else fine[1] if axis == 0 else fine[2].transpose(0, 1)
        torch.lerp(drawn, means, keep, out=sides)


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
