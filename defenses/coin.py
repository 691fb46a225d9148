"""COIN: every pixel of a training image is read from a random place nearby.

Source: Li et al., AAAI 2025, arXiv:2311.18403. After crop and flip, at each presentation, every
pixel draws a displacement of its own, which breaks the class-wise convolutions of CUDA. Test images
stay as they are. The authors' public code cannot run as released; this follows its operation.
Published as COIN at severity 4; the numbers that we have are second-hand: on ResNet-18 from
dune-2026, and means over architectures from coin-2023.
Departs from it: the displaced images are rounded to 8 bits, not truncated.

Measured on all of CIFAR-10 (resnet8, `sprint`, bf16; single runs, +- 1.0): clean images give 68.4,
CUDA 64.8 (27.4 with standard training), OPS 57.8 (15.3), AR 48.4 (11.2), TAP 38.9 (18.3), and LSP,
EM and PIL 26 to 30.

Cost: a training step of ResNet-18 takes 1.01 (1.00 to 1.03) of the time of standard training
(`benchmarks/step_costs.py --images 128`: bf16, one thread of a shared AMD EPYC, torch 2.14,
processor time, median and range of 3 rounds).
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Defense, Run, defense


@defense("coin", title="COIN", source="arXiv:2311.18403", family="augmentation")
class Coin(Defense):
    """Bilinear resampling at random displacements, wrapped around at the borders."""

    reach: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Largest displacement of a pixel along each axis, in pixels; the authors' severities 1 to 7
    are 0.8, 1.2, ..., 3.2."""

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return the images with displaced pixels, rounded to 8 bits."""
        b, _, h, w = images.shape
        draws = torch.rand(2, b, h, w, generator=run.rng, device=images.device)
        moved = displaced(images, *(draws.mul_(2).sub_(1).mul_(self.reach)))
        return moved.mul_(255).round_().clamp_(0, 255).div_(255)


def displaced(
    images: Float[Tensor, "b c h w"], dy: Float[Tensor, "b h w"], dx: Float[Tensor, "b h w"]
) -> Float[Tensor, "b c h w"]:
    """Return each pixel read at (row + dy, column + dx), bilinear and wrapped around."""
    b, c, h, w = images.shape
    device = images.device
    row, column = dy.floor(), dx.floor()
    below, right = (dy - row)[:, None], (dx - column)[:, None]
    top = (torch.arange(h, device=device)[:, None] + row.long()) % h
    left = (torch.arange(w, device=device) + column.long()) % w
    bottom, far = (top + 1) % h, (left + 1) % w
    flat = images.flatten(2)

    def read(y: Tensor, x: Tensor) -> Tensor:
        place = (y * w + x).flatten(1)[:, None].expand(b, c, h * w)
        return flat.gather(2, place).view(b, c, h, w)

    upper = torch.lerp(read(top, left), read(top, far), right)
    lower = torch.lerp(read(bottom, left), read(bottom, far), right)
    return torch.lerp(upper, lower, below)
