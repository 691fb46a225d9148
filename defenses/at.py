"""AT, adversarial training: every batch is replaced by points that the network finds hardest.

Source: Madry et al., ICLR 2018, arXiv:1706.06083; the half-budget rule is section 4.1 of
arXiv:2303.15127, the step of a fifth of the radius that of the authors of HYPO and REM.

The field's "AT" is often another one: `at8` is what OPS, EntF, BridgePure, MI-UE and APBench print,
`at4` what REM and SEM print, and `at_l2` one of the three radii of CUDA's table (its other two are
`at_l2[radius=0.25]` and `at_l2[radius=0.75]`; its steps are shorter, 0.15 of the radius). Table 5
of OPS combines AT with an augmentation: `at8[augment=cutout]`, `mixup` or `randaugment`. The
authors of TRADES search within 8/255 by steps of 0.007: `trades[radius=8/255,step=0.007]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import (
    Auto,
    Defense,
    Facts,
    Fraction255,
    Option,
    Run,
    UserError,
    auto,
    defense,
    frozen,
    pgd,
    random_start,
)
from uebench.augment import Policy, cutout, mixup, rand_augment

from ._batch import mixed_cross_entropy


@defense("at", title="AT", source="arXiv:1706.06083", family="adversarial training")
class AdversarialTraining(Defense):
    """PGD-7 adversarial training within half of the poison's budget, in the poison's norm."""

    norm: Annotated[Literal["linf", "l2"], Auto()] = auto()
    """Norm of the ball; auto: the poison's (linf on clean data)."""
    radius: Annotated[Fraction255, Field(gt=0, le=100), Auto(("half",))] = auto("half")
    """Radius of the ball in the pixel range [0, 1]; half: half of the poison's budget (4/255 on
    clean data, and where the budget is a number of pixels or has no bound)."""
    steps: Annotated[int, Field(ge=1, le=1000), Option(variant=True)] = 7
    """Steps of the search."""
    step: Annotated[Fraction255, Field(gt=0, le=100), Auto(), Option(variant=True)] = auto()
    """Length of a step; auto: a fifth of the radius."""
    augment: Annotated[
        Literal["none", "cutout", "mixup", "randaugment", "ueraser_lite"],
        Option(later=True),
    ] = "none"
    """What is done to the images before the search, after crop and flip."""

    def resolve(self, facts: Facts) -> AdversarialTraining:
        """Return the defense with norm, radius and step filled in."""
        filled = self.fill_auto(norm=facts.norm, radius=facts.eps / 2)
        if filled.norm != facts.norm and filled.radius != self.radius:
            raise UserError(
                f"{self.info.name}: radius=half of a {facts.norm} budget says nothing about "
                f"{filled.norm}; give the radius as a number"
            )
        filled = filled.fill_auto(step=filled.radius / 5)
        for name, value in (("radius", filled.radius), ("step", filled.step)):
            if filled.norm == "linf" and value > 1:
                raise UserError(
                    f"{self.info.name}: a linf {name} lies in (0, 1], got {value:g}; divide by "
                    f"255, {name}={value:g}/255"
                )
        return filled

    def ball(self) -> tuple[Literal["linf", "l2"], float]:
        """Return the ball of the training, in which robust accuracy is measured as well."""
        return self.norm, self.radius

    def effort(self) -> float:
        """Return 1, plus two thirds for each step of the search: no weight gradients there."""
        return 1 + self.steps * 2 / 3

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy at the adversarial points of a batch."""
        if self.augment == "mixup":
            with run.augmenting:
                mixed = mixup(images, run.rng)
            points = self._search(
                model,
                mixed.images,
                lambda x: mixed_cross_entropy(model(x).float(), labels, mixed, F.cross_entropy),
                run,
            )
            return mixed_cross_entropy(model(points), labels, mixed, run.cross_entropy).mean()
        with run.augmenting:
            images = self._augmented(images, run)
        points = self.adversarial(model, images, labels, run)
        return run.cross_entropy(model(points), labels)

    def _augmented(self, images: Tensor, run: Run) -> Tensor:
        if self.augment == "cutout":
            return cutout(images, run.rng)
        if self.augment == "randaugment":
            return rand_augment(images, run.rng)
        return Policy()(images, run.rng) if self.augment == "ueraser_lite" else images

    def adversarial(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, "b c h w"]:
        """Return points within the ball that raise the loss, searched in eval mode.

        In eval mode the search leaves the running statistics of batch norm alone.
        """
        return self._search(
            model,
            images,
            lambda x: F.cross_entropy(model(x).float(), labels, reduction="none"),
            run,
        )

    def _search(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        losses: Callable[[Tensor], Tensor],
        run: Run,
    ) -> Float[Tensor, "b c h w"]:
        """Return points within the ball at which `losses` [b] are high."""
        with frozen(model):
            delta = pgd(
                lambda x: losses(x).sum(),
                images,
                norm=self.norm,
                eps=self.radius,
                step=self.step,
                steps=self.steps,
                towards="max",
                start=random_start(images, self.norm, self.radius, run.rng),
            )
        point: Tensor = (images + delta).detach()
        return point.contiguous(memory_format=torch.channels_last)


@defense("at4", title="AT (4/255)", source="arXiv:1706.06083", family="adversarial training")
class At4(AdversarialTraining):
    """PGD-10 adversarial training within 4/255 in linf, whatever the poison's budget."""

    published_as: ClassVar[str] = "at"
    norm: Annotated[Literal["linf", "l2"], Auto()] = "linf"
    """Norm of the ball; auto: the poison's."""
    radius: Annotated[Fraction255, Field(gt=0, le=100), Auto(("half",))] = 4 / 255
    """Radius of the ball in the pixel range [0, 1]; half: half of the poison's budget."""
    steps: Annotated[int, Field(ge=1, le=1000), Option(variant=True)] = 10
    """Steps of the search."""
    step: Annotated[Fraction255, Field(gt=0, le=100), Auto(), Option(variant=True)] = 0.8 / 255
    """Length of a step; auto: a fifth of the radius."""


@defense("at8", title="AT (8/255)", source="arXiv:1706.06083", family="adversarial training")
class At8(At4):
    """PGD-10 adversarial training within 8/255 in linf, whatever the poison's budget."""

    radius: Annotated[Fraction255, Field(gt=0, le=100), Auto(("half",))] = 8 / 255
    """Radius of the ball in the pixel range [0, 1]; half: half of the poison's budget."""
    step: Annotated[Fraction255, Field(gt=0, le=100), Auto(), Option(variant=True)] = 2 / 255
    """Length of a step; auto: a fifth of the radius."""


@defense("at_l2", title="AT (l2)", source="arXiv:1706.06083", family="adversarial training")
class AtL2(At4):
    """PGD-10 adversarial training in l2, whatever the poison's budget."""

    norm: Annotated[Literal["linf", "l2"], Auto()] = "l2"
    """Norm of the ball; auto: the poison's."""
    radius: Annotated[Fraction255, Field(gt=0, le=100), Auto(("half",))] = 0.5
    """Radius of the ball in the pixel range [0, 1]; half: half of the poison's budget."""
    step: Annotated[Fraction255, Field(gt=0, le=100), Auto(), Option(variant=True)] = auto()
    """Length of a step; auto: a fifth of the radius."""


@defense("trades", title="TRADES", source="arXiv:1901.08573", family="adversarial training")
class Trades(AdversarialTraining):
    """Cross-entropy on clean images, plus the divergence of the predictions within the ball.

    The search raises the divergence instead of the loss, as that of Zhang et al., ICML 2019. Ball
    and random start are those of `at`, where the authors' code starts 0.001 from each image. Clean
    and adversarial images pass the network as one batch, so that batch norm has common statistics.
    """

    beta: Annotated[float, Field(ge=0, le=1000)] = 6.0
    """Weight of the divergence."""
    steps: Annotated[int, Field(ge=1, le=1000), Option(variant=True)] = 10
    """Steps of the search."""

    def resolve(self, facts: Facts) -> Trades:
        """Return the defense with norm, radius and step filled in."""
        if self.augment == "mixup":
            raise UserError(
                "trades: augment=mixup has no single label to compare predictions with; use "
                "cutout, randaugment or ueraser_lite, or `at[augment=mixup]`"
            )
        filled = super().resolve(facts)
        assert isinstance(filled, Trades)
        return filled

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy plus `beta` times the mean divergence."""
        with run.augmenting:
            images = self._augmented(images, run)
        with frozen(model), torch.no_grad():
            target = model(images).float().log_softmax(1)

        def divergence(x: Tensor) -> Tensor:
            logits = model(x).float().log_softmax(1)
            return F.kl_div(logits, target, log_target=True, reduction="none").sum(1)

        points = self._search(model, images, divergence, run)
        logits, moved = model(torch.cat((images, points))).float().chunk(2)
        apart = F.kl_div(
            moved.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="batchmean"
        )
        return run.cross_entropy(logits, labels) + self.beta * apart
