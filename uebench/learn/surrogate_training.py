"""How a surrogate is trained where an attack's authors depart from the usual recipe."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..augment import contrastive, crop_flip, shift_flip
from ..data.split import Split
from .loops import Computing, DivergedError, shuffled_batches
from .pgd import frozen, pgd, random_start

CROP_PADDING = 4
LOWEST_LR = 1e-6
"""Where a cosine schedule ends, as in the code of arXiv:2402.04010."""
FIRST_SHARE = 0.01
"""Share of the learning rate that a warm-up begins with: 0.001 of 0.1 in arXiv:2211.12005."""


class Drawing(Computing, Protocol):
    """What training needs to know about a run; `methods.run.Run` is an implementation."""

    rng: torch.Generator


class Adversary(NamedTuple):
    """The PGD adversary of an adversarially trained surrogate, in linf, from a random start."""

    radius: float
    """Radius of the ball, in the pixel range [0, 1]."""
    steps: int
    """Steps of the search, which runs in eval mode."""
    step: float
    """Length of a step, in the pixel range [0, 1]."""


class Training(NamedTuple):
    """The part of a recipe of SGD that most surrogates share; momentum is always 0.9."""

    drops: tuple[float, ...] | None = (2 / 3, 5 / 6)
    """Shares of the epochs after which the learning rate is divided by ten; None: a cosine."""
    warmup: float = 0.0
    """Epochs over which the learning rate first rises linearly, from a hundredth of it."""
    stairs: bool = False
    """Whether it rises once at the start of each epoch instead, to (epoch + 1) / warmup of it."""
    weight_decay: float = 5e-4
    """L2 penalty of the weights."""
    nesterov: bool = False
    """Whether momentum is Nesterov's."""
    augment: Literal["crop", "shift", "contrastive"] = "crop"
    """What images go through: `crop_flip`, `shift_flip` or `contrastive`."""
    strength: float = 0.0
    """Strength of `contrastive`, or reach of `shift_flip` in pixels."""

    def recipe(self) -> dict[str, Any]:
        """Return what differs from the usual recipe, so that keys of usual surrogates hold."""
        usual = Training()._asdict()
        changed = {k: v for k, v in self._asdict().items() if v != usual[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}

    def rate(self, lr: float, epoch: float, epochs: int) -> float:
        """Return the learning rate after `epoch` of `epochs`; within an epoch only if it rises."""
        if epoch < self.warmup:
            if self.stairs:
                return lr * min(1.0, (math.floor(epoch) + 1) / self.warmup)
            return lr * (FIRST_SHARE + (1 - FIRST_SHARE) * epoch / self.warmup)
        if self.drops is None:
            return cosine(lr, (math.floor(epoch) - self.warmup) / (epochs - self.warmup))
        done = math.floor(epoch) / epochs
        return lr * 10.0 ** -sum(done >= drop for drop in self.drops)

    def view(
        self, images: UInt8[Tensor, "b c h w"], rng: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Return augmented images in [0, 1]."""
        if self.augment == "crop":  # faster on 8-bit images
            return crop_flip(images, rng, CROP_PADDING, True).float().div_(255)
        change = shift_flip if self.augment == "shift" else contrastive
        return change(images.float().div_(255), rng, self.strength)


def cosine(lr: float, done: float) -> float:
    """Return the learning rate of a cosine from `lr` to 1e-6 after a share `done` of it."""
    return LOWEST_LR + (lr - LOWEST_LR) * (1 + math.cos(math.pi * max(0.0, done))) / 2


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Split,
    batch_size: int,
    run: Drawing,
    schedule: tuple[float, int, int],
    at: Adversary | None,
    training: Training,
) -> None:
    """Train one epoch on augmented images, or at the points of an adversary.

    Args:
        model: the network.
        optimizer: its optimizer, whose learning rates are set.
        data: clean images.
        batch_size: images per step.
        run: device, randomness and precision.
        schedule: initial learning rate, number of this epoch from 0, and number of epochs.
        at: the adversary, if there is one.
        training: schedule and augmentation.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    lr, epoch, epochs = schedule
    model.train()
    batches = shuffled_batches(len(data), batch_size, run.rng)
    for number, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = training.rate(lr, epoch + number / len(batches), epochs)
        images = training.view(data.take(batch), run.rng)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = data.labels[batch]
        if at is not None:
            images = adversarial(model, images, labels, at, run)
        with run.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    if not loss.isfinite():
        raise DivergedError(f"the surrogate's loss is {loss.item()}; lower its learning rate")


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, at: Adversary, run: Drawing
) -> Tensor:
    """Return the points of an adversary's ball that it finds hardest, searched in eval mode."""

    def loss(points: Tensor) -> Tensor:
        with run.autocast():
            logits = model(points)
        return F.cross_entropy(logits.float(), labels, reduction="sum")

    start = random_start(images, "linf", at.radius, run.rng)
    with frozen(model):
        return images + pgd(
            loss,
            images,
            norm="linf",
            eps=at.radius,
            step=at.step,
            steps=at.steps,
            towards="max",
            start=start,
        )
