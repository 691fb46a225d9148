"""Pillow's colour operations, as torchvision defines them, with one magnitude per image.

Source: `torchvision.transforms.v2.functional` on 8-bit images (after Pillow's ImageOps and
ImageEnhance); rewritten. AutoAugment, RandAugment and TrivialAugment (Wide) are made of these;
UEraser's TrivialAugment is made of kornia's, which differ (`color.py`).
Departs from it: values stay continuous, without rounding to 8-bit levels after each step.
Posterize, solarize and sharpness are the same in both and live in `color.py`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .color import clip_unit, per_image

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_saturation",
    "invert",
    "stretch",
]

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue (torchvision's; ITU-R 601 has .299)."""


def adjust_brightness(
    images: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return `x * factor`, clipped to [0, 1]: 0 is black, 1 the image."""
    return clip_unit(images * per_image(factor, images))


def adjust_contrast(
    images: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return the images moved from their mean grey: 0 is that grey, 1 the image."""
    return _blend(_luma(images).mean((1, 2, 3), keepdim=True), images, factor)


def adjust_saturation(
    images: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return the images moved from their grey version: 0 is that, 1 the image.

    Images without three channels have no colour and stay as they are.
    """
    if images.shape[1] != 3:
        return images.clone()
    return _blend(_luma(images), images, factor)


def stretch(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return each channel stretched to the range [0, 1]; a constant channel stays as it is."""
    low = images.amin((2, 3), keepdim=True)
    span = images.amax((2, 3), keepdim=True) - low
    flat = span == 0
    return clip_unit((images - low.masked_fill(flat, 0)) / span.masked_fill(flat, 1))


def invert(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return `1 - x`."""
    return 1 - images


def _luma(images: Tensor) -> Tensor:
    """Return [b, 1, h, w]: the luma of three channels, else the channels' mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    luma: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return luma


def _blend(base: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return clip_unit(torch.lerp(base.expand_as(images), images, per_image(factor, images)))
