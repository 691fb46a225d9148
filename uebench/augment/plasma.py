"""Plasma brightness and contrast: smooth random maps that lighten, darken or stretch an image.

Source: kornia's RandomPlasmaBrightness and RandomPlasmaContrast (0.6.10 and 0.9.0); rewritten.
Departs from it: maps are made only for the images that drew them, and those of both operations
together. The maps themselves, and how the two behaviours differ: `diamond_square.py`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .color import Kornia, clip_unit
from .diamond_square import scaled_maps

__all__ = ["plasma_brightness", "plasma_contrast"]

Range = tuple[float, float]


class Order(NamedTuple):
    """An order of a batch in which the images of each plasma operation lie side by side."""

    images: Int[Tensor, " b"]
    """Index, on the CPU, of the image at each place: brightness alone, both, contrast, neither."""
    bright: slice
    """The places of the images whose brightness is changed."""
    stretched: slice
    """The places of the images whose contrast is changed."""


def order_by_operation(bright: Bool[Tensor, " b"], stretched: Bool[Tensor, " b"]) -> Order:
    """Return the order for two masks on the CPU."""
    key = torch.where(bright, stretched.int(), 3 - stretched.int())
    n_bright, n_stretched = int(bright.sum()), int(stretched.sum())
    start = n_bright - int((bright & stretched).sum())
    places = slice(0, n_bright), slice(start, start + n_stretched)
    return Order(key.argsort(stable=True), *places)


def change_sorted(
    images: Float[Tensor, "b c h w"],
    order: Order,
    rng: torch.Generator,
    roughness: Range,
    intensity: Range,
    kornia: Kornia,
) -> None:
    """Change brightness and then contrast, in place, of images that lie in the given order."""
    _, c, h, w = images.shape
    bright, stretched = images[order.bright], images[order.stretched]
    n_bright = len(bright)
    n = n_bright + len(stretched)
    rough, strength = torch.rand(2, n, generator=rng, device=images.device)
    rough = roughness[0] + (roughness[1] - roughness[0]) * rough
    strength = intensity[0] + (intensity[1] - intensity[0]) * strength
    # Brightness adds 2 * strength * m - strength, contrast multiplies by 4 m.
    gain, shift = 2 * strength, -strength
    gain[n_bright:] = 4
    shift[n_bright:] = 0
    rough, gain, shift = torch.stack([rough, gain, shift]).repeat_interleave(c, 1)
    maps = scaled_maps(h, w, rough, gain, shift, rng, kornia).to(images.dtype).view(n, c, h, w)
    clip_unit(bright.add_(maps[:n_bright]))
    clip_unit(stretched.sub_(0.5).mul_(maps[n_bright:]).add_(0.5))


def plasma_brightness(
    images: Float[Tensor, "b c h w"],
    rng: torch.Generator,
    p: float = 0.5,
    roughness: Range = (0.1, 0.7),
    intensity: Range = (0.0, 1.0),
    kornia: Kornia = "0.6",
) -> Float[Tensor, "b c h w"]:
    """Return `x + intensity * (2 m - 1)`, clipped to [0, 1], for a share `p` of the images.

    Every channel has a map m of its own; roughness and intensity are drawn once per image.
    """
    bright = _toss(images, p, rng)
    order = order_by_operation(bright, torch.zeros_like(bright))
    return _change(images, order, rng, roughness, intensity, kornia)


def plasma_contrast(
    images: Float[Tensor, "b c h w"],
    rng: torch.Generator,
    p: float = 0.5,
    roughness: Range = (0.1, 0.7),
    kornia: Kornia = "0.6",
) -> Float[Tensor, "b c h w"]:
    """Return `(x - 0.5) * 4 m + 0.5`, clipped to [0, 1], for a share `p` of the images.

    Every channel has a map m of its own; the roughness is drawn once per image.
    """
    stretched = _toss(images, p, rng)
    order = order_by_operation(torch.zeros_like(stretched), stretched)
    return _change(images, order, rng, roughness, (0.0, 1.0), kornia)


def _toss(images: Tensor, p: float, rng: torch.Generator) -> Tensor:
    """Return a mask, on the CPU, of a random share `p` of the images."""
    return (torch.rand(len(images), generator=rng, device=images.device) < p).cpu()


def _change(
    images: Tensor,
    order: Order,
    rng: torch.Generator,
    roughness: Range,
    intensity: Range,
    kornia: Kornia,
) -> Tensor:
    """Return the images, in their own order, with brightness and contrast changed."""
    out = images.index_select(0, order.images.to(images.device))
    change_sorted(out, order, rng, roughness, intensity, kornia)
    return out.index_select(0, order.images.argsort().to(images.device))
