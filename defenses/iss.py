"""ISS, image shortcut squeezing: the training images are compressed before training.

Source: Liu et al., "Image Shortcut Squeezing", ICML 2023, arXiv:2301.13838. The squeeze is fixed
and comes before crop and flip; test images stay as they are.
"""

from __future__ import annotations

import io
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field
from torch import Tensor

from uebench import Defense, Run, Split, defense

Mode = Literal["jpeg", "gray", "bdr", "gray+jpeg", "bdr+jpeg", "bdr+gray", "bdr+gray+jpeg"]


@defense("iss", title="ISS", source="arXiv:2301.13838")
class ImageShortcutSqueezing(Defense):
    """JPEG, grayscale or fewer bits, once for each training image."""

    keep_prepared: ClassVar[bool] = True
    mode: Mode = "jpeg"
    """What squeezes; where several, in the order bdr, gray, jpeg."""
    quality: Annotated[int, Field(ge=1, le=95)] = 10
    """Pillow's JPEG quality."""
    bits: Annotated[int, Field(ge=1, le=8)] = 2
    """Bits a channel that bdr keeps."""

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the squeezed training set."""
        images = data.images
        modes = self.mode.split("+")
        if "bdr" in modes:
            images = fewer_bits(images, self.bits)
        if "gray" in modes:
            images = grayscale(images)
        if "jpeg" in modes:
            images = jpeg(images.cpu(), self.quality).to(data.device)
        return data.with_images(images)


def fewer_bits(images: UInt8[Tensor, "n c h w"], bits: int) -> UInt8[Tensor, "n c h w"]:
    """Return each value rounded to one of 2^bits evenly spaced levels, 0 and 255 among them."""
    levels = 2**bits - 1
    table = (torch.arange(256) / 255 * levels).round() / levels * 255
    squeezed: Tensor = table.round().to(torch.uint8).to(images.device)[images.long()]
    return squeezed


def grayscale(images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Return the luma (ITU-R 601) in every channel; images of one channel stay as they are."""
    if images.shape[1] != 3:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    luma = (images.float() * weights).sum(1, keepdim=True)
    return luma.round_().clamp_(0, 255).to(torch.uint8).expand_as(images).contiguous()


def jpeg(images: UInt8[Tensor, "n c h w"], quality: int) -> UInt8[Tensor, "n c h w"]:
    """Return each image as Pillow gives it back after JPEG at this quality, one by one."""
    out = np.empty((len(images), *images.shape[2:], images.shape[1]), dtype=np.uint8)
    for i, image in enumerate(images.permute(0, 2, 3, 1).contiguous().numpy()):
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            buffer, "JPEG", quality=quality
        )
        decoded = np.asarray(Image.open(buffer))
        out[i] = decoded.reshape(out[i].shape)
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()
