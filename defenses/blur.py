"""Gaussian blur of every training image.

Source: a baseline of many tables. Trap: there it is often a 3x3 kernel of sigma 0.1, which is the
identity, such as in APBench's column, which is `blur[sigma=0.1]` here. Ours reaches 3 sigma to each
side; its default of 1 px is our choice.
"""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Defense, Run, defense
from uebench.augment import gaussian_blur


@defense("blur", title="Gaussian blur", source="a common baseline", family="squeeze")
class Blur(Defense):
    """The cropped and flipped images are blurred; test images stay as they are."""

    sigma: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Width of the kernel in pixels."""

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return the blurred images; nothing is drawn."""
        return gaussian_blur(images, self.sigma)
