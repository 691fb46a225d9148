"""How good features are: a linear probe and nearest neighbours, on a frozen encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..data.split import Split
from ..learn.loops import eval_batches
from ..methods.run import Run

MOST_STEPS = 200
"""Steps of L-BFGS, which usually converges in fewer."""
NEIGHBOURS = 20
TEMPERATURE = 0.1
"""Neighbours vote with weights exp(cosine / 0.1), as in Wu et al., arXiv:1805.01978."""


class Probed(nn.Module):
    """A frozen encoder, its features standardised, and a linear layer."""

    mean: Tensor
    sd: Tensor

    def __init__(self, encoder: nn.Module, features: Float[Tensor, "n d"], n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("sd", features.std(0, correction=0).clamp(min=1e-6))
        size = features.shape[1], n_classes
        self.head = nn.utils.skip_init(nn.Linear, *size, device=features.device)  # draws nothing
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def standardised(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return features with the mean 0 and the standard deviation 1 of those fitted to."""
        return (features - self.mean) / self.sd

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of images in [0, 1]."""
        out: Tensor = self.head(self.standardised(self.encoder(images).flatten(1).float()))
        return out


@torch.no_grad()
def features_of(encoder: nn.Module, data: Split, run: Run) -> Float[Tensor, "n d"]:
    """Return the features of all images, without augmentation and in eval mode."""
    encoder.eval()
    features = []
    for part in eval_batches(data):
        images = data.pixels(part).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            features.append(encoder(images).flatten(1).float())
    return torch.cat(features)


def linear_probe(encoder: nn.Module, data: Split, run: Run) -> Probed:
    """Return the encoder with a logistic regression on its features.

    The penalty on the weights is 1/n times half of their squared norm, scikit-learn's default, and
    the problem is convex, so neither a learning rate nor a seed changes the result.
    """
    features = features_of(encoder, data, run)
    model = Probed(encoder, features, data.n_classes)
    inputs, head = model.standardised(features), model.head
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=MOST_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = head.weight.square().sum() / (2 * len(data))
        loss: Tensor = F.cross_entropy(head(inputs), data.labels) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


@torch.no_grad()
def neighbours_accuracy(encoder: nn.Module, bank: Split, test: Split, run: Run) -> float:
    """Return the share of test images that their nearest neighbours classify correctly.

    The 20 images of `bank` with the most similar features vote with weights exp(cosine / 0.1).
    """
    known = F.normalize(features_of(encoder, bank, run))
    hits = 0
    for part in torch.arange(len(test)).split(500):
        asked = F.normalize(features_of(encoder, test.subset(part.to(run.device)), run))
        cosines, rows = (asked @ known.T).topk(min(NEIGHBOURS, len(bank)))
        votes = torch.zeros(len(part), bank.n_classes, device=run.device)
        votes.scatter_add_(1, bank.labels[rows], (cosines / TEMPERATURE).exp())
        hits += int((votes.argmax(1) == test.labels[part.to(run.device)]).sum())
    return hits / len(test)
