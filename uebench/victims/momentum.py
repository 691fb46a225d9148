"""MoCo v2, BYOL and SimSiam: match one view of an image to a second branch's output for another.

Sources: Chen et al., "Improved Baselines with Momentum Contrastive Learning", arXiv:2003.04297;
Grill et al., "Bootstrap Your Own Latent", arXiv:2006.07733; Chen and He, "Exploring Simple Siamese
Representation Learning", arXiv:2011.10566. Rates, momenta, temperature and queue are those of
arXiv:2402.04010, which trains the three on CIFAR-10. See `contrastive.py` for what all victims
without labels share.
Departs from them: MoCo has no shuffled batch norm, which needs several GPUs, and its loss looks at
both directions. A queue that is longer than the training set holds views of the very image that is
asked for, so shorten it for small sets.
"""

from __future__ import annotations

import copy
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ..common.options import Option
from ..methods.registry import victim
from .contrastive import Contrastive, Objective, perceptron, similarity

Momentum = Annotated[float, Field(ge=0, lt=1)]


class _Branch(nn.Module):
    """An encoder and its projector."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the projections."""
        out: Tensor = self.projector(self.encoder(images).flatten(1))
        return out


class _Siamese(Objective):
    """A branch that is trained, and perhaps a copy that follows it as a running mean."""

    def __init__(self, branch: _Branch, momentum: float | None) -> None:
        super().__init__()
        self.branch = branch
        self.encoder = branch.encoder
        self.momentum = momentum
        self.follower = branch if momentum is None else copy.deepcopy(branch).requires_grad_(False)

    def loss(
        self, first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Return the mean of the losses of both directions."""
        one, other = self.branch(first), self.branch(second)
        with torch.no_grad():
            targets = one, other
            if self.momentum is not None:
                targets = self.follower(first), self.follower(second)
        return (
            self.compare(one, targets[1].detach()) + self.compare(other, targets[0].detach())
        ) / 2

    def compare(self, own: Float[Tensor, "b d"], target: Float[Tensor, "b d"]) -> Tensor:
        """Return the loss of projections, given those of the other view, which get no gradient."""
        raise NotImplementedError

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the following branch a little towards the trained one; statistics are its own."""
        if self.momentum is None:
            return
        pairs = zip(self.follower.parameters(), self.branch.parameters(), strict=True)
        for theirs, ours in pairs:
            theirs.lerp_(ours, 1 - self.momentum)


@victim("moco", title="MoCo v2", source="arXiv:2003.04297")
class MoCo(Contrastive):
    """Learns to find the other view of an image among those of a queue of earlier images."""

    rate: ClassVar[float] = 0.3
    momentum: Momentum = 0.99
    """Share that the running mean of the network keeps in each step."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.2
    """What similarities are divided by."""
    queue: Annotated[int, Field(ge=1, le=1_000_000), Option(quick=16)] = 4096
    """Earlier views that a view is compared with."""

    def objective(self, encoder: nn.Module, n_features: int) -> Objective:
        """Return the network, its running mean and the queue."""
        projector = perceptron(n_features, self.hidden, self.dim, normed=True)
        return _MoCo(_Branch(encoder, projector), self)


class _MoCo(_Siamese):
    queue: Tensor
    place: Tensor

    def __init__(self, branch: _Branch, options: MoCo) -> None:
        super().__init__(branch, options.momentum)
        self.temperature = options.temperature
        self.register_buffer("queue", F.normalize(torch.randn(options.queue, options.dim)))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self._waiting: list[Tensor] = []

    def compare(self, own: Float[Tensor, "b d"], target: Float[Tensor, "b d"]) -> Tensor:
        """Return the cross-entropy of finding the other view; it then waits to be queued."""
        own, target = F.normalize(own.float()), F.normalize(target.float())
        positive = (own * target).sum(1, keepdim=True)
        cosines = torch.cat((positive, own @ self.queue.T), 1) / self.temperature
        self._waiting.append(target)
        return F.cross_entropy(cosines, torch.zeros(len(own), dtype=torch.int64, device=own.device))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the running mean, and queue the views of this step in place of the oldest."""
        super().after_step()
        views = torch.cat(self._waiting)[-len(self.queue) :]
        rows = (self.place + torch.arange(len(views), device=views.device)) % len(self.queue)
        self.queue[rows] = views
        self.place.copy_((self.place + len(views)) % len(self.queue))
        self._waiting.clear()


class _Predicting(_Siamese):
    """A trained branch with a predictor; the loss is the negative cosine."""

    def __init__(self, branch: _Branch, predictor: nn.Module, momentum: float | None) -> None:
        super().__init__(branch, momentum)
        self.predictor = predictor

    def compare(self, own: Float[Tensor, "b d"], target: Float[Tensor, "b d"]) -> Tensor:
        """Return the negative cosine between the prediction and the other view's projection."""
        return -similarity(self.predictor(own), target)


class Predictive(Contrastive):
    """What BYOL and SimSiam share: the projection of one view is predicted from the other's."""

    hidden_predictor: Annotated[int, Field(ge=1, le=65_536), Option(quick=16)] = 512
    """Hidden units of the predictor."""

    def siamese(self, encoder: nn.Module, n_features: int, momentum: float | None) -> Objective:
        """Return the network with its predictor, and a running mean if it has a momentum."""
        projector = perceptron(n_features, self.hidden, self.dim, normed=True)
        predictor = perceptron(self.dim, self.hidden_predictor, self.dim, normed=False)
        return _Predicting(_Branch(encoder, projector), predictor, momentum)


@victim("byol", title="BYOL", source="arXiv:2006.07733")
class BYOL(Predictive):
    """Learns to predict the output of a running mean of the network for the other view."""

    rate: ClassVar[float] = 1.0
    momentum: Momentum = 0.999
    """Share that the running mean of the network keeps in each step."""

    def objective(self, encoder: nn.Module, n_features: int) -> Objective:
        """Return the network, its predictor and its running mean."""
        return self.siamese(encoder, n_features, self.momentum)


@victim("simsiam", title="SimSiam", source="arXiv:2011.10566")
class SimSiam(Predictive):
    """Learns to predict the same network's output for the other view, without its gradient."""

    rate: ClassVar[float] = 0.1

    def objective(self, encoder: nn.Module, n_features: int) -> Objective:
        """Return the network and its predictor."""
        return self.siamese(encoder, n_features, None)
