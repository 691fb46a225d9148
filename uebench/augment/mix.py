"""Cutout, mixup and cutmix, with separate draws for every image of a batch.

Sources: DeVries and Taylor, arXiv:1708.04552 (cutout); Zhang et al., arXiv:1710.09412 (mixup); Yun
et al., arXiv:1905.04899 (cutmix).
Departs from it: the authors' code draws one share, or one box, for a whole batch. `probability` is
an option of public code.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..common.errors import UserError
from .color import clip_unit, per_image

__all__ = ["Mixture", "cutmix", "cutout", "mixup"]


class Mixture(NamedTuple):
    """Images that are each mixed with another one of the batch, and how much of each is left."""

    images: Float[Tensor, "b c h w"]
    partner: Int[Tensor, " b"]
    """Place in the batch of the image that was mixed in."""
    share: Float[Tensor, " b"]
    """The image's own share of the mixture, in [0, 1]; 1 where nothing was mixed in."""


def cutout(
    images: Float[Tensor, "b c h w"], rng: torch.Generator, size: int = 16
) -> Float[Tensor, "b c h w"]:
    """Return each image with a square of `size` pixels set to 0; gradients pass outside it.

    The square's middle is uniform over the pixels, so that the borders may cut it.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise UserError(f"size must be 0 pixels or more, got {size}; the paper takes 16")
    middles = _draw_middles(images, rng)
    sizes = torch.full((len(images),), float(size), device=images.device)
    return images.masked_fill(_boxes(images, middles, sizes, sizes), 0)


def mixup(
    images: Float[Tensor, "b c h w"],
    rng: torch.Generator,
    beta: float = 1.0,
    probability: float = 1.0,
) -> Mixture:
    """Return `share * x + (1 - share) * partner`, the share drawn from Beta(beta, beta).

    Args:
        images: in [0, 1]; gradients pass to both.
        rng: source of the draws, on the images' device.
        beta: both parameters of the distribution, above 0.
        probability: share of the images that are mixed at all.

    Raises:
        ValueError: `beta` or `probability` is out of range.
    """
    partner, share = _draw_shares(images, rng, beta, probability)
    own = per_image(share, images)
    mixed = clip_unit(torch.lerp(images.index_select(0, partner), images, own))
    return Mixture(mixed, partner, share)


def cutmix(
    images: Float[Tensor, "b c h w"],
    rng: torch.Generator,
    beta: float = 1.0,
    probability: float = 1.0,
) -> Mixture:
    """Return each image with a box of another one; the shares are those of the areas.

    The box has the image's proportions and, before the borders cut it, an area of 1 - s for a
    share s drawn from Beta(beta, beta).

    Args:
        images: in [0, 1]; gradients pass to both.
        rng: source of the draws, on the images' device.
        beta: both parameters of the distribution, above 0.
        probability: share of the images that are mixed at all.

    Raises:
        ValueError: `beta` or `probability` is out of range.
    """
    h, w = images.shape[2:]
    partner, share = _draw_shares(images, rng, beta, probability)
    side = (1 - share).sqrt()
    middles = _draw_middles(images, rng)
    box = _boxes(images, middles, (side * h).floor(), (side * w).floor())
    mixed = torch.where(box, images.index_select(0, partner), images)
    return Mixture(mixed, partner, 1 - box.float().mean((1, 2, 3)))


def _draw_middles(images: Tensor, rng: torch.Generator) -> Int[Tensor, "2 b"]:
    """Return a random row and column of each image."""
    h, w = images.shape[2:]
    sides = torch.tensor([[h], [w]], device=images.device)
    drawn = torch.rand(2, len(images), generator=rng, device=images.device)
    return (drawn * sides).long().clamp_(max=sides - 1)


def _boxes(
    images: Tensor, middles: Tensor, high: Float[Tensor, " b"], wide: Float[Tensor, " b"]
) -> Bool[Tensor, "b 1 h w"]:
    """Return where each image's box lies: `high` x `wide` pixels about its middle."""
    inside = []
    for middle, size, n in zip(middles, (high, wide), images.shape[2:], strict=True):
        first = (middle - (size / 2).floor())[:, None]
        place = torch.arange(n, device=images.device)
        inside.append((place >= first) & (place < first + size[:, None]))
    rows, columns = inside
    box: Tensor = rows[:, None, :, None] & columns[:, None, None, :]
    return box


def _draw_shares(
    images: Tensor, rng: torch.Generator, beta: float, probability: float
) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
    """Return each image's partner and its own share, 1 for those that are not mixed."""
    if not beta > 0:
        raise UserError(f"beta must be above 0, got {beta:g}; the papers take 1")
    if not 0 <= probability <= 1:
        raise UserError(f"probability must lie in [0, 1], got {probability:g}")
    b, device = len(images), images.device
    partner = torch.randperm(b, generator=rng, device=device)
    gammas = torch._standard_gamma(torch.full((2, b), float(beta), device=device), generator=rng)
    # Where both are too small for a float, either end is as likely as the other.
    share = torch.nan_to_num(gammas[0] / gammas.sum(0), nan=1.0)
    coin = torch.rand(b, generator=rng, device=device) < probability
    return partner, torch.where(coin, share, 1.0)
