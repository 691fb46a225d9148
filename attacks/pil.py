"""PIL, perturbation-induced linearisation: noise from which a linear model reads the class.

Source: Liu et al., "Perturbation-Induced Linearization", ICLR 2026, arXiv:2601.19967, and its
authors' code.
The released images are x - n, where the search moves n towards the class of the image under the
surrogate, so that the perturbation points away from it. The paper's surrogate is one linear map and
the code's is the product of two, which is trained differently; `layers` chooses. The divergence is
from the uniform distribution to the surrogate's, as in the code.
Departs from it: gradients are written out, since the surrogate is linear, and 8-bit images are
rounded, while theirs are truncated.
Cost: 50,000 CIFAR-10 images took 22 s of one core without the checks of the result (AMD EPYC,
torch 2.14, n = 1).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
)
from uebench.learn.loops import DivergedError

from ._class_wise import check_classes

SEARCHED = 2**18
"""Values of the images whose noise is searched together, so that they fit a core's cache."""


@attack("pil", title="PIL", source="arXiv:2601.19967", family="error-minimizing")
class PIL(Attack):
    """Noise that makes a linear model certain of the class, and the image useless to it."""

    uncounted = "its linear surrogate and its search"
    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    layers: Annotated[int, Field(ge=1, le=2), Option(variant=True)] = 2
    """Linear layers of the surrogate, without biases: 2 as in the authors' code, 1 as in the paper.
    """
    epochs: Annotated[int, Field(ge=1, le=10_000), Option(variant=True)] = 30
    """Epochs that the surrogate is trained for on the clean images."""
    lr: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.003
    """Learning rate of the surrogate at the start, momentum 0.9; it falls to 0 along a cosine."""
    batch_size: Annotated[int, Field(ge=1, le=65_536), Option(variant=True)] = 512
    """Images per step of the surrogate, in the order of the data set."""
    steps: Annotated[int, Field(ge=1, le=10_000), Option(variant=True)] = 30
    """Signed-gradient steps of the noise."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the pixel range [0, 1]; auto: eps/10."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Weight of the cross-entropy of the noise alone; the rest is that of the divergence between
    the uniform distribution and the prediction for the released image."""

    def resolve(self, facts: Facts) -> PIL:
        """Return the attack with the step filled in.

        Raises:
            UserError: there is only one class.
        """
        check_classes(self.info.name, facts)
        return self.fill_auto(step=self.eps / 10)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return -n for each image, where n is what the search ends with."""
        surrogate = self.surrogate(data, run)
        delta = run.zeros(*data.images.shape)
        for start in range(0, len(data), at_once := max(1, SEARCHED // surrogate.shape[1])):
            part = slice(start, min(start + at_once, len(data)))
            images = data.pixels(part).flatten(1)
            noise = self.searched(surrogate, images, data.labels[part], run)
            delta[part] = noise.neg_().view(-1, *data.shape).to(delta.device)
            run.progress(part.stop / len(data), "pil: noise")
        return delta

    def surrogate(self, data: Split, run: Run) -> Float[Tensor, "k d"]:
        """Return the linear map from pixels to logits, trained on the clean images.

        Raises:
            DivergedError: its weights are not finite.
        """
        values, k = data.images[0].numel(), data.n_classes
        sizes = [(k, values), (k, k)][: self.layers]
        weights = [
            # torch's own initialisation of a linear layer
            torch.empty(size, device=run.device)
            .uniform_(-(size[1] ** -0.5), size[1] ** -0.5, generator=run.rng)
            .requires_grad_()
            for size in sizes
        ]
        batches = -(-len(data) // self.batch_size)
        optimizer = torch.optim.SGD(weights, self.lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        for epoch in range(self.epochs):
            for batch in range(batches):
                part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
                logits = data.pixels(part).flatten(1)
                for weight in weights:
                    logits = F.linear(logits, weight)
                optimizer.zero_grad()
                F.cross_entropy(logits, data.labels[part]).backward()
                optimizer.step()
            schedule.step()
            run.progress((epoch + 1) / self.epochs, "pil: surrogate")
        with torch.no_grad():
            product = weights[0] if self.layers == 1 else weights[1] @ weights[0]
        if not product.isfinite().all():
            raise DivergedError(
                f"the linear surrogate of pil diverged; choose an lr below {self.lr:g}"
            )
        return product

    def searched(
        self,
        surrogate: Float[Tensor, "k d"],
        images: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, "b d"]:
        """Return n that lowers weight CE(f(n), y) + (1 - weight) KL(uniform, f(x - n)).

        With f(x) = Wx the gradients are W^T (softmax f(n) - onehot y) and
        -W^T (softmax f(x - n) - 1/k).
        """
        k = len(surrogate)
        noise = torch.rand(images.shape, generator=run.rng, device=run.device)
        noise.mul_(2 * self.eps).sub_(self.eps)
        of_images, target = images @ surrogate.T, F.one_hot(labels, k).float()
        for _ in range(self.steps):
            of_noise = noise @ surrogate.T
            own = of_noise.softmax(1) - target
            released = (of_images - of_noise).softmax(1) - 1 / k
            gradient = (self.weight * own - (1 - self.weight) * released) @ surrogate
            noise.sub_(gradient.sign_(), alpha=self.step).clamp_(-self.eps, self.eps)
        return noise
