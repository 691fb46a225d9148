"""The search that TAP, AAP and EntF share: adversarial examples of a trained network, as noise.

The reference network is trained once, on clean images, and frozen. Each image's noise then descends
an objective of the network's answer to a random view of the image, drawn again at every step.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import (
    Adversary,
    Attack,
    Auto,
    Facts,
    Fraction255,
    Option,
    Run,
    Split,
    Training,
    UserError,
    auto,
    frozen,
    penultimate,
)
from uebench.augment import contrastive, shift_flip
from uebench.store.arrays import chunks

from ._shared import ImageLoss, ImageView, class_means, cross_entropy_of, descend

Objective = Literal["targeted", "untargeted", "push", "pull"]


class AdversarialNoise(Attack):
    """Every image becomes an adversarial example of one reference network."""

    version: ClassVar[int] = 2

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change of one pixel value, in the pixel range [0, 1]."""
    objective: Objective = "targeted"
    """What the noise is made for: `targeted` lowers the cross-entropy of the next class, and
    `untargeted` raises that of the label; `push` moves features away from the mean of their class,
    and `pull` towards the nearest mean of another class."""
    reference: Literal["standard", "at"] = "standard"
    """Whether the network is trained in the standard way or adversarially."""
    adv_radius: Annotated[Fraction255, Field(ge=0, le=1), Auto()] = auto()
    """Radius of the adversary of `reference=at` in linf; auto: 4/255."""
    adv_steps: Annotated[int, Field(ge=1, le=1000), Option(variant=True)] = 10
    """Steps of that adversary, each half of its radius long."""
    augment: Literal["shift", "contrastive"] = "shift"
    """The random views: fractional shifts and flips, or the augmentation of contrastive learning.
    The network is trained under it too, unless it is trained as `entf` trains its own."""
    shift: Annotated[float, Field(ge=0, le=4096), Auto(), Option(variant=True)] = auto()
    """Largest shift in pixels; auto: an eighth of the longer side."""
    strength: Annotated[float, Field(ge=0, le=1), Auto(), Option(variant=True)] = auto()
    """Strength of the contrastive augmentation; auto: 0.4 (from 100 classes on: 0.8)."""
    surrogate: Annotated[str, Option(variant=True)] = "auto"
    """The network that is trained on clean images; auto: the protocol's (paper: resnet18)."""
    surrogate_epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=10, variant=True)] = 40
    """Epochs of the network's training, of which the last is taken."""
    surrogate_lr: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.1
    """Its initial learning rate; batches of 128, momentum 0.9."""
    steps: Annotated[int, Field(ge=1, le=10_000), Option(quick=2, variant=True)] = 250
    """Signed-gradient steps of every image's noise."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the pixel range [0, 1]; auto: eps/20 (`aap`: 2.5 eps/steps)."""
    start: Annotated[Literal["normal", "zero"], Option(variant=True)] = "normal"
    """Where noise starts: at draws from N(0, eps) cut off at eps, or at zero."""
    restarts: Annotated[int, Field(ge=1, le=100), Option(quick=2, variant=True)] = 8
    """Searches of the noise of all images, of which the one with the lowest mean loss is taken."""
    batch_size: Annotated[int, Field(ge=1, le=65_536), Option(quick=16, variant=True)] = 512
    """Images whose noise is searched together; it changes the noise by its random draws only."""

    def training(self) -> Training:
        """Return how the authors train the network on clean images in the standard way."""
        reach = self.shift if self.augment == "shift" else self.strength
        return Training(
            (14 / 40, 24 / 40, 35 / 40), nesterov=True, augment=self.augment, strength=reach
        )

    def usual_step(self) -> float:
        """Return the length of a step where none is asked for."""
        return self.eps / 20

    def resolve(self, facts: Facts) -> AdversarialNoise:
        """Return the attack with network, adversary, views and step filled in."""
        name = self.info.name
        if facts.n_classes < 2 and self.objective != "push":
            raise UserError(
                f"{name}[objective={self.objective}] needs a class other than the image's own, and "
                f"the data set has {facts.n_classes}; use objective=push or two classes"
            )
        unused = {
            "adv_radius": ("reference=at", self.reference != "at"),
            "adv_steps": ("reference=at", self.reference != "at"),
            "shift": ("augment=shift", self.augment != "shift"),
            "strength": ("augment=contrastive", self.augment != "contrastive"),
        }
        values: dict[str, Any] = {}
        for option, (owner, is_unused) in unused.items():
            if is_unused:
                value, default = getattr(self, option), type(self).model_fields[option].default
                if value not in (default, 0):
                    raise UserError(
                        f"{name}: {option}={value:g} has no effect without {owner}; add {owner}, "
                        f"or leave {option} out"
                    )
                if default == "auto":
                    values[option] = 0.0
        side = max(facts.shape[1:])
        return self.with_options(surrogate=facts.surrogate_for(self.surrogate), **values).fill_auto(
            adv_radius=4 / 255,
            shift=side / 8,
            strength=0.8 if facts.n_classes >= 100 else 0.4,
            step=self.usual_step(),
        )

    def image_passes(self, n: int) -> int:
        """Return the passes of the network's training and of all restarts of the noise."""
        an_epoch = 1 + self.adv_steps if self.reference == "at" else 1
        return n * (self.surrogate_epochs * an_epoch + self.restarts * self.steps)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the noise of the restart whose mean loss is lowest.

        Raises:
            UserError: `pull` has no other class to pull to, since the images are of one class.
        """
        present = int(data.labels.unique().numel())
        if self.objective == "pull" and present < 2:
            raise UserError(
                f"{self.info.name}[objective=pull] needs images of at least 2 classes, got "
                f"{present}; use objective=push, or craft on more classes"
            )
        model = self._network(data, run)
        labels = data.labels
        if self.objective == "targeted":
            labels = (labels + 1) % data.n_classes
        batches = torch.arange(len(data), device=run.device).split(self.batch_size)
        delta = run.zeros(*data.images.shape)
        best = run.zeros(*data.images.shape) if self.restarts > 1 else delta
        loop = run.checkpoint("noise", delta=delta, best=best)
        loop.facts = {"loss": 0.0, "losses": [], **loop.facts}
        total = self.restarts * len(batches)
        with frozen(model):
            loss = self._loss(model, data, run)
            for number in loop.steps(total):
                rows = batches[number % len(batches)]
                noise, value = self._search(loss, data.subset(rows), labels[rows], run)
                delta[int(rows[0]) : int(rows[-1]) + 1] = noise
                loop.facts["loss"] += value
                if rows is batches[-1]:
                    mean, loop.facts["loss"] = loop.facts["loss"] / len(data), 0.0
                    if self.restarts > 1 and mean < min(loop.facts["losses"], default=math.inf):
                        for part in chunks(best):
                            best[part] = delta[part]
                    loop.facts["losses"].append(mean)
                run.progress((number + 1) / total, f"{self.info.name} noise")
        run.note(restart_losses=[round(mean, 5) for mean in loop.facts["losses"]])
        return best

    def _network(self, data: Split, run: Run) -> nn.Module:
        """Return the reference network."""
        at, training = None, self.training()
        if self.reference == "at":
            at = Adversary(self.adv_radius, self.adv_steps, max(self.adv_radius, 1e-6) / 2)
            training = Training((0.75, 0.9))
        return run.surrogate(
            data,
            self.surrogate,
            epochs=self.surrogate_epochs,
            lr=self.surrogate_lr,
            held_out=0,
            at=at,
            training=training,
        )

    def _search(
        self, loss: ImageLoss, part: Split, labels: Int[Tensor, " b"], run: Run
    ) -> tuple[Float[Tensor, "b c h w"], float]:
        """Return the noise of a batch, and its loss summed over the images after the last step."""
        noise = torch.zeros(part.images.shape, device=run.device)
        if self.start == "normal":
            noise = torch.randn(noise.shape, generator=run.rng, device=run.device)
            noise = (noise * self.eps).clamp_(-self.eps, self.eps)
        descend(
            loss,
            part,
            labels,
            noise,
            norm="linf",
            eps=self.eps,
            step=self.step,
            steps=self.steps,
            batch_size=len(part),
        )
        with torch.no_grad():
            return noise, loss(part.pixels() + noise, labels).item()

    def _view(self, run: Run) -> ImageView:
        """Return the random views, drawn again at every call."""
        if self.augment == "shift":
            return lambda images: shift_flip(images, run.rng, self.shift)
        return lambda images: contrastive(images, run.rng, self.strength)

    def _loss(self, model: nn.Module, data: Split, run: Run) -> ImageLoss:
        """Return what the noise descends, for labels that are the classes to move to or from."""
        view = self._view(run)
        if self.objective in ("targeted", "untargeted"):
            of_classes = cross_entropy_of(model, run, view)
            sign = 1 if self.objective == "targeted" else -1
            return lambda images, labels: sign * of_classes(images, labels)
        means = class_means(model, data, run)
        absent = torch.bincount(data.labels, minlength=data.n_classes) == 0

        def loss(images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            seen = view(images).contiguous(memory_format=torch.channels_last)
            with run.autocast():
                features = penultimate(model, seen)
            if self.objective == "push":
                return -(features - means[labels]).square().mean(1).sum()
            distances = (features[:, None] - means).square().mean(2)
            own = nn.functional.one_hot(labels, len(means)).bool()
            return distances.masked_fill(own | absent, math.inf).amin(1).sum()

        return loss
