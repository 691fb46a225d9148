"""UEraser: train on the hardest of K random augmentations of each image; presets and ablation.

Source: Qin et al., "Learning the Unlearnable: Adversarial Augmentations Suppress Unlearnable
Example Attacks", arXiv:2303.15127; Table 13 for the augmentation's numbers. What the authors'
public code does otherwise are the options `strength`, `kornia`, `draw`, `select` and `bn`.
APBench's column UEraser is `ueraser_max`, whatever its name says.
Departs from it: every image draws its own TrivialAugment operation, as the paper says, while the
code draws one per batch (`draw=batch`). Gradient clipping at 5 is that of the authors' notebook.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn

from uebench import Auto, Defense, Facts, Option, Protocol, Run, auto, defense, frozen
from uebench.augment import Policy

from ._batch import dense

SOURCE = "arXiv:2303.15127"
SHARES = {"cifar10": 50 / 200, "cifar100": 30 / 300, "svhn": 30 / 150, "imagenet_subset": 30 / 300}
"""Share of adversarial epochs in the paper, by data set; others take CIFAR-10's."""
OF_MANY_COPIES = ("repeats", "select", "bn")
"""Options without effect if no epoch uses more than one copy of an image."""

Epochs = Annotated[int, Field(ge=0, le=10_000), Auto(("auto", "all"))]


@defense("ueraser", title="UEraser", source=SOURCE, family="augmentation")
class UEraser(Defense):
    """The largest loss of K augmentations during the first epochs, one augmentation after."""

    version: ClassVar[int] = 3
    repeats: Annotated[int, Field(ge=1, le=100)] = 5
    """K, augmented copies of an image, of which the one with the largest loss counts."""
    adversarial_epochs: Epochs = auto()
    """First epochs with K copies; auto: the paper's share of the epochs (CIFAR-10: a quarter), at
    least one; all: every epoch."""
    policy: str = "p+c+t"
    """Parts of the augmentation: p plasma, c channel shuffle, t TrivialAugment or, in its place, a
    AutoAugment."""
    strength: Annotated[Literal["paper", "authors", "notebook", "2023"], Option(variant=True)] = (
        "paper"
    )
    """Whose numbers: Table 13, or those of the public code at one time or another. The plasma maps
    of the notebook change every image; with the others, each leaves half of the images alone."""
    kornia: Annotated[Literal["0.6", "0.9"], Option(variant=True)] = "0.6"
    """Whose behaviour of kornia; the paper ran 0.6."""
    draw: Annotated[Literal["image", "batch"], Option(variant=True)] = "image"
    """Whether an image or the whole batch draws a TrivialAugment operation."""
    engine: Annotated[Literal["native", "kornia"], Option(variant=True)] = "native"
    """Whose code augments; kornia needs draw=batch and the kornia that is installed."""
    select: Annotated[Literal["full", "no_grad"], Option(variant=True)] = "full"
    """full: all K copies carry gradient; no_grad: choose in eval mode, train on the chosen."""
    bn: Annotated[Literal["tiled", "loop"], Option(variant=True)] = "tiled"
    """Batch norm with select=full: over one batch of all copies, or over K batches in turn."""
    clip_norm: Annotated[float, Field(ge=0, le=1e6), Option(variant=True)] = 5.0
    """Gradient clipping that is asked for where the protocol has none."""

    @field_validator("policy")
    @classmethod
    def _known_letters(cls, value: str) -> str:
        return Policy(letters=value).letters

    def model_post_init(self, _: object) -> None:
        """Check that the options go together."""
        self._augmentation()

    def _augmentation(self) -> Policy:
        return Policy(self.policy, self.strength, self.kornia, self.draw, self.engine)

    def resolve(self, facts: Facts) -> UEraser:
        """Return the defense with its number of adversarial epochs filled in.

        Options without effect are reset, so that two specs of the same computation have one key.
        """
        fields = type(self).model_fields
        self._augmentation().check()
        if self.adversarial_epochs == 0:
            return self.with_options(**{name: fields[name].default for name in OF_MANY_COPIES})
        if self.repeats == 1:
            return self.with_options(adversarial_epochs=0, select="full", bn="tiled")
        share = max(1, round(SHARES.get(facts.dataset, 0.25) * facts.epochs))
        all_epochs = self.options()["adversarial_epochs"] == "all"
        filled = self.fill_auto(adversarial_epochs=facts.epochs if all_epochs else share)
        return filled.with_options(
            adversarial_epochs=min(filled.adversarial_epochs, facts.epochs),
            bn="tiled" if self.select == "no_grad" else self.bn,
        )

    def effort(self) -> float:
        """Return the number of copies of an image, or 1.2 for a single augmented copy."""
        return float(self.repeats) if self.repeats > 1 and self.adversarial_epochs else 1.2

    def adjust(self, protocol: Protocol) -> Protocol:
        """Ask for gradient clipping: a large K explodes at the start."""
        return protocol.asked(clip_norm=self.clip_norm)

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the mean over the images of the largest loss of their augmented copies."""
        repeats = self.repeats if run.epoch < self.adversarial_epochs else 1
        if repeats == 1:
            return run.cross_entropy(model(self._augmented(images, run)), labels)
        if self.select == "full" and self.bn == "loop":
            losses = torch.stack(
                [_losses(model, self._augmented(images, run), labels, run) for _ in range(repeats)]
            )
            return losses.amax(0).mean()
        copies = self._augmented(images.repeat(repeats, 1, 1, 1), run)
        if self.select == "full":
            losses = _losses(model, copies, labels.repeat(repeats), run)
            return losses.view(repeats, -1).amax(0).mean()
        with frozen(model), torch.no_grad():  # one draw at a time fits a CPU's caches
            losses = torch.cat(
                [_losses(model, draw, labels, run) for draw in copies.split(len(labels))]
            )
        hardest = losses.view(repeats, -1).argmax(0)
        place = hardest * len(labels) + torch.arange(len(labels), device=labels.device)
        return run.cross_entropy(model(dense(copies.index_select(0, place))), labels)

    def _augmented(self, images: Tensor, run: Run) -> Tensor:
        """Return the augmented images, each drawn independently."""
        with run.augmenting:
            return dense(self._augmentation()(images, run.rng))


@defense("ueraser_lite", title="UEraser-Lite", source=SOURCE, family="augmentation")
class UEraserLite(UEraser):
    """UEraser without adversarial epochs: one random augmentation of each image."""

    adversarial_epochs: Epochs = 0
    """First epochs with K copies."""


@defense("ueraser_max", title="UEraser-Max", source=SOURCE, family="augmentation")
class UEraserMax(UEraser):
    """UEraser with K copies in every epoch."""

    adversarial_epochs: Epochs = auto("all")
    """First epochs with K copies; all: every epoch."""


@defense("augment", title="Augmentation", source=f"{SOURCE}, Table 8", family="augmentation")
class Ablation(UEraser):
    """Parts of UEraser's augmentation; with repeats above 1 the hardest draw, as UEraser does."""

    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """K, augmented copies of an image in the adversarial epochs; 1: one draw, no maximum."""


def _losses(
    model: nn.Module, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], run: Run
) -> Float[Tensor, " b"]:
    """Return each image's cross-entropy."""
    return run.cross_entropy(model(images), labels, reduction="none")
