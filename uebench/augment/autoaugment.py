"""AutoAugment, RandAugment and TrivialAugment (Wide), with separate draws for every image.

Sources: Cubuk et al., arXiv:1805.09501 (the 25 sub-policies for CIFAR-10, its table 7); Cubuk et
al., arXiv:1909.13719; Mueller and Hutter, arXiv:2103.10158. Ranges of the magnitudes, the nearest
pixel in geometric operations and black outside are torchvision's (`transforms.v2`, 0.29).
Departs from it: torchvision draws once for a whole batch. See `pillow.py` for the operations.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..common.errors import UserError
from . import color, pillow
from .affine import warp_pixels
from .grouped import apply_grouped

__all__ = ["CIFAR10_POLICY", "auto_augment", "rand_augment", "trivial_augment_wide"]

_BY_COLOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda x, _: x,
    "auto_contrast": lambda x, _: pillow.stretch(x),
    "equalize": lambda x, _: color.equalize(x, "pillow"),
    "invert": lambda x, _: pillow.invert(x),
    "posterize": lambda x, bits: color.posterize(x, bits.long()),
    "solarize": color.solarize,
    "brightness": lambda x, m: pillow.adjust_brightness(x, 1 + m),
    "color": lambda x, m: pillow.adjust_saturation(x, 1 + m),
    "contrast": lambda x, m: pillow.adjust_contrast(x, 1 + m),
    "sharpness": lambda x, m: color.sharpness(x, 1 + m),
}
"""Images and magnitude to images, for the operations that leave pixels in their places."""

_MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
POLICY_OPERATIONS = (*_BY_COLOR, *_MOVES)
"""Names by number. Those that move pixels come last, so that their images lie side by side."""

_NUMBER = {name: number for number, name in enumerate(POLICY_OPERATIONS)}
_CHOICES = torch.tensor([n for name, n in _NUMBER.items() if name != "invert"])
"""What RandAugment and TrivialAugment (Wide) draw from: 14 operations, the identity included."""


class Ranges(NamedTuple):
    """The largest magnitude of each operation, reached in the last of `bins` even steps."""

    bins: int
    shear: float
    shift: float
    """Translation: a share of the side, or pixels where above 1."""
    degrees: float
    enhance: float
    """Distance of the factor of brightness, color, contrast and sharpness from 1."""
    bits: float
    """Bits that posterize takes away."""

    def table(self, h: int, w: int) -> Float[Tensor, "operations bins"]:
        """Return every operation's magnitude in every bin, unsigned."""
        side = (1, 1) if self.shift > 1 else (w, h)
        ends = {
            **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), self.enhance),
            **dict.fromkeys(("shear_x", "shear_y"), self.shear),
            **{"translate_x": self.shift * side[0], "translate_y": self.shift * side[1]},
            "rotate": self.degrees,
        }
        ramp = torch.linspace(0, 1, self.bins)
        rows = [ends.get(name, 0.0) * ramp for name in POLICY_OPERATIONS]
        rows[_NUMBER["posterize"]] = (8 - self.bits * ramp).round()
        rows[_NUMBER["solarize"]] = 1 - ramp
        return torch.stack(rows)


_SIGNED = torch.tensor(
    [
        name in ("brightness", "color", "contrast", "sharpness", *_MOVES)
        for name in POLICY_OPERATIONS
    ]
)
AUTO = Ranges(bins=10, shear=0.3, shift=150 / 331, degrees=30, enhance=0.9, bits=4)
RAND = AUTO._replace(bins=31)
WIDE = Ranges(bins=31, shear=0.99, shift=32, degrees=135, enhance=0.99, bits=6)

_Step = tuple[str, float, int]
CIFAR10_POLICY: tuple[tuple[_Step, _Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)
"""Two operations each, with probability and bin; the bin of one without magnitude says nothing."""


def auto_augment(
    images: Float[Tensor, "b c h w"], rng: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Return each image after one of the 25 sub-policies for CIFAR-10; gradients pass.

    Args:
        images: in [0, 1], of any size; translations are shares of it.
        rng: source of the draws, on the images' device.
    """
    b, device = len(images), images.device
    operations, chances, bins = (part.to(device) for part in _policy())
    drawn = torch.randint(len(CIFAR10_POLICY), (b,), generator=rng, device=device)
    coin = torch.rand(2, b, generator=rng, device=device) < chances[:, drawn]
    operation = torch.where(coin, operations[:, drawn], 0)
    return _in_turn(images, operation, bins[:, drawn], AUTO, rng)


def rand_augment(
    images: Float[Tensor, "b c h w"], rng: torch.Generator, n: int = 2, magnitude: int = 9
) -> Float[Tensor, "b c h w"]:
    """Return each image after `n` random operations of one magnitude; gradients pass.

    Args:
        images: in [0, 1].
        rng: source of the draws, on the images' device.
        n: number of operations, 0 or more.
        magnitude: from 0 to 30.

    Raises:
        ValueError: `n` or `magnitude` is out of range.
    """
    if n < 0:
        raise UserError(f"n must be 0 operations or more, got {n}; the paper takes 2")
    if not 0 <= magnitude < RAND.bins:
        raise UserError(f"magnitude must lie in [0, {RAND.bins - 1}], got {magnitude}; try 9")
    operation = _draw_choices((n, len(images)), rng)
    return _in_turn(images, operation, torch.full_like(operation, magnitude), RAND, rng)


def trivial_augment_wide(
    images: Float[Tensor, "b c h w"], rng: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Return each image after one of 14 operations of a random magnitude; gradients pass.

    Args:
        images: in [0, 1]. Translations are of up to 32 pixels whatever their size.
        rng: source of the draws, on the images' device.
    """
    operation = _draw_choices((1, len(images)), rng)
    bins = torch.randint(WIDE.bins, operation.shape, generator=rng, device=rng.device)
    return _in_turn(images, operation, bins, WIDE, rng)


def _draw_choices(shape: tuple[int, int], rng: torch.Generator) -> Tensor:
    drawn = torch.randint(len(_CHOICES), shape, generator=rng, device=rng.device)
    return _CHOICES.to(rng.device)[drawn]


@lru_cache
def _policy() -> tuple[Tensor, Tensor, Tensor]:
    """Return operations, probabilities and bins of the sub-policies, each [2, 25]."""
    steps = list(zip(*CIFAR10_POLICY, strict=True))
    return (
        torch.tensor([[_NUMBER[name] for name, _, _ in step] for step in steps]),
        torch.tensor([[chance for _, chance, _ in step] for step in steps]),
        torch.tensor([[number for _, _, number in step] for step in steps]),
    )


def _in_turn(
    images: Tensor,
    operation: Int[Tensor, "n b"],
    bins: Int[Tensor, "n b"],
    ranges: Ranges,
    rng: torch.Generator,
) -> Tensor:
    """Return the images after their operations in turn, with random signs; never the input."""
    device, (h, w) = images.device, images.shape[2:]
    negative = torch.rand(operation.shape, generator=rng, device=device) < 0.5
    magnitude = ranges.table(h, w).to(device)[operation, bins]
    magnitude = torch.where(negative & _SIGNED.to(device)[operation], -magnitude, magnitude)
    if not len(operation):
        return images.clone()
    for numbers, sizes in zip(operation.cpu(), magnitude, strict=True):
        images = apply_operations(images, numbers, sizes)
    return images


def apply_operations(
    images: Float[Tensor, "b c h w"],
    operation: Int[Tensor, " b"],
    magnitude: Float[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """Return the images after the given operations (numbers, on the CPU) of given magnitudes."""
    order = operation.argsort(stable=True)
    place = order.to(images.device, non_blocking=True)
    done = apply_grouped(
        images.index_select(0, place),
        operation[order],
        magnitude.index_select(0, place),
        [_BY_COLOR[name] for name in _BY_COLOR],
        _move_pixels,
    )
    return done.index_select(0, place.argsort())


def _move_pixels(images: Tensor, number: Tensor, magnitude: Tensor) -> Tensor:
    """Return the images after the operations `number`, counted from the first of `_MOVES`."""
    h, w = images.shape[2:]
    lean_x, lean_y, right, down, turn = (magnitude * (number == i) for i in range(len(_MOVES)))
    cos, sin = torch.deg2rad(turn).cos(), torch.deg2rad(turn).sin()
    # A shear keeps the upper or the left edge in place, half a side from the middle.
    x = torch.stack([cos, lean_x - sin, lean_x * (h / 2) - right.trunc()], 1)
    y = torch.stack([lean_y + sin, cos, lean_y * (w / 2) - down.trunc()], 1)
    return warp_pixels(images, torch.stack([x, y], 1))
