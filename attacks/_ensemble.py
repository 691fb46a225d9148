"""The search that SEP, SEP-FA and SEP-FA-VR share: noise against checkpoints of one training.

Source: Chen et al., "Self-Ensemble Protection: Training Checkpoints Are Good Data Protectors", ICLR
2023, arXiv:2211.12005, and its authors' code.
"""

from __future__ import annotations

from itertools import cycle
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
    Training,
    UserError,
    auto,
    penultimate,
)

from ._shared import ImageLoss, class_means, cross_entropy_of, descend

KEPT = 30
"""Checkpoints of the training that the authors keep; attacks that use every second one share it."""


class SelfEnsemble(Attack):
    """Noise that moves each image to another class in all checkpoints of one network."""

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change of one pixel value, in the pixel range [0, 1]; the paper's main table has
    2/255."""
    class_shift: Annotated[int, Field(ge=1, le=1_000_000), Auto(), Option(variant=True)] = auto()
    """By how many classes an image is to move; auto: half of their number, as the authors."""
    surrogate: Annotated[str, Option(variant=True)] = "auto"
    """The network that is trained on clean images; auto: the protocol's (paper: resnet18)."""
    surrogate_epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=4, variant=True)] = 120
    """Epochs of the network's training, at least as many as checkpoints."""
    checkpoints: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 30
    """Equidistant epochs whose networks are attacked together."""
    steps: Annotated[int, Field(ge=1, le=10_000), Option(quick=2, variant=True)] = 30
    """Signed-gradient steps of every image's noise."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Option(variant=True)] = 1 / 255
    """Length of such a step in the pixel range [0, 1]."""
    batch_size: Annotated[int, Field(ge=1, le=65_536), Option(quick=16, variant=True)] = 512
    """Images per step of the noise."""

    def resolve(self, facts: Facts) -> SelfEnsemble:
        """Return the attack with network and class shift filled in."""
        name = self.info.name
        if facts.n_classes < 2:
            raise UserError(
                f"{name} moves images to another class, and the data set has {facts.n_classes}; "
                "it needs at least 2 classes"
            )
        if self.checkpoints > self.surrogate_epochs:
            raise UserError(
                f"{name}: checkpoints={self.checkpoints} exceeds surrogate_epochs="
                f"{self.surrogate_epochs}, of which each gives at most one; lower the first or "
                "raise the second"
            )
        filled = self.with_options(surrogate=facts.surrogate_for(self.surrogate)).fill_auto(
            class_shift=facts.n_classes // 2
        )
        if filled.class_shift % facts.n_classes == 0:
            raise UserError(
                f"{name}: class_shift={filled.class_shift} leads each of {facts.n_classes} classes "
                "to itself; choose a number that is no multiple of the number of classes"
            )
        return filled

    def image_passes(self, n: int) -> int:
        """Return the passes of the network's training and of the noise."""
        return n * (self.surrogate_epochs + self.steps * self.checkpoints)

    def targets(self, data: Split) -> Int[Tensor, " n"]:
        """Return the class that each image is moved to."""
        return (data.labels + self.class_shift) % data.n_classes

    def losses(self, models: list[nn.Module], data: Split, run: Run) -> list[ImageLoss]:
        """Return what the noise lowers in each checkpoint, for labels that are the target classes.

        Args:
            models: the checkpoints.
            data: the clean training set.
            run: device, randomness and precision.
        """
        return [cross_entropy_of(model, run) for model in models]

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return noise that moves each image to its target class in all checkpoints."""
        models = self._checkpoints(data, run)
        for model in models:
            model.requires_grad_(False)
        labels = self.targets(data)
        delta = run.zeros(*data.images.shape)
        loop = run.checkpoint("noise", delta=delta)
        losses = self.losses(models, data, run)
        batches = torch.arange(len(data), device=run.device).split(self.batch_size)
        for number in loop.steps(len(batches)):
            rows = batches[number]
            place = slice(int(rows[0]), int(rows[-1]) + 1)
            delta[place] = self.search(losses, data.subset(rows), labels[rows], run)
            run.progress((number + 1) / len(batches), f"{self.info.name} noise")
        return delta

    def search(
        self, losses: list[ImageLoss], part: Split, labels: Int[Tensor, " b"], run: Run
    ) -> Float[Tensor, "b c h w"]:
        """Return the noise of a batch: steps along the sum of all checkpoints' gradients."""
        delta = torch.zeros(part.images.shape, device=run.device)
        turn = cycle(losses)

        def loss(images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            return next(turn)(images, labels)

        descend(
            loss,
            part,
            labels,
            delta,
            norm="linf",
            eps=self.eps,
            step=self.step,
            steps=self.steps,
            batch_size=len(part),
            draws=len(losses),
        )
        return delta

    def _checkpoints(self, data: Split, run: Run) -> list[nn.Module]:
        """Return the networks, taken from the authors' 30 epochs where these include them."""
        every = KEPT // self.checkpoints if KEPT % self.checkpoints == 0 else 1
        if self.checkpoints * every > self.surrogate_epochs:
            every = 1
        models = run.surrogates(
            data,
            self.surrogate,
            checkpoints=self.checkpoints * every,
            epochs=self.surrogate_epochs,
            training=Training(drops=(75 / 120, 90 / 120), warmup=1),
        )
        return models[every - 1 :: every]


class FeatureEnsemble(SelfEnsemble):
    """Noise that moves features to the mean of another class in all checkpoints of one network."""

    def targets(self, data: Split) -> Int[Tensor, " n"]:
        """Return the class that each image is moved to: the next one that has images, and a mean.

        Images that are all of one class are moved to the mean of that class.
        """
        k = data.n_classes
        present = data.labels.unique().tolist()
        table = torch.zeros(k, dtype=data.labels.dtype, device=data.labels.device)
        for label in present:
            candidates = ((label + self.class_shift + i) % k for i in range(k))
            table[label] = next((c for c in candidates if c in present and c != label), label)
        return table[data.labels]

    def losses(self, models: list[nn.Module], data: Split, run: Run) -> list[ImageLoss]:
        """Return the distance of features to the target's mean under the same checkpoint."""
        return [feature_distance(model, class_means(model, data, run), run) for model in models]


def feature_distance(model: nn.Module, means: Float[Tensor, "k d"], run: Run) -> ImageLoss:
    """Return the mean squared distance of features to the mean of a class, summed over images."""

    def loss(images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        with run.autocast():
            features = penultimate(model, images)
        return (features - means[labels]).square().mean(1).sum()

    return loss
