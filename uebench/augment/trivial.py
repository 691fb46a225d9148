"""TrivialAugment as kornia has it: one of 12 operations, of a random strength.

Source: kornia's `auto.TrivialAugment` (0.6.10 and 0.9.0) after Mueller and Hutter, ICCV 2021;
rewritten. It has no identity and no colour operation, unlike the paper's.
Departs from it: kornia draws one operation for a whole batch (`draw="batch"`); the default is one
for every image, as UEraser describes it. Each operation then runs once, on the images that drew it,
and the five that move pixels are a single one.

The two behaviours. 0.9: rotation, shear and translation have either sign, up to 30 degrees, 54
degrees and half the side. 0.6: its policy left out the step that maps a magnitude, so there is one
sign only, 0 to +30 degrees and 0 to +0.5 of the side, and a shear of 0 to 0.3 *degrees*, which is
nothing.
"""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import color
from .affine import warp
from .color import Kornia
from .grouped import apply_grouped

__all__ = ["OPERATIONS", "Draw", "trivial_augment"]

Draw = Literal["image", "batch"]
"""Whether every image draws its own operation, or the batch draws one for all."""

OPERATIONS = (
    "auto_contrast",
    "equalize",
    "posterize",
    "solarize",
    "contrast",
    "brightness",
    "sharpness",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""Names by number. The five that move pixels come last, so that their images lie side by side."""

_N_COLOR = 7
_MOVES = torch.arange(len(OPERATIONS) - _N_COLOR)
_COLOR_BOUNDS = [(0, 0), (0, 0), (0, 4), (0, 1), (0.1, 1.9), (0.1, 1.9), (0.1, 1.9)]
_BOUNDS: dict[Kornia, Tensor] = {
    "0.6": torch.tensor([*_COLOR_BOUNDS, (0, 30), (0, 0.3), (0, 0.3), (0, 0.5), (0, 0.5)]),
    "0.9": torch.tensor(
        [*_COLOR_BOUNDS, (-30, 30), (-54, 54), (-54, 54), (-0.5, 0.5), (-0.5, 0.5)]
    ),
}
"""Bounds of each operation's strength, which is uniform between them."""


def trivial_augment(
    images: Float[Tensor, "b c h w"],
    rng: torch.Generator,
    kornia: Kornia = "0.6",
    draw: Draw = "image",
) -> Float[Tensor, "b c h w"]:
    """Return the images, each changed by one random operation of random strength.

    Args:
        images: in [0, 1].
        rng: source of the draws, on the images' device.
        kornia: whose operations and strengths.
        draw: "image" draws an operation for every image, "batch" one for all; the strength is
            drawn for every image in both.
    """
    operation = draw_operations(len(images), rng, draw).cpu()
    strength = draw_strengths(operation, rng, images.device, kornia)
    return apply_strengths(images, operation, strength, kornia)


def draw_operations(b: int, rng: torch.Generator, draw: Draw) -> Int[Tensor, " b"]:
    """Return the number of the operation that each of `b` images gets."""
    n = b if draw == "image" else 1
    drawn = torch.randint(len(OPERATIONS), (n,), generator=rng, device=rng.device)
    return drawn.expand(b)


def draw_strengths(
    operation: Int[Tensor, " b"], rng: torch.Generator, device: torch.device, kornia: Kornia
) -> Float[Tensor, " b"]:
    """Return a random strength on `device` for each of the given operations (on the CPU)."""
    bounds = _BOUNDS[kornia].index_select(0, operation).to(device, non_blocking=True)
    low, high = bounds.unbind(1)
    return low + (high - low) * torch.rand(len(operation), generator=rng, device=device)


def apply_strengths(
    images: Float[Tensor, "b c h w"],
    operation: Int[Tensor, " b"],
    strength: Float[Tensor, " b"],
    kornia: Kornia = "0.6",
) -> Float[Tensor, "b c h w"]:
    """Return the images after the given operations (on the CPU) of the given strengths."""
    cpu_order = operation.argsort(stable=True)
    order = cpu_order.to(images.device, non_blocking=True)
    done = apply_sorted(
        images.index_select(0, order),
        operation[cpu_order],
        strength.index_select(0, order),
        kornia,
    )
    return done.index_select(0, order.argsort())


def apply_sorted(
    images: Float[Tensor, "b c h w"],
    operation: Int[Tensor, " b"],
    strength: Float[Tensor, " b"],
    kornia: Kornia,
) -> Float[Tensor, "b c h w"]:
    """Return images that lie in the order of their operations (on the CPU) after these."""
    changes = [partial(_change_colors, number, kornia) for number in range(_N_COLOR)]
    return apply_grouped(images, operation, strength, changes, partial(_move_pixels, kornia))


def _change_colors(number: int, kornia: Kornia, images: Tensor, strength: Tensor) -> Tensor:
    """Return the images after one of the seven operations that leave pixels in their places."""
    match OPERATIONS[number]:
        case "auto_contrast":
            return color.auto_contrast(images)
        case "equalize":
            return color.equalize(images, kornia)
        case "posterize":
            return color.posterize(images, strength.round().long())
        case "solarize":
            return color.solarize(images, strength)
        case "contrast":
            return color.contrast(images, strength)
        case "brightness":
            return color.brightness(images, strength)
        case _:
            return color.sharpness(images, strength)


def _move_pixels(kornia: Kornia, images: Tensor, number: Tensor, strength: Tensor) -> Tensor:
    """Return the images after the operations `number`, counted from the first that moves pixels."""
    moves = strength[:, None] * (number[:, None] == _MOVES.to(images.device))
    return warp(images, moves, kornia)
