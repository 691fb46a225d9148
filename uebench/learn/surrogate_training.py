"""Train a surrogate: a network that an attack trains on clean images."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..augment import contrastive, crop_flip, shift_flip
from ..data.split import Split, content_hash
from ..models import network_recipe
from .checkpoint import Checkpoint, Stateful
from .loops import Computing, DivergedError, accuracy, shuffled_batches
from .pgd import frozen, pgd, random_start

SURROGATE_VERSION = 2
"""Raise it when the numbers of surrogates change: stored ones are then trained again."""

MOMENTUM = 0.9
CROP_PADDING = 4
LOWEST_LR = 1e-6
"""Where a cosine schedule ends, as in the code of arXiv:2402.04010."""
FIRST_SHARE = 0.01
"""Share of the learning rate that a warm-up begins with: 0.001 of 0.1 in arXiv:2211.12005."""


class Drawing(Computing, Protocol):
    """What training needs to know about a run; `methods.run.Run` is an implementation."""

    rng: torch.Generator


class Building(Drawing, Protocol):
    """A run that also builds networks, resumes loops and reports on them."""

    device: torch.device

    def network(self, arch: str) -> nn.Module:
        """Return an untrained network."""
        ...

    def checkpoint(
        self, name: str, /, *, keep: bool = True, **parts: Tensor | Stateful
    ) -> Checkpoint:
        """Return the checkpoint of a loop, resumed if an earlier process was killed in it."""
        ...

    def progress(self, fraction: float, text: str = "") -> None:
        """Report what share of the work is done."""
        ...


class Adversary(NamedTuple):
    """The PGD adversary of an adversarially trained surrogate, in linf."""

    radius: float
    """Radius of the ball, in the pixel range [0, 1]."""
    steps: int
    """Steps of the search, which runs in eval mode."""
    step: float
    """Length of a step, in the pixel range [0, 1]."""
    random_start: bool = True
    """Whether a search starts at a random point of the ball instead of at the image."""

    def recipe(self) -> dict[str, Any]:
        """Return the fields, without a random start, so that keys of older surrogates hold."""
        return {k: v for k, v in self._asdict().items() if k != "random_start" or not v}


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
    augment: Literal["crop", "shift", "contrastive", "none"] = "crop"
    """What images go through: `crop_flip`, `shift_flip`, `contrastive` or nothing."""
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
        if self.augment == "none":
            return images.float().div_(255)
        change = shift_flip if self.augment == "shift" else contrastive
        return change(images.float().div_(255), rng, self.strength)


class Surrogate(NamedTuple):
    """Everything besides the images and the seed that determines the weights of surrogates."""

    arch: str
    epochs: int
    """Passes over the images that are not held out."""
    lr: float
    """Initial learning rate."""
    batch_size: int
    held_out: int
    """Images that only select the best epoch, at most a tenth of all; 0 takes the last epoch."""
    checkpoints: int = 0
    """Number of equidistant epochs whose weights are returned; 0: those of the best epoch alone."""
    at: Adversary | None = None
    """The adversary of an adversarial training."""
    training: Training = Training()

    def recipe(self, data: Split, precision: str) -> dict[str, Any]:
        """Return what the key of the stored weights is the hash of."""
        return {
            "data": content_hash(data),
            "classes": data.n_classes,
            **network_recipe(self.arch, data.shape),
            "epochs": self.epochs,
            "lr": self.lr,
            "batch_size": self.batch_size,
            "held_out": self.held_out,
            "precision": precision,
            "version": SURROGATE_VERSION,
            **({"checkpoints": self.checkpoints} if self.checkpoints else {}),
            **({} if self.at is None else {"at": self.at.recipe()}),
            **self.training.recipe(),
        }


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

    start = random_start(images, "linf", at.radius, run.rng) if at.random_start else None
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


def surrogate_weights(data: Split, settings: Surrogate, run: Building) -> dict[str, Tensor]:
    """Train a surrogate and return the weights of its best epoch.

    Their `held_out_acc` is the accuracy on the held-out images, -1 if none were held out. With
    `checkpoints`, the weights are those of as many equidistant epochs, and their keys begin with
    the number of the checkpoint.
    """
    epochs, checkpoints, training = settings.epochs, settings.checkpoints, settings.training
    model = run.network(settings.arch)
    n_held = min(settings.held_out, len(data) // 10)
    order = torch.randperm(len(data), generator=run.rng, device=run.device)
    held, train = data.subset(order[:n_held]), data.subset(order[n_held:])
    optimizer = torch.optim.SGD(
        model.parameters(),
        settings.lr,
        momentum=MOMENTUM,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
    )
    last_epochs = [(number + 1) * epochs // checkpoints for number in range(checkpoints)]
    loop = run.checkpoint("surrogate", model=model, optimizer=optimizer)
    loop.facts = {"best": -1.0, "weights": {}, **loop.facts}
    for epoch in loop.steps(epochs):
        schedule = (settings.lr, epoch, epochs)
        train_epoch(
            model, optimizer, train, settings.batch_size, run, schedule, settings.at, training
        )
        weights = {k: v.clone() for k, v in model.state_dict().items()}
        if epoch + 1 in last_epochs:
            number = last_epochs.index(epoch + 1)
            loop.facts["weights"] |= {f"{number} {k}": v for k, v in weights.items()}
        # without held-out images the last epoch counts as the best
        held_out_acc = accuracy(model, held, run) if n_held else float(epoch)
        if not checkpoints and held_out_acc > loop.facts["best"]:
            loop.facts |= {"best": held_out_acc, "weights": weights}
        reached = f", held-out {held_out_acc:.3f}" if n_held else ""
        run.progress((epoch + 1) / epochs, f"surrogate epoch {epoch + 1}{reached}")
    if checkpoints:
        return dict(loop.facts["weights"])
    best = loop.facts["best"] if n_held else -1.0
    return {**loop.facts["weights"], "held_out_acc": torch.tensor(best)}
