"""Class-wise random noise: every image of a class gets the same uniform noise.

Source: Huang et al., "Unlearnable Examples", ICLR 2021, arXiv:2101.04898, the baseline of EM and
later of REM. A linear model reads the class from it, so that defenses and detectors of class-wise
noise must succeed on it.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from uebench import Attack, Facts, Run, Split, attack

from ._class_wise import check_classes, spread_over_images


@attack(
    "random_class",
    title="Random, class-wise",
    source="arXiv:2101.04898",
    family="surrogate-free",
)
class RandomClass(Attack):
    """Uniform noise within the budget, drawn once per class."""

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""

    def resolve(self, facts: Facts) -> RandomClass:
        """Return the attack as it is; refuse a single class."""
        check_classes(self.info.name, facts)
        return self

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the noise of each image's class."""
        patterns = torch.rand(data.n_classes, *data.shape, generator=run.rng, device=run.device)
        return spread_over_images(patterns.mul_(2 * self.eps).sub_(self.eps), data, run)
