"""AT, adversarial training: every batch is replaced by points that the network finds hardest.

Source: Madry et al., ICLR 2018, arXiv:1706.06083; the half-budget rule is section 4.1 of
arXiv:2303.15127, the step of a fifth of the radius that of the authors of HYPO and REM.
"""

from __future__ import annotations

from typing import Annotated, Literal

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


@defense("at", title="AT", source="arXiv:1706.06083")
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

    def resolve(self, facts: Facts) -> AdversarialTraining:
        """Return the defense with norm, radius and step filled in."""
        filled = self.fill_auto(norm=facts.norm, radius=facts.eps / 2)
        if filled.norm != facts.norm and filled.radius != self.radius:
            raise UserError(
                f"at: radius=half of a {facts.norm} budget says nothing about {filled.norm}; "
                "give the radius as a number"
            )
        filled = filled.fill_auto(step=filled.radius / 5)
        for name, value in (("radius", filled.radius), ("step", filled.step)):
            if filled.norm == "linf" and value > 1:
                raise UserError(
                    f"at: a linf {name} lies in (0, 1], got {value:g}; divide by 255, "
                    f"{name}={value:g}/255"
                )
        return filled

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
        points = self.adversarial(model, images, labels, run)
        return run.cross_entropy(model(points), labels)

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
        with frozen(model):
            delta = pgd(
                lambda x: F.cross_entropy(model(x).float(), labels, reduction="sum"),
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
