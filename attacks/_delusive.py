"""What P1 to P4 of "Better Safe Than Sorry" share: a budget, and a network trained on clean images.

Source: Tao et al., NeurIPS 2021, arXiv:2102.04716, and its authors' code.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from uebench import Attack, Auto, Facts, Fraction255, Option, UserError, auto

from ._class_wise import check_classes


class CleanNetworkNoise(Attack):
    """Noise that is searched against one network, which was trained on clean images."""

    reach_steps: ClassVar[float]
    """Steps that the noise needs from zero to the border of the budget: `step`, an option of the
    subclass like `steps`, is eps over it."""
    class_wise: ClassVar[bool] = False
    """Whether there is one pattern per class, which takes two classes."""

    norm: Literal["linf", "l2"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=100), Auto()] = auto()
    """Budget in the pixel range [0, 1]; auto: 8/255, or the authors' 0.5 where norm is l2."""
    surrogate: Annotated[str, Option(variant=True)] = "auto"
    """The network that is trained on clean images; auto: the protocol's (paper: resnet18)."""
    surrogate_epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=10, variant=True)] = 150
    """Epochs of the surrogate's training; the best one on held-out images is taken: 1,000, or a
    tenth where there are fewer than 10,000."""

    def resolve(self, facts: Facts) -> CleanNetworkNoise:
        """Return the attack with budget, network and step filled in."""
        if self.class_wise:
            check_classes(self.info.name, facts)
        filled = self.with_options(surrogate=facts.surrogate_for(self.surrogate)).fill_auto(
            eps=8 / 255 if self.norm == "linf" else 0.5
        )
        if filled.norm == "linf" and filled.eps > 1:
            raise UserError(
                f"{self.info.name}: a linf eps lies in (0, 1], got {filled.eps:g}; divide by 255, "
                "or set norm=l2"
            )
        return filled.fill_auto(step=filled.eps / self.reach_steps)
