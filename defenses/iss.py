"""ISS, image shortcut squeezing: the training images are compressed before training.

Source: Liu et al., "Image Shortcut Squeezing", ICML 2023, arXiv:2301.13838. The squeeze is fixed
and comes before crop and flip; test images stay as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from uebench import Defense, Facts, Run, Split, defense
from uebench.augment import fewer_bits, grayscale, jpeg

Mode = Literal["jpeg", "gray", "bdr", "gray+jpeg", "bdr+jpeg", "bdr+gray", "bdr+gray+jpeg"]


@defense("iss", title="ISS", source="arXiv:2301.13838")
class ImageShortcutSqueezing(Defense):
    """JPEG, grayscale or fewer bits, once for each training image."""

    version: ClassVar[int] = 2
    keep_prepared: ClassVar[bool] = True
    mode: Mode = "jpeg"
    """What squeezes; where several, in the order bdr, gray, jpeg."""
    quality: Annotated[int, Field(ge=1, le=95)] = 10
    """Pillow's JPEG quality."""
    bits: Annotated[int, Field(ge=1, le=8)] = 2
    """Bits a channel that bdr keeps; the others are cut off, as Pillow's posterize does."""

    def resolve(self, facts: Facts) -> ImageShortcutSqueezing:
        """Return the defense with what its mode does not use at the defaults, so in one key."""
        used = {"quality": "jpeg" in self.mode, "bits": "bdr" in self.mode}
        fields = type(self).model_fields
        idle: dict[str, Any] = {k: fields[k].default for k, wanted in used.items() if not wanted}
        return self.with_options(**idle)

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the squeezed training set."""
        return data.changed(self._squeezed)

    def _squeezed(self, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
        """Return the squeezed images."""
        modes = self.mode.split("+")
        if "bdr" in modes:
            images = fewer_bits(images, self.bits)
        if "gray" in modes:
            images = grayscale(images)
        if "jpeg" in modes:
            images = jpeg(images, self.quality)
        return images
