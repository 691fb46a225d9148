"""No attack: the clean training set, the first row of every table."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from uebench import Attack, Run, Split, attack


@attack("none", title="Clean", source="no perturbation")
class NoAttack(Attack):
    """The clean training set."""

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return zeros."""
        return torch.zeros(1, device=run.device).expand(data.images.shape)
