"""RSK+FF: a random sharpening kernel and a frequency filter, before crop and flip.

Source: Kim and Sandoval-Segura, "Learning from Convolution-based Unlearnable Datasets",
arXiv:2411.01742. At each presentation an image is sharpened by a random 3x3 kernel without padding,
which makes 30 px of 32, and then keeps only the lowest frequencies of its cosine transform. Crop
and flip follow, and the crop fills the image up to its size again. Test images stay as they are.
The authors also rotate the images of CIFAR-100, after crop and flip: `rotation`. Published as
RSK+FF; `keep=1` is their RSK without the filter.

Measured on all of CIFAR-10 (resnet8, `sprint`, bf16; single runs, +- 1.0): clean images give 75.1,
OPS 75.1 (15.3 with standard training), CUDA 72.1 (27.4), AR 61.7 (11.2), EM 57.8 (16.1), TAP 39.7
(18.3), LSP 30.6 and PIL 25.7. Class-wise random noise, which hardly hurts standard training (82.5),
gives 47.4.

Cost: a training step of ResNet-18 takes 1.02 (0.99 to 1.03) of the time of standard training
(`benchmarks/step_costs.py --images 128`: bf16, one thread of a shared AMD EPYC, torch 2.14,
processor time, median and range of 3 rounds).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from uebench import Auto, Defense, Facts, Protocol, Run, UserError, auto, defense
from uebench.augment.affine import affine_matrix, warp_pixels

SPREAD = 0.1
"""Standard deviation of the kernel's middle and of its four neighbours."""


@defense("rsk_ff", title="RSK+FF", source="arXiv:2411.01742", family="squeeze")
class SharpenAndFilter(Defense):
    """Random sharpening, then a low-pass filter in the cosine transform."""

    center: Annotated[float, Field(ge=1, le=100)] = 2.5
    """Mean of the kernel's middle; its four neighbours share 1 minus that."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the rows and of the columns of the cosine transform that is kept; 1: all."""
    rotation: Annotated[float, Field(ge=0, le=180), Auto()] = auto()
    """Largest rotation in degrees, after crop and flip; auto: 15 on cifar100, else 0."""

    def resolve(self, facts: Facts) -> SharpenAndFilter:
        """Return the defense with its rotation, unless the images are too small for it."""
        side = min(facts.shape[1:])
        smallest = 2 + math.ceil(1 / self.keep)
        if side < smallest:
            raise UserError(
                f"rsk_ff: keep={self.keep:g} needs images of at least {smallest} px a side, these "
                f"have {side}; raise keep, or use larger images"
            )
        return self.fill_auto(rotation=15.0 if facts.dataset == "cifar100" else 0.0)

    def recipe(self) -> dict[str, Any]:
        """Return the options, and that a rotation follows the crop, which it once preceded."""
        return self.options() | ({"rotated": "after the crop"} if self.rotation else {})

    def adjust(self, protocol: Protocol) -> Protocol:
        """Ask for the padding that makes up for what the kernel takes off the image."""
        return protocol.asked(crop_padding=1)

    def before_crop(self, images: UInt8[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h1 w1"]:
        """Return the sharpened and filtered images, 2 px smaller on each axis."""
        return low_passed(sharpened(images.float() / 255, self.center, run.rng), self.keep)

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return the rotated images."""
        if not self.rotation:
            return images
        draws = torch.rand(len(images), generator=run.rng, device=images.device) * 2 - 1
        angle = draws * self.rotation * math.pi / 180
        return warp_pixels(images, affine_matrix(angle, 0 * angle, 1 + 0 * angle))


def sharpened(
    images: Float[Tensor, "b c h w"], center: float, rng: torch.Generator
) -> Float[Tensor, "b c h1 w1"]:
    """Return each image under its own kernel, without padding, clipped to [0, 1].

    The kernel's middle is drawn about `center`, its four neighbours about a quarter of 1 minus
    that, and its corners are 0, so that it sums to 1 on average.
    """
    draws = torch.randn(5, len(images), 1, 1, 1, generator=rng, device=images.device) * SPREAD
    middle = center + draws[0]
    neighbours = draws[1:] - (middle - 1) / 4
    up, down = images[..., :-2, 1:-1], images[..., 2:, 1:-1]
    left, right = images[..., 1:-1, :-2], images[..., 1:-1, 2:]
    total = middle * images[..., 1:-1, 1:-1]
    for weight, neighbour in zip(neighbours, (up, down, left, right), strict=True):
        total = total.addcmul(weight, neighbour)
    return total.clamp(0, 1)


def low_passed(images: Float[Tensor, "b c h w"], keep: float) -> Float[Tensor, "b c h w"]:
    """Return the images without the upper frequencies of their cosine transform, in [0, 1]."""
    rows, columns = (_filter(n, keep).to(images) for n in images.shape[2:])
    with torch.autocast(images.device.type, enabled=False):
        return (rows @ images @ columns).clamp(0, 1)


def _filter(n: int, keep: float) -> Float[Tensor, "n n"]:
    """Return the matrix that leaves the floor(keep * n) lowest frequencies of n samples.

    With the orthonormal cosine transform D it is D' D over the rows of D that are kept: transform,
    selection and inverse in one product.
    """
    n_kept = max(1, math.floor(keep * n + 1e-9))
    place = torch.arange(n, dtype=torch.float64)
    frequency = torch.arange(n_kept, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / n * (place + 0.5) * frequency) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return (basis.T @ basis).float()
