"""Cutout, mixup and cutmix: parts of an image are hidden, or mixed with another one and its label.

Sources: DeVries and Taylor, arXiv:1708.04552; Zhang et al., arXiv:1710.09412; Yun et al.,
arXiv:1905.04899.
Published under the same names, by APBench and ISS among others.
Departs from them: every image draws its own square, share or box, while the authors' code of mixup
and cutmix draws one per batch. `probability` is 1; the public code of EM and ISS mixes with
probability 0.5, for cutmix in places twice per image, which makes 0.75.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import Defense, Run, defense
from uebench.augment import Mixture, cutmix, cutout, mixup

from ._batch import dense, mixed_cross_entropy


@defense("cutout", title="Cutout", source="arXiv:1708.04552", family="augmentation")
class Cutout(Defense):
    """A black square at a random place of each image, cut by the borders."""

    size: Annotated[int, Field(ge=1, le=4096)] = 16
    """Side of the square in pixels."""

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return the images with their squares."""
        return cutout(images, run.rng, self.size)


class Mixed(Defense):
    """Cross-entropy with both labels of a mixture, weighted by their shares."""

    beta: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Both parameters of the Beta distribution of an image's own share."""
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the images that are mixed."""

    def mix(self, images: Float[Tensor, "b c h w"], rng: torch.Generator) -> Mixture:
        """Return the mixed images with their partners and shares."""
        raise NotImplementedError(f"{type(self).__name__} has no `mix`; write it")

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the mean of both labels' losses, weighted by the shares of the mixture."""
        with run.augmenting:
            mixed = self.mix(images, run.rng)
        logits = model(dense(mixed.images))
        return mixed_cross_entropy(logits, labels, mixed, run.cross_entropy).mean()


@defense("mixup", title="Mixup", source="arXiv:1710.09412", family="augmentation")
class Mixup(Mixed):
    """Each image is a weighted mean of itself and another one, and so are their losses."""

    def mix(self, images: Float[Tensor, "b c h w"], rng: torch.Generator) -> Mixture:
        """Return the weighted means."""
        return mixup(images, rng, self.beta, self.probability)


@defense("cutmix", title="CutMix", source="arXiv:1905.04899", family="augmentation")
class CutMix(Mixed):
    """A box of another image is pasted into each, and the losses are weighted by area."""

    def mix(self, images: Float[Tensor, "b c h w"], rng: torch.Generator) -> Mixture:
        """Return the images with their boxes."""
        return cutmix(images, rng, self.beta, self.probability)
