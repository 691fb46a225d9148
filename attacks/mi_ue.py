"""MI-UE, mutual-information unlearnable examples: noise that draws each class together in features.

Source: Zhu, Miao, Dong, Gao, ICLR 2026, arXiv:2603.03725, and its authors' code.
The network is trained on x + delta; after each of its epochs, the noise lowers, over the
penultimate features z of a batch,
`mean_i -log(sum_{y_j = y_i} exp(cos(z_i, z_j)/t) / sum_j exp(cos(z_i, z_j)/t))
+ zeta mean_i log(1 + sum_{y_j = y_i} |z_i - z_j| / dim z)`. Both sums hold all pairs, i = j too.
The paper prints zeta = 0.1. The authors' released command leaves it at 0, which is an option here.
As in that command, images are mirrored at random before the noise is added (`mirror`); the noise is
not, and no crop is seen.
Departs from it: the batches of a sweep or an epoch differ by one image at most, where theirs end in
a small one, and x + delta is held in [0, 1] in the network's steps and where a search begins, which
matters for mirrored images. Their step grows to 0.4/255 for ten steps of a sweep, which is twice
its start as here, and to another length for another number of steps.
Cost: 1,100 passes.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import (
    Auto,
    Facts,
    Fraction255,
    Option,
    Run,
    Split,
    attack,
    auto,
    penultimate,
)

from ._alternating import Alternating
from ._shared import ImageLoss

TINY = 1e-8
"""Added to each exponential, as in the authors' code."""


@attack("mi_ue", title="MI-UE", source="arXiv:2603.03725", family="error-minimizing")
class MIUE(Alternating):
    """Noise that makes the features of each class alike and unlike those of the others."""

    version: ClassVar[int] = 2
    whole_batches: ClassVar[bool] = True
    epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=2, variant=True)] = 100
    """Epochs of the network, each followed by a sweep of the noise over all images."""
    steps: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 10
    """Signed-gradient steps of every image's noise in a sweep."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the first sweep, in the pixel range [0, 1]; it grows linearly
    to almost twice as much in the last. auto: eps/40."""
    noise_batch: Annotated[int, Field(ge=2, le=65_536), Option(quick=16)] = 512
    """Images whose noise is searched together; the loss is over all pairs of them."""
    temperature: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.1
    """The t that cosines are divided by."""
    zeta: Annotated[float, Field(ge=0, le=100), Option(variant=True)] = 0.1
    """Weight of the distances within a class: 0.1 as the paper prints, 0 as in the released
    command."""
    mirror: Annotated[bool, Option(variant=True)] = True
    """Whether images are mirrored at random before the noise is added."""

    def resolve(self, facts: Facts) -> MIUE:
        """Return the attack with network and step filled in."""
        return self.with_options(surrogate=facts.surrogate_for(self.surrogate)).fill_auto(
            step=self.eps / 40
        )

    def step_in(self, epoch: int) -> float:
        """Return the length of a step of the noise in an epoch."""
        return self.step * (1 + epoch / self.epochs)

    def clean(self, part: Split, run: Run) -> Split:
        """Return the images, half of them mirrored."""
        if not self.mirror:
            return part
        coin = torch.rand(len(part), 1, 1, 1, generator=run.rng, device=run.device) < 0.5
        return part.with_images(
            torch.where(coin.to(part.images.device), part.images.flip(3), part.images)
        )

    def noise_loss(self, model: nn.Module, run: Run) -> ImageLoss:
        """Return the loss of the features of a batch, summed over its images."""

        def loss(images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            with run.autocast():
                features = penultimate(model, images)
            return feature_loss(features, labels, self.temperature, self.zeta)

        return loss


def feature_loss(
    features: Float[Tensor, "b d"], labels: Int[Tensor, " b"], temperature: float, zeta: float
) -> Float[Tensor, ""]:
    """Return the loss that the noise lowers, summed over the images of a batch."""
    same = labels[:, None] == labels
    unit = F.normalize(features, dim=1)
    # exp(cos / t) overflows for small t; divided by exp(1 / t), the ratio of the sums is the same
    likeness = torch.exp((unit @ unit.T - 1) / temperature) + TINY * math.exp(-1 / temperature)
    loss = -((likeness * same).sum(1) / likeness.sum(1)).log()
    if zeta:
        # By way of a matrix product, distances of 0 would have an infinite gradient.
        exact = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(features, features, compute_mode=exact)
        loss = loss + zeta * (1 + (distances * same).sum(1) / features.shape[1]).log()
    return loss.sum()
