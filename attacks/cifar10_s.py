"""CIFAR10-S: one-pixel shortcuts on top of error-minimizing noise.

Source: Wu et al., "One-Pixel Shortcut", ICLR 2023, arXiv:2205.12141, which combines OPS with the
noise of Huang et al., ICLR 2021, arXiv:2101.04898.
Departs from it: the noise is crafted here, sample-wise, while the authors take a released one, and
any data set will do. The pixels are chosen on the clean images, as for `ops`.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float, UInt8
from torch import Tensor

from uebench import Budget, Facts, Run, Split, attack

from ._error_minimizing import ErrorMinimizing
from ._one_pixel import OnePixelOptions, find_shortcuts, paint, painted


@attack("cifar10_s", title="CIFAR10-S", source="arXiv:2205.12141", family="error-minimizing")
class CIFAR10S(OnePixelOptions, ErrorMinimizing):
    """Error-minimizing noise of every image, and the one pixel that OPS sets."""

    version: ClassVar[int] = 4

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return no bound: `eps` bounds the noise, but not the pixel."""
        return Budget("none", None)

    def resolve(self, facts: Facts) -> CIFAR10S:
        """Return the attack with the options of the noise filled in.

        Raises:
            UserError: there are too few classes, or too many for the images' size.
        """
        self.check_pixels(facts)
        filled = super().resolve(facts)
        assert isinstance(filled, CIFAR10S)
        return filled

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return error-minimizing noise with the chosen pixels set."""
        delta = super().perturb(data, run)
        paint(data, delta, find_shortcuts(data, self.sparsity, self.score))
        return delta

    def export(self, data: Split, delta: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the 8-bit images; `legacy_export` changes the noise alone, and not the pixels."""
        images = super().export(data, delta)
        if self.legacy_export:
            shortcuts = find_shortcuts(data, self.sparsity, self.score)
            for rows, y, x, color in painted(data, shortcuts):
                images[rows.to(images.device), :, y, x] = (255 * color).to(images)
        return images
