"""SEM, stable error-minimizing noise: REM whose noise is searched under random perturbations.

Source: Liu et al., "Stable Unlearnable Example: Enhancing the Robustness of Unlearnable Examples
via Stable Error-Minimizing Noise", AAAI 2024, arXiv:2311.13091, and its authors' code.
In the search for the noise, REM's inner PGD adversary is replaced by one uniform draw within its
radius, after crop and flip; the surrogate is still trained against the adversary. All else is as in
REM.
The gradient is taken at the image with the draw, held in the image range, so that it also reaches
pixels at 0 and 1.
Departs from it: as `rem` does.
Cost: 831 passes on CIFAR-10, where REM takes 7,731.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uebench import Run, attack, crop_flip, random_start

from ._shared import ImageLoss, cross_entropy_of
from .rem import REM


@attack("sem", title="SEM", source="arXiv:2311.13091", family="error-minimizing")
class SEM(REM):
    """Error-minimizing noise made against random perturbations and random crops and flips."""

    def image_passes(self, n: int) -> int:
        """Return the passes of the noise, which has no adversary, and of the surrogate."""
        noise = self.steps * self.transform_draws
        return self.train_steps * min(self.batch_size, n) * (noise + self._passes_per_view) + (
            n * noise
        )

    def _robust_loss(self, model: nn.Module, run: Run) -> ImageLoss:
        """Return the loss under one random crop, flip and perturbation of each image."""
        plain = cross_entropy_of(model, run)

        def loss(images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            view = crop_flip(images, run.rng)
            if not self.adv_radius:
                return plain(view, labels)
            with torch.no_grad():
                drawn = view + random_start(view, "linf", self.adv_radius, run.rng)
                perturbation = drawn.clamp_(0, 1) - view
            return plain(view + perturbation, labels)

        return loss
