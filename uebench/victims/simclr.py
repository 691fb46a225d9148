"""SimCLR: find the other view of an image among the views of all images of the batch.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
ICML 2020, arXiv:2002.05709; learning rate and temperature as in arXiv:2308.03258, arXiv:2202.11202
and arXiv:2402.04010, which agree. See `contrastive.py` for what all victims without labels share.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ..methods.registry import victim
from .contrastive import Contrastive, Objective, perceptron


@victim("simclr", title="SimCLR", source="arXiv:2002.05709")
class SimCLR(Contrastive):
    """Learns without labels by the NT-Xent loss; judged by a linear probe on clean images."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 0.5
    """What similarities are divided by."""

    def objective(self, encoder: nn.Module, n_features: int) -> Objective:
        """Return the encoder with its projector."""
        return _SimCLR(encoder, perceptron(n_features, self.hidden, self.dim, normed=True), self)


class _SimCLR(Objective):
    def __init__(self, encoder: nn.Module, projector: nn.Module, options: SimCLR) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.temperature = options.temperature

    def loss(
        self, first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Return the NT-Xent loss of the projections."""
        z = self.projector(self.encoder(torch.cat((first, second))).flatten(1))
        return nt_xent(z, self.temperature)


def nt_xent(z: Float[Tensor, "b2 d"], temperature: float) -> Float[Tensor, ""]:
    """Return the normalised, temperature-scaled cross-entropy of two views, in float32.

    Args:
        z: projections of the first views of all images, followed by those of the second views.
        temperature: what cosines are divided by.
    """
    z = F.normalize(z.float())
    n = len(z)
    cosines = (z @ z.T).fill_diagonal_(-torch.inf) / temperature  # no view is compared with itself
    partners = torch.arange(n, device=z.device).roll(n // 2)
    return F.cross_entropy(cosines, partners)
