"""Gaussian blur of every training image.

Source: a baseline of many tables. Trap: there it is often a 3x3 kernel of sigma 0.1, which is
the identity. Ours reaches 3 sigma to each side; its default of 1 px is our choice.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import defense
from uebench.augment import gaussian_blur

from ._batch import Augmented


@defense("blur", title="Gaussian blur", source="a common baseline")
class Blur(Augmented):
    """The cropped and flipped images are blurred; test images stay as they are."""

    sigma: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Width of the kernel in pixels."""

    def augment(
        self, images: Float[Tensor, "b c h w"], rng: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Return the blurred images; nothing is drawn."""
        return gaussian_blur(images, self.sigma)
