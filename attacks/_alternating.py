"""The search that AUE and MI-UE share: an epoch of the network and a sweep of the noise in turn.

Unlike EM's own search it runs for a fixed number of epochs, on a learning rate that falls like a
cosine, without a stop test and without clipping the gradient.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
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
    auto,
    frozen,
    taken,
)
from uebench.learn.loops import shuffled_batches
from uebench.learn.surrogate_training import cosine

from ._shared import ImageLoss, ImageView, cross_entropy_of, descend, unchanged


class Alternating(Attack):
    """A network in training and the noise of every image lower a loss in turn."""

    whole_batches: ClassVar[bool] = False
    """Whether the loss of an image depends on the other images of its batch."""

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change of one pixel value, in the pixel range [0, 1]."""
    surrogate: Annotated[str, Option(variant=True)] = "auto"
    """The network that is trained along; auto: the protocol's (paper: resnet18)."""
    epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=2, variant=True)] = 60
    """Epochs of the network, each followed by a sweep of the noise over all images."""
    steps: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 5
    """Signed-gradient steps of every image's noise in a sweep."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the pixel range [0, 1]; auto: eps/10."""
    batch_size: Annotated[int, Field(ge=2, le=65_536), Option(quick=16, variant=True)] = 128
    """Images per step of the network."""
    noise_batch: Annotated[int, Field(ge=2, le=65_536), Option(quick=16, variant=True)] = 128
    """Images whose noise is searched together."""
    lr: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.1
    """Initial learning rate of the network; momentum 0.9, weight decay 1e-4."""

    def resolve(self, facts: Facts) -> Alternating:
        """Return the attack with network and step filled in."""
        return self.with_options(surrogate=facts.surrogate_for(self.surrogate)).fill_auto(
            step=self.eps / 10
        )

    def image_passes(self, n: int) -> int:
        """Return the passes of the network's epochs and of the sweeps."""
        return n * self.epochs * (1 + self.steps)

    def step_in(self, epoch: int) -> float:
        """Return the length of a step of the noise in an epoch."""
        return self.step

    def view(self, run: Run) -> ImageView:
        """Return how the network sees poisoned images, in its own and in the noise's steps."""
        return unchanged

    def clean(self, part: Split, run: Run) -> Split:
        """Return the clean images of a batch as the noise is added to them."""
        return part

    def noise_loss(self, model: nn.Module, run: Run) -> ImageLoss:
        """Return the loss that the noise lowers."""
        return cross_entropy_of(model, run, self.view(run))

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return noise that a network in training finds easy."""
        model = run.network(self.surrogate)
        optimizer = torch.optim.SGD(model.parameters(), self.lr, momentum=0.9, weight_decay=1e-4)
        noise = run.zeros(*data.images.shape)
        loop = run.checkpoint("epochs", model=model, optimizer=optimizer, noise=noise)
        for epoch in loop.steps(self.epochs):
            for group in optimizer.param_groups:
                group["lr"] = cosine(self.lr, epoch / self.epochs)
            mean = self._train(model, optimizer, data, noise, run)
            with frozen(model):
                self._sweep(model, data, noise, self.step_in(epoch), run)
            done, name = epoch + 1, self.info.name
            run.progress(done / self.epochs, f"{name} epoch {done}, loss {mean:.3f}")
        return noise

    def _train(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data: Split,
        noise: Float[Tensor, "n c h w"],
        run: Run,
    ) -> float:
        """Train the network for an epoch on the poisoned images and return their mean loss."""
        model.train()
        loss_of = cross_entropy_of(model, run, self.view(run))
        total = torch.zeros((), device=run.device)
        for batch in shuffled_batches(len(data), self.batch_size, run.rng):
            part = self.clean(data.subset(batch), run)
            images = (part.pixels() + taken(noise, batch, run.device)).clamp_(0, 1)
            loss = loss_of(images, part.labels) / len(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        return total.item() / len(data)

    def _sweep(
        self, model: nn.Module, data: Split, noise: Float[Tensor, "n c h w"], step: float, run: Run
    ) -> None:
        """Lower the loss of all images by changing their noise, in place, in a random order."""
        loss = self.noise_loss(model, run)
        for batch in shuffled_batches(len(data), self.noise_batch, run.rng):
            part = self.clean(data.subset(batch), run)
            delta = taken(noise, batch, run.device)
            descend(
                loss,
                part,
                part.labels,
                delta,
                norm="linf",
                eps=self.eps,
                step=step,
                steps=self.steps,
                batch_size=len(batch),
                at_once=len(batch) if self.whole_batches else None,
            )
            noise[batch.to(noise.device)] = delta.to(noise.device)
