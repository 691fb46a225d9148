"""The augmentation of contrastive learning, scaled by a strength and with gradients.

Source: Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020, arXiv:2002.05709,
with the strength of Wang et al., "Efficient Availability Attacks against Supervised and Contrastive
Learning Simultaneously", NeurIPS 2024, arXiv:2402.04010.
Departs from it: brightness, contrast, saturation and hue are changed in this order, not in a random
one. The proportions of a crop are those of the image times at most 4/3 or 3/4, and less where the
crop would not fit into the image; so strength 0 returns the image as it is.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.errors import UserError
from .affine import interpolated
from .color import clip_unit, per_image

__all__ = ["contrastive"]

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance of ITU-R BT.601."""


def contrastive(
    images: Float[Tensor, "b c h w"],
    rng: torch.Generator,
    strength: float = 1.0,
    *,
    crop: float | None = None,
    mirror: bool = True,
) -> Float[Tensor, "b c h w"]:
    """Return each image cropped, mirrored and recoloured at random; gradients pass.

    At strength s the crop keeps a share U(1 - 0.9 s, 1) of the area and is resized to the image's
    size. The image is mirrored with probability 1/2. With probability 0.8 s, brightness, contrast
    and saturation are multiplied by U(1 - 0.4 s, 1 + 0.4 s) and the hue is turned by up to a share
    0.1 s of the circle; with probability 0.2 s the image becomes gray. Images that do not have
    three channels keep saturation and hue.

    Args:
        images: in [0, 1].
        rng: source of the draws, on the images' device.
        strength: s in [0, 1]; 0 only mirrors, and 1 is SimCLR's usual strength.
        crop: the smallest share of the area that a crop keeps; by default 1 - 0.9 s.
        mirror: whether images are mirrored, which digits must not be.

    Raises:
        ValueError: `strength` is out of range.
    """
    if not 0 <= strength <= 1:
        raise UserError(f"strength must lie in [0, 1], got {strength:g}; 1 is SimCLR's")
    cut = 0.9 * strength if crop is None else 1 - crop
    with torch.autocast(images.device.type, enabled=False):
        return _recolored(_resized_crop(images, rng, cut, mirror), rng, strength)


def _resized_crop(images: Tensor, rng: torch.Generator, cut: float, mirror: bool) -> Tensor:
    """Return a random part of each image, resized to the whole, in half of the cases mirrored.

    `cut` is the largest share of the area that is cut off; `mirror` is whether images are mirrored.
    """
    b, _, h, w = images.shape
    device = images.device
    area, ratio, left, top, coin = torch.rand(5, b, generator=rng, device=device)
    area = 1 - cut * area
    # Both sides stay within the image: width² = area * ratio <= 1 and height² = area / ratio <= 1.
    widest = (-area.log()).clamp(max=math.log(4 / 3))
    ratio = ((2 * ratio - 1) * widest).exp()
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    sign = 1 - 2 * ((coin < 0.5) & mirror).float()
    places = []
    for n, share, place in ((w, wide * sign, left), (h, high, top)):
        # in shares of half an image from its middle, and then in pixels
        target = (2 * torch.arange(n, device=device) + 1) / n - 1
        middle = (2 * place - 1) * (1 - share.abs())
        source = torch.addcmul(middle[:, None], share[:, None], target)
        places.append((n * (source + 1) - 1).div_(2).clamp_(0, n - 1))
    return clip_unit(interpolated(images, *places))


def _recolored(images: Tensor, rng: torch.Generator, strength: float) -> Tensor:
    """Return the images with random brightness, contrast, saturation and hue, or gray."""
    b, c = images.shape[:2]
    draws = 2 * torch.rand(4, b, generator=rng, device=images.device) - 1
    jittered, gray = torch.rand(2, b, generator=rng, device=images.device)
    chosen = (jittered < 0.8 * strength).nonzero()[:, 0]
    changed = _jittered(images.index_select(0, chosen), draws[:, chosen], strength)
    images = images.index_copy(0, chosen, changed)
    if c != 3:
        return images
    chosen = (gray < 0.2 * strength).nonzero()[:, 0]
    luminance = clip_unit(_luminance(images.index_select(0, chosen)))
    return images.index_copy(0, chosen, luminance.expand(-1, 3, -1, -1))


def _jittered(
    images: Float[Tensor, "b c h w"], draws: Float[Tensor, "4 b"], strength: float
) -> Float[Tensor, "b c h w"]:
    """Return the images with brightness, contrast, saturation and hue changed by draws in ±1."""
    light, contrast, saturation = 1 + 0.4 * strength * draws[:3]
    images = clip_unit(images * per_image(light, images))
    mean = _luminance(images).mean((1, 2, 3), keepdim=True)
    images = clip_unit(torch.lerp(mean, images, per_image(contrast, images)))
    if images.shape[1] != 3:
        return images
    saturated = torch.lerp(_luminance(images), images, per_image(saturation, images))
    return clip_unit(_turned(clip_unit(saturated), 0.1 * strength * draws[3]))


def _luminance(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return the brightness of each pixel: the weighted mean of three channels, else the mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = torch.tensor(GRAY, dtype=images.dtype, device=images.device)
    return (images * weights.view(3, 1, 1)).sum(1, keepdim=True)


def _turned(images: Float[Tensor, "b 3 h w"], turn: Float[Tensor, " b"]) -> Tensor:
    """Return the images with the hue of each turned by a share of the circle.

    Hue h, in sixths of the circle, and value and chroma determine the pixel again: a channel is
    value - chroma * clip(min(k, 4 - k), 0, 1) with k = (n + h) mod 6 and n = 5, 3, 1 for red, green
    and blue.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    safe = torch.where(chroma > 0, chroma, 1)  # gray has no hue; any will do, as chroma is 0
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=images.dtype, device=images.device)
    k = (offsets.view(3, 1, 1) + hue[:, None] + 6 * per_image(turn, images)) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)
