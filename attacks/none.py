"""No attack: the clean training set, the first row of every table."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from uebench import Attack, Fraction255, Run, Split, UserError, attack


@attack("none", title="Clean", source="no perturbation", family="")
class NoAttack(Attack):
    """The clean training set."""

    deterministic: ClassVar[bool] = True
    norm: Literal["linf"] = "linf"
    """Not used: no image is changed."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Not used, and so not to be set: no image is changed."""

    @field_validator("eps")
    @classmethod
    def _has_no_budget(cls, eps: float) -> float:
        if eps != cls.model_fields["eps"].default:
            raise UserError("clean images have no budget; leave eps out")
        return eps

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return zeros."""
        return torch.zeros(1, device=run.device).expand(data.images.shape)
