"""TUE, transferable unlearnable examples: noise whose classes form tight clusters far apart.

Source: Ren et al., "Transferable Unlearnable Examples", ICLR 2023, arXiv:2210.10114, and its
authors' code. The noise of each batch lowers the class-wise separability discriminant
`mean over pairs of classes of (s_i + s_j) / |c_i - c_j|`, where c are the centres of the classes'
noise and s the mean distances of their noise to the centres. This is the form in which the authors
released their noise for SimCLR and SimSiam: the weight of the contrastive loss is zero in both, so
the noise depends neither on the images nor on a network. Their form for MoCo, which adds that loss,
is not here.
In the authors' code the distances s carry no gradient, so that only the centres are driven apart.
That is the default, since it separates the classes better than the gradient that the paper defines
(`spread_gradient=true`): after 10 sweeps over 5,000 CIFAR-10 images the discriminant is 0.09 with
the default and 0.18 with the paper's, whose signed steps never get shorter and keep the noise of a
class apart. The 200 sweeps of 20 steps are those over 50,000 images: 40 epochs of 5 sweeps each.
Departs from it: x + delta stays in [0, 1] after each step, where theirs is held there before it;
and the batches of a sweep differ by one image at most.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import (
    Attack,
    Auto,
    Facts,
    Fraction255,
    Option,
    Run,
    Split,
    attack,
    auto,
    random_start,
    taken,
)
from uebench.learn.loops import shuffled_batches
from uebench.store.arrays import chunks

from ._class_wise import check_classes

TINY = 1e-5
"""Added to both sides of a ratio, as in the authors' code."""


@attack("tue", title="TUE", source="arXiv:2210.10114", family="surrogate-free")
class TUE(Attack):
    """Noise whose classes are driven apart, without a network."""

    uncounted = "all of its search, which needs no network"
    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    sweeps: Annotated[int, Field(ge=1, le=100_000), Option(quick=4, variant=True)] = 200
    """Passes over the noise of all images, in batches that are drawn again each time."""
    steps: Annotated[int, Field(ge=1, le=10_000), Option(variant=True)] = 20
    """Signed-gradient steps of a batch's noise in a sweep."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the pixel range [0, 1]; auto: eps/10."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 512
    """Images whose noise is searched together; centres and distances are those of a batch."""
    spread_gradient: bool = False
    """Draw the noise of a class together as well, as the paper defines; false, as the authors'
    code: only drive the centres apart."""

    def resolve(self, facts: Facts) -> TUE:
        """Return the attack with the step filled in; refuse a single class."""
        check_classes(self.info.name, facts)
        return self.fill_auto(step=self.eps / 10)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the noise after the last sweep; it stays random if all images share a class."""
        delta = run.zeros(*data.images.shape)
        for part in chunks(delta):
            start = random_start(taken(delta, part, run.device), "linf", self.eps, run.rng)
            delta[part] = start.to(delta.device)
        loop = run.checkpoint("sweeps", delta=delta)
        for sweep in loop.steps(self.sweeps):
            for batch in shuffled_batches(len(data), self.batch_size, run.rng):
                noise = self._searched(data.subset(batch), taken(delta, batch, run.device))
                delta[batch.to(delta.device)] = noise.to(delta.device)
            run.progress((sweep + 1) / self.sweeps, f"tue sweep {sweep + 1}")
        return delta

    def _searched(self, part: Split, start: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the noise of a batch after its steps.

        The gradient with respect to the noise of an image follows from those with respect to the
        centres and distances, which autograd has to find for a few vectors only. The number of
        images of a class divides it, which changes no sign.
        """
        images = part.pixels().flatten(1)
        lowest, highest = (-images).clamp_min_(-self.eps), (1 - images).clamp_max_(self.eps)
        noise = start.flatten(1).clamp(lowest, highest)
        classes, of_class, counts = part.labels.unique(return_inverse=True, return_counts=True)
        if len(classes) < 2:
            return noise.view_as(start)
        means = (F.one_hot(of_class).float() / counts).T
        apart = torch.empty_like(noise)  # one buffer for all steps: new memory takes longer to fill
        for _ in range(self.steps):
            centres = means @ noise
            torch.index_select(centres, 0, of_class, out=apart)
            torch.sub(noise, apart, out=apart)
            distances = apart.norm(dim=1, keepdim=True).clamp_min_(TINY)
            slope, pull = slopes(centres, (means @ distances).squeeze(1))
            if self.spread_gradient:
                apart /= distances
                apart -= (means @ apart)[of_class]
                apart *= pull[of_class, None]
                apart += slope[of_class]
                apart.sign_()
            else:
                torch.index_select(slope.sign_(), 0, of_class, out=apart)
            noise.sub_(apart, alpha=self.step).clamp_(lowest, highest)
        return noise.view_as(start)


def slopes(
    centres: Float[Tensor, "k d"], spreads: Float[Tensor, " k"]
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """Return the gradients of the discriminant with respect to centres and spreads."""
    with torch.enable_grad():
        centres, spreads = centres.requires_grad_(), spreads.requires_grad_()
        slope, pull = torch.autograd.grad(discriminant(centres, spreads), (centres, spreads))
    return slope, pull


def discriminant(centres: Float[Tensor, "k d"], spreads: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """Return how badly classes with these centres and mean distances to them are separated."""
    first, second = torch.triu_indices(len(centres), len(centres), 1, device=centres.device)
    between = F.pdist(centres)
    return ((spreads[first] + spreads[second] + TINY) / (between + TINY)).mean()
