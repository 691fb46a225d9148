"""ISS, image shortcut squeezing: the training images are compressed before training.

Source: Liu et al., "Image Shortcut Squeezing", ICML 2023, arXiv:2301.13838. The squeeze is fixed
and comes before crop and flip; test images stay as they are. Published by ISS and APBench as JPEG
(`iss`), grayscale (`iss[mode=gray]`) and BDR (`iss[mode=bdr]`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from uebench import Defense, Facts, Run, Split, defense
from uebench.augment import fewer_bits, grayscale, jpeg

Mode = Literal["jpeg", "gray", "bdr", "gray+jpeg", "bdr+jpeg", "bdr+gray", "bdr+gray+jpeg"]


@defense("iss", title="ISS", source="arXiv:2301.13838", family="squeeze")
class ImageShortcutSqueezing(Defense):
    """JPEG, grayscale or fewer bits, once for each training image."""

    version: ClassVar[int] = 2
    keep_prepared: ClassVar[bool] = True
    mode: Mode = "jpeg"
    """How images are squeezed; several squeezes are applied in the order bdr, gray, jpeg."""
    quality: Annotated[int, Field(ge=1, le=95)] = 10
    """Pillow's JPEG quality."""
    bits: Annotated[int, Field(ge=1, le=8)] = 2
    """Bits per channel that bdr keeps; the others are cut off, as by Pillow's posterize."""

    def resolve(self, facts: Facts) -> ImageShortcutSqueezing:
        """Return the defense with the options that its mode does not use reset to their defaults.

        So two specs of the same computation have one key.
        """
        used = {"quality": "jpeg" in self.mode, "bits": "bdr" in self.mode}
        fields = type(self).model_fields
        idle = {name: fields[name].default for name, is_used in used.items() if not is_used}
        return self.with_options(**idle)

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the squeezed training set."""
        return data.changed(self._squeezed)

    def _squeezed(self, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
        """Return the images after each squeeze of the mode, always in the order bdr, gray, jpeg."""
        modes = self.mode.split("+")
        if "bdr" in modes:
            images = fewer_bits(images, self.bits)
        if "gray" in modes:
            images = grayscale(images)
        if "jpeg" in modes:
            images = jpeg(images, self.quality)
        return images
