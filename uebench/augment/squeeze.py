"""What takes detail away from images: JPEG, grayscale, fewer bits, Gaussian blur.

Sources: Liu et al., "Image Shortcut Squeezing", arXiv:2301.13838, for the first three, as Pillow
makes them; torchvision's `gaussian_blur` for the last. 8-bit images come back as 8-bit images.
"""

import io
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from PIL import Image, JpegImagePlugin
from torch import Tensor

from ..common.errors import UserError
from .color import clip_unit, straight_through

__all__ = ["fewer_bits", "gaussian_blur", "grayscale", "jpeg"]

MAX_THREADS = 4
THREADS_FROM_PX = 64
"""Smaller sides are done in one thread: there the time goes into Python, which has one lock."""


def grayscale(images: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "n c h w"]:
    """Return the luma (ITU-R 601) in every channel; images without three channels stay.

    Takes 8-bit images, whose luma is Pillow's to the bit, or floats in [0, 1], through which
    gradients pass.
    """
    if images.shape[1] != 3:
        return images.clone()
    if images.is_floating_point():
        red, green, blue = images.split(1, 1)
        luma = clip_unit(0.299 * red + 0.587 * green + 0.114 * blue)
    else:  # Pillow's fixed-point arithmetic
        red, green, blue = images.int().split(1, 1)
        luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.to(images.dtype).expand_as(images).contiguous()


def fewer_bits(images: Shaped[Tensor, "n c h w"], bits: int) -> Shaped[Tensor, "n c h w"]:
    """Return each value cut to its first bits, as Pillow's posterize does, which darkens.

    Takes 8-bit images, or floats in [0, 1], to which it is the identity for gradients.

    Raises:
        ValueError: `bits` is not from 1 to 8.
    """
    if not 1 <= bits <= 8:
        raise UserError(f"bits must lie in [1, 8], got {bits}")
    mask = 256 - 2 ** (8 - bits)
    if images.is_floating_point():
        levels = (images.detach().double() * 255).round().to(torch.uint8)
        return straight_through(images, (levels & mask).to(images.dtype) / 255)
    cut: Tensor = images & mask
    return cut


def gaussian_blur(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """Return the images under a Gaussian kernel of `sigma` pixels; gradients pass.

    The kernel reaches 3 sigma to each side, and the image is mirrored at its borders.

    Raises:
        ValueError: `sigma` is not above 0.
    """
    if not 0 < sigma < math.inf:
        raise UserError(f"sigma must be a number of pixels above 0, got {sigma:g}")
    h, w = images.shape[2:]
    rows, columns = (_blur_matrix(n, sigma).to(images) for n in (h, w))
    # Trainers call this under autocast, which would round the products to bfloat16.
    with torch.autocast(images.device.type, enabled=False):
        return clip_unit(rows @ images @ columns.T)


def _blur_matrix(n: int, sigma: float) -> Float[Tensor, "n n"]:
    """Return the matrix that blurs `n` pixels in a row, mirrored at the ends."""
    reach = math.ceil(3 * sigma)
    offset = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
    period = max(2 * (n - 1), 1)
    source = (torch.arange(n)[:, None] + offset) % period
    source = torch.where(source >= n, period - source, source)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    return matrix.scatter_add_(1, source, (kernel / kernel.sum()).expand(n, -1)).float()


def jpeg(images: Shaped[Tensor, "n c h w"], quality: int) -> Shaped[Tensor, "n c h w"]:
    """Return each image as Pillow gives it back after JPEG at this quality, one by one.

    Takes images of 1 or 3 channels: 8-bit ones, or floats in [0, 1], which are rounded to 8 bits
    first and to which it is the identity for gradients. It works on the CPU.

    Raises:
        ValueError: `quality` is not from 1 to 95, or there are other than 1 or 3 channels.
    """
    if not 1 <= quality <= 95:
        raise UserError(f"quality must lie in [1, 95], as Pillow's does, got {quality}")
    if images.shape[1] not in (1, 3):
        raise UserError(f"JPEG takes images of 1 or 3 channels, got {images.shape[1]}")
    if images.is_floating_point():
        levels = (images.detach() * 255).round_().to(torch.uint8)
        return straight_through(images, jpeg(levels, quality).to(images.dtype) / 255)
    source = images.permute(0, 2, 3, 1).cpu().contiguous().numpy()
    out = np.empty_like(source)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    if max(images.shape[2:]) < THREADS_FROM_PX or len(source) < 2 * threads:
        _compress(source, out, quality)
    else:  # Pillow's codec lets other threads run
        parts = np.array_split(source, threads), np.array_split(out, threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_compress, *parts, [quality] * threads))
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous().to(images.device)


def _compress(source: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8], quality: int) -> None:
    """Write each image of `source` [n, h, w, c], after JPEG, to its place in `out`."""
    h, w, c = source.shape[1:]
    mode = "L" if c == 1 else "RGB"
    for image, target in zip(source, out, strict=True):
        file = io.BytesIO()
        # The readers and writers themselves: `fromarray`, `open` and `asarray` look around first,
        # which at 32 px is a third of the time.
        Image.frombuffer(mode, (w, h), image.data, "raw", mode, 0, 1).save(
            file, "JPEG", quality=quality
        )
        file.seek(0)
        decoded = JpegImagePlugin.JpegImageFile(file).tobytes()
        target[:] = np.frombuffer(decoded, np.uint8).reshape(target.shape)
