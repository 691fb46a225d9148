"""AutoAugment, RandAugment and TrivialAugment (Wide): each image draws its own operations.

Sources: Cubuk et al., arXiv:1805.09501 and arXiv:1909.13719; Mueller and Hutter, arXiv:2103.10158;
numbers as torchvision has them (see `uebench/augment/autoaugment.py`). `trivialaugment` is the one
of its paper; UEraser's is kornia's, with other operations.
"""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Defense, Run, defense
from uebench.augment import auto_augment, rand_augment, trivial_augment_wide


@defense("autoaugment", title="AutoAugment", source="arXiv:1805.09501", family="augmentation")
class AutoAugment(Defense):
    """One of the 25 sub-policies that were found for CIFAR-10, drawn for each image."""

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return each image after its sub-policy."""
        return auto_augment(images, run.rng)


@defense("randaugment", title="RandAugment", source="arXiv:1909.13719", family="augmentation")
class RandAugment(Defense):
    """Some operations of one magnitude, drawn for each image."""

    n: Annotated[int, Field(ge=1, le=20)] = 2
    """Operations per image."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Magnitude of all operations: the index of one of 31 bins."""

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return each image after its operations."""
        return rand_augment(images, run.rng, self.n, self.magnitude)


@defense("trivialaugment", title="TrivialAugment", source="arXiv:2103.10158", family="augmentation")
class TrivialAugment(Defense):
    """One operation of a random magnitude, drawn for each image; the Wide space."""

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return each image after its operation."""
        return trivial_augment_wide(images, run.rng)
