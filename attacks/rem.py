"""REM, robust error-minimizing noise: it keeps the loss small even under adversarial training.

Source: Fu et al., "Robust Unlearnable Examples: Protecting Data Against Adversarial Learning", ICLR
2022, arXiv:2203.14533, and its authors' code.
`min_theta E min_delta E_t max_rho L(f(t(x + delta) + rho), y)`: the noise of a batch is searched
from scratch by descent over random crops and flips t, against an adversary rho of half the budget;
then the surrogate takes one step on the adversarial points. Networks see x - 0.5, so that the black
border of a crop is not zero.
Departs from it: the final noise is made for every image, where the authors drop the last incomplete
batch; x + delta is held in [0, 1] at every step, where theirs is clamped in the loss alone; images
are flipped on all data sets. From 64 px on their numbers for ImageNet are taken, but not their t:
it stays a flip and a crop with 4 px of padding, where theirs is a random resized crop.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import (
    Attack,
    Auto,
    Facts,
    Fraction255,
    Option,
    Run,
    Split,
    UserError,
    attack,
    auto,
    crop_flip,
    frozen,
    pgd,
    random_start,
)

from ._shared import Batches, ImageLoss, cross_entropy_of, descend


@attack("rem", title="REM", source="arXiv:2203.14533", family="error-minimizing")
class REM(Attack):
    """Error-minimizing noise made against an inner adversary and random crops and flips."""

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change of one pixel value, in the pixel range [0, 1]."""
    surrogate: Annotated[str, Option(variant=True)] = "auto"
    """The network that is trained along; auto: the protocol's (paper: resnet18)."""
    train_steps: Annotated[
        int, Field(ge=1, le=1_000_000), Auto(), Option(quick=10, variant=True)
    ] = auto()
    """SGD steps of the surrogate; auto: 5,000 (from 64 px on: 3,000)."""
    steps: Annotated[int, Field(ge=1, le=10_000), Auto(), Option(quick=2, variant=True)] = auto()
    """Signed-gradient steps of a batch's noise; auto: 10 (from 64 px on: 7)."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step; auto: eps/5 (from 64 px on: eps/4)."""
    transform_draws: Annotated[int, Field(ge=1, le=1000), Auto(), Option(quick=1, variant=True)] = (
        auto()
    )
    """Random crops and flips whose gradients a step sums; auto: 5 (from 64 px on: 4)."""
    adv_radius: Annotated[Fraction255, Field(ge=0, le=1), Auto()] = auto()
    """Radius of the inner adversary in linf; auto: eps/2."""
    adv_steps: Annotated[int, Field(ge=1, le=10_000), Auto(), Option(quick=1, variant=True)] = (
        auto()
    )
    """Steps of the inner adversary; auto: 10 (from 64 px on: 7)."""
    adv_step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step; auto: a fifth of adv_radius (from 64 px on: a quarter)."""
    batch_size: Annotated[int, Field(ge=2, le=65_536), Option(quick=16, variant=True)] = 128
    """Images per step of the surrogate, and per part of the final noise."""
    lr: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.1
    """Learning rate of the surrogate, a tenth after every two fifths of its steps; momentum 0.9,
    weight decay 5e-4."""

    def resolve(self, facts: Facts) -> REM:
        """Return the attack with network, steps and radii filled in."""
        large = max(facts.shape[1:]) >= 64
        filled = self.with_options(surrogate=facts.surrogate_for(self.surrogate)).fill_auto(
            train_steps=3000 if large else 5000,
            steps=7 if large else 10,
            step=self.eps / (4 if large else 5),
            transform_draws=4 if large else 5,
            adv_radius=self.eps / 2,
        )
        # adv_radius=0 means no adversary, but a step of zero would be out of its own range
        usual = {
            "adv_steps": 7 if large else 10,
            "adv_step": max(filled.adv_radius, 1e-6) / (4 if large else 5),
        }
        filled = filled.fill_auto(**usual)
        for option, value in usual.items():
            if not filled.adv_radius and getattr(filled, option) != value:
                raise UserError(
                    f"{self.info.name}: {option} has no effect with adv_radius=0; raise adv_radius "
                    f"or leave {option} out"
                )
        return filled

    def image_passes(self, n: int) -> int:
        """Return the passes of the noise and the adversary, in training and for the final noise."""
        noise = self.steps * self.transform_draws * self._passes_per_view
        return self.train_steps * min(self.batch_size, n) * (noise + self._passes_per_view) + (
            n * noise
        )

    @property
    def _passes_per_view(self) -> int:
        """Passes through the network for one crop: the adversary's, and one at the point found."""
        return self.adv_steps + 1 if self.adv_radius else 1

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return noise that an adversarially trained network finds easy as well."""
        model = nn.Sequential(Centred(), run.network(self.surrogate))
        optimizer = torch.optim.SGD(model.parameters(), self.lr, momentum=0.9, weight_decay=5e-4)
        batches = Batches(len(data), self.batch_size, run, whole=True)
        total = self.train_steps
        loop = run.checkpoint("surrogate", model=model, optimizer=optimizer, batches=batches)
        for done in loop.steps(total):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * 0.1 ** (5 * done // (2 * total))
            part = data.subset(next(batches))
            loss = self._train_step(model, optimizer, part, run)
            if (done + 1) % max(1, total // 100) == 0:
                run.progress(
                    (done + 1) / total,
                    f"{self.info.name} step {done + 1}, loss {loss.item():.3f}",
                )
        delta = run.zeros(*data.images.shape)
        parts = torch.arange(len(data), device=run.device).split(self.batch_size)
        loop = run.checkpoint("noise", delta=delta)
        with frozen(model):
            for number in loop.steps(len(parts)):
                rows = parts[number]
                place = slice(int(rows[0]), int(rows[-1]) + 1)
                delta[place] = self._noise(model, data.subset(rows), run)
                run.progress((int(rows[-1]) + 1) / len(data), f"{self.info.name} noise")
        return delta

    def _train_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, part: Split, run: Run
    ) -> Float[Tensor, ""]:
        """Search a batch's noise, train the surrogate at its adversarial points."""
        with frozen(model):
            delta = self._noise(model, part, run)
            delta = (delta * 255).round_().div_(255)  # the surrogate trains on 8-bit images
            view = crop_flip((part.pixels() + delta).clamp_(0, 1), run.rng)
            point = self._adversarial(cross_entropy_of(model, run), view, part.labels, run)
        model.train()
        loss = cross_entropy_of(model, run)(point, part.labels) / len(part)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def _noise(self, model: nn.Module, part: Split, run: Run) -> Float[Tensor, "b c h w"]:
        """Return noise searched from a random start against a frozen network."""
        delta = random_start(part.pixels(), "linf", self.eps, run.rng)
        descend(
            self._robust_loss(model, run),
            part,
            part.labels,
            delta,
            norm="linf",
            eps=self.eps,
            step=self.step,
            steps=self.steps,
            batch_size=self.batch_size,
            at_once=self.batch_size,
            draws=self.transform_draws,
        )
        return delta

    def _robust_loss(self, model: nn.Module, run: Run) -> ImageLoss:
        """Return the loss at the adversarial point of one random crop and flip of each image.

        The adversary is held fixed, so that the gradient flows back through crop and flip only.
        """
        plain = cross_entropy_of(model, run)

        def loss(images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            view = crop_flip(images, run.rng)
            adversary = self._adversarial(plain, view.detach(), labels, run) - view.detach()
            return plain(view + adversary, labels)

        return loss

    def _adversarial(
        self,
        loss: ImageLoss,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, "b c h w"]:
        """Return the points within the adversary's radius that raise a frozen network's loss."""
        radius = self.adv_radius
        if not radius:
            return images
        images = images.contiguous(memory_format=torch.channels_last)
        rho = pgd(
            lambda x: loss(x, labels),
            images,
            norm="linf",
            eps=radius,
            step=self.adv_step,
            steps=self.adv_steps,
            towards="max",
            start=random_start(images, "linf", radius, run.rng),
        )
        return images + rho


class Centred(nn.Module):
    """A fixed first layer: x - 0.5."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the images shifted to be centred at zero."""
        return x - 0.5
