"""The search that P3 and P4 share: one perturbation per class that turns any image into it.

Source: Tao et al., "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial
Training", NeurIPS 2021, arXiv:2102.04716, and its authors' code.
`min_u L(f(clip(x + u, 0, 1)), k)` over images x of all classes, for each class k, with f trained on
clean images.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PrivateAttr
from torch import Tensor

from uebench import Auto, Facts, Fraction255, Option, Run, Split, auto, frozen
from uebench.learn.pgd import project, steepest, zero_or_nan

from ._class_wise import spread_over_images
from ._delusive import CleanNetworkNoise
from ._shared import Batches, ImageLoss, cross_entropy_of, refused_if_nan


class UniversalNoise(CleanNetworkNoise):
    """Every image of a class gets the universal perturbation towards one class."""

    reach_steps = 5
    class_wise = True
    offset: ClassVar[int]
    """The class that a perturbation leads to, minus the class of the images that get it."""

    norm: Literal["linf", "l2"] = "l2"
    """The norm that the budget is measured in."""
    steps: Annotated[int, Field(ge=1, le=10_000), Option(quick=5, variant=True)] = 500
    """Gradient steps of each class's perturbation, each on another batch of images."""
    step: Annotated[Fraction255, Field(gt=0, le=100), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the pixel range [0, 1]; auto: eps/5."""
    batch_size: Annotated[int, Field(ge=1, le=65_536), Option(quick=16, variant=True)] = 256
    """Images per step."""

    _n_classes: int = PrivateAttr(10)
    """Number of classes, for the estimate of the cost."""

    def resolve(self, facts: Facts) -> UniversalNoise:
        """Return the attack with budget, network and step filled in."""
        filled = super().resolve(facts)
        assert isinstance(filled, UniversalNoise)
        filled._n_classes = facts.n_classes
        return filled

    def image_passes(self, n: int) -> int:
        """Return the passes of the surrogate's training and of the search for all classes."""
        search = self._n_classes * self.steps * min(n, self.batch_size)
        return n * self.surrogate_epochs + search

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the perturbation of each image's class.

        Raises:
            DivergedError: the gradient of the surrogate is not finite.
        """
        model = run.surrogate(data, self.surrogate, epochs=self.surrogate_epochs)
        k = data.n_classes
        towards = torch.zeros(k, *data.shape, device=run.device)
        loop = run.checkpoint("perturbations", towards=towards)
        with frozen(model):
            loss = cross_entropy_of(model, run)
            for target in loop.steps(k):
                towards[target] = self._universal(loss, target, data, run)
                run.progress((target + 1) / k, f"{self.info.name} perturbations")
        return spread_over_images(towards.roll(-self.offset, 0), data, run)

    def _universal(
        self, loss: ImageLoss, target: int, data: Split, run: Run
    ) -> Float[Tensor, "c h w"]:
        """Return the perturbation that lowers the loss of class `target` on images of all classes.

        Unlike `pgd`, all images of a batch share it, so their gradients are summed.
        """
        delta = torch.zeros(1, *data.shape, device=run.device)
        mark = torch.zeros((), device=run.device)
        batches = Batches(len(data), self.batch_size, run)
        for _ in range(self.steps):
            pixels = data.pixels(next(batches))
            labels = torch.full((len(pixels),), target, device=run.device)
            point = delta.requires_grad_()
            with torch.enable_grad():
                value = loss((pixels + point).clamp(0, 1), labels)
                gradient = torch.autograd.grad(value, point)[0]
            mark += zero_or_nan(gradient)
            descent = self.step * steepest(gradient, self.norm)
            delta = project(delta.detach() - descent, self.norm, self.eps)
        return refused_if_nan(delta + mark)[0]
