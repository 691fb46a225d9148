"""P5: every image of a class moves by the same distance in the same random direction.

Source: Tao et al., "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial
Training", NeurIPS 2021, arXiv:2102.04716, whose fifth perturbation it is.
On the first 5,000 images of CIFAR-10 (resnet8, `quick`, bf16; single runs on 1,000 test images,
+- 3.1) standard training gives 66.7 on it and 64.9 without crop and flip, where clean images give
64.7 and 66.4; the authors print 11.8 for VGG-16 after 150 epochs on all images. With 60 epochs
instead of 12 it gives 74.3, so it does not work at this size, and on all of CIFAR-10 under `sprint`
it does nothing either (83.7, clean images 83.6; one run); a linear model finds the class in its
images (91.8 % of held-out ones).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Attack, Facts, Fraction255, Run, Split, attack, random_start

from ._class_wise import check_classes, spread_over_images


@attack("p5", title="P5", source="arXiv:2102.04716", family="surrogate-free")
class P5(Attack):
    """A random direction per class, scaled to the budget."""

    norm: Literal["l2"] = "l2"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=100)] = 0.5
    """l2 norm of each perturbation in the pixel range [0, 1]."""

    def resolve(self, facts: Facts) -> P5:
        """Return the attack as it is; refuse a single class."""
        check_classes(self.info.name, facts)
        return self

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the direction of each image's class, at the length of the budget."""
        zeros = torch.zeros(data.n_classes, *data.shape, device=run.device)
        return spread_over_images(random_start(zeros, "l2", self.eps, run.rng), data, run)
