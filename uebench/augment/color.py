"""Colour operations on batches, with a separate magnitude for every image.

Source: the definitions of kornia 0.9.0 (`kornia.enhance`, `kornia.augmentation`), rewritten;
they are not Pillow's (contrast scales towards black, not towards the mean grey).
Departs from it:
- `posterize`, `equalize` and `solarize` always pass the gradient straight through, as kornia 0.6
  did inside TrivialAugment and as the adaptive attack of UEraser needs; kornia 0.9 has none for the
  first two and the true one, of changing sign, for solarize.
- A pixel that lies exactly at 0 or 1 keeps its gradient; `torch.clamp` drops it (torch 2.15).
- Where an image is too small to be sharpened (less than 3 px), it stays as it is.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

__all__ = [
    "Kornia",
    "auto_contrast",
    "brightness",
    "channel_shuffle",
    "contrast",
    "equalize",
    "posterize",
    "sharpness",
    "solarize",
]

Kornia = Literal["0.6", "0.9"]
"""Whose behaviour is reproduced: kornia 0.6.10 (0.8.3 agrees) or 0.9.0."""


class _StraightThrough(torch.autograd.Function):
    """Return `result`, with the gradient of the identity in `images`."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, result: Tensor) -> Tensor:
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None]:
        return grads[0], None


def straight_through(images: Tensor, result: Tensor) -> Tensor:
    """Return `result`; to autograd it is `images` unchanged."""
    out: Tensor = _StraightThrough.apply(images, result)
    return out


class _ClipUnit(torch.autograd.Function):
    """Clip to [0, 1] in place; the gradient is 1 on the closed interval and 0 outside.

    Two masks give the same and take several times as long; `torch.clamp` and `hardtanh` drop the
    gradient at 0 and 1.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.save_for_backward(images.clone())
        ctx.mark_dirty(images)
        return images.clamp_(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (images,) = ctx.saved_tensors
        precision = torch.finfo(images.dtype)
        # hardtanh drops the gradient on its bounds too, so they are the next numbers outside.
        below, above = -precision.tiny, 1 + precision.eps
        gradient: Tensor = torch.ops.aten.hardtanh_backward(grads[0], images, below, above)
        return gradient


def clip_unit(images: Tensor) -> Tensor:
    """Clip to [0, 1] in place and return the same tensor, which nobody else may need any more.

    The gradient is 1 on the closed interval and 0 outside.
    """
    if torch.is_grad_enabled() and images.requires_grad:
        clipped: Tensor = _ClipUnit.apply(images)
        return clipped
    return images.clamp_(0, 1)


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Return one number per image in the images' dtype, shaped to broadcast over c, h and w."""
    return values.to(images.dtype).view(-1, 1, 1, 1)


def brightness(
    images: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return `x + factor - 1`, clipped to [0, 1]; factor 1 changes nothing."""
    return clip_unit(images + per_image(factor - 1, images))


def contrast(
    images: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return `x * factor`, clipped to [0, 1]; factor 1 changes nothing."""
    return clip_unit(images * per_image(factor, images))


def auto_contrast(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return each channel stretched to the range [0, 1]; a constant channel becomes 0."""
    low = images.amin((2, 3), keepdim=True)
    high = images.amax((2, 3), keepdim=True)
    return clip_unit((images - low) / (high - low + 1e-6))


def solarize(
    images: Float[Tensor, "b c h w"], threshold: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return the images with every value of at least `threshold` inverted; straight-through."""
    with torch.no_grad():
        bright = images.detach().clone().ge_(per_image(threshold, images))
        result = torch.lerp(images, 1 - images, bright)  # twice as fast as `torch.where`
    return straight_through(images, result)


def posterize(
    images: Float[Tensor, "b c h w"], bits: Int[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return the images with the `bits` highest of 8 bits kept; straight-through.

    0 bits are black; 8 leave the images as they are, without rounding to levels.
    """
    with torch.no_grad():
        step = per_image(2.0 ** (8 - bits), images)
        coarse = (images * (255 / step)).floor_().mul_(step).div_(255)
        result = coarse.lerp_(images, per_image(bits == 8, images))
    return straight_through(images, result)


def equalize(
    images: Float[Tensor, "b c h w"], kornia: Kornia | Literal["pillow"] = "0.6"
) -> Float[Tensor, "b c h w"]:
    """Return the images with each channel's histogram made even; straight-through.

    A channel whose highest level holds all but 254 pixels or fewer stays as it is. The behaviours
    differ in the counting: 0.9 counts a pixel in the level `floor(255 x)` that it will look up, 0.6
    in `floor(256 x)`, which is one level higher for half of all continuous values. "pillow" counts
    and looks up the nearest level, so that 8-bit images give what Pillow gives.
    """
    with torch.no_grad():
        b, c, h, w = images.shape
        planes = images.reshape(b * c, h * w).float() * 255
        # By way of int32, twice as fast as from float32 to int64 at once.
        level = counted = (planes + 0.5 if kornia == "pillow" else planes).int().long()
        if kornia == "0.6":
            counted = (planes * (256 / 255)).int().long().clamp_(max=255)
        counts = torch.zeros(b * c, 256, device=images.device)
        counts.scatter_add_(1, counted, torch.ones((), device=images.device).expand_as(planes))
        total = counts.cumsum(1)
        last = counted.amax(1, keepdim=True)
        step = ((h * w - counts.gather(1, last)) / 255).floor_()
        table = ((total + (step / 2).floor_()) / step.clamp(min=1)).floor_()
        table = F.pad(table[:, :-1], (1, 0)).clamp_(0, 255).div_(255)
        result = table.gather(1, level).lerp_(planes.div_(255), (step == 0).float())
    return straight_through(images, result.to(images.dtype).view_as(images))


def sharpness(
    images: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Return the images moved away from their blur: factor 0 is the blur, 1 the image, 2 twice.

    The blur is a 3x3 mean with weight 5 in the middle; the border of 1 px stays unblurred.
    """
    if min(images.shape[2:]) < 3:
        return images.clone()
    h, w = images.shape[2:]
    # Sums over rows and then along them, on rows laid end to end: longer vectors, and faster than a
    # convolution of each channel. What runs over a row's end falls on the border.
    flat = images.flatten(2)
    down = flat[..., : -2 * w] + flat[..., w:-w] + flat[..., 2 * w :]
    around = down[..., :-2] + down[..., 1:-1] + down[..., 2:]
    inner = flat[..., w + 1 : -w - 1]
    inside = torch.ones(h, w, dtype=images.dtype, device=images.device)
    inside[:, :: w - 1] = 0
    # image + (factor - 1) * (image - blur), the second part being 0 on the border.
    strength = per_image((factor - 1) * (9 / 13), images)[..., 0]
    change = torch.sub(inner, around, alpha=1 / 9) * strength
    change = F.pad(change * inside.view(-1)[w + 1 : -w - 1], (w + 1, w + 1))
    return clip_unit((flat + change).view_as(images))


def channel_shuffle(
    images: Shaped[Tensor, "b c h w"], rng: torch.Generator, p: float = 0.5
) -> Shaped[Tensor, "b c h w"]:
    """Return the images with the channels of each, with probability `p`, in a random order.

    All orders are equally likely, the unchanged one among them.
    """
    b, c, h, w = images.shape
    channels = draw_channels(b, c, rng, p)
    source = channels + c * torch.arange(b, device=images.device).view(b, 1)
    return images.reshape(b * c, h, w).index_select(0, source.view(-1)).view(b, c, h, w)


def draw_channels(b: int, c: int, rng: torch.Generator, p: float) -> Int[Tensor, "b c"]:
    """Return, for each of `b` images, which of its `c` channels comes at each place."""
    order = torch.rand(b, c, generator=rng, device=rng.device).argsort(1)
    coin = torch.rand(b, 1, generator=rng, device=rng.device) < p
    return torch.where(coin, order, torch.arange(c, device=rng.device))
