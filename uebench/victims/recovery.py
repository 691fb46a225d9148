"""Recovery: measure how much a target model learned although it was trained on a poison.

Sources: the refit of the last layer on clean images (DFR) is from Sandoval-Segura et al., "What Can
We Learn from Unlearnable Datasets?", NeurIPS 2023, arXiv:2305.19254; that small random changes of
the weights bring accuracy back is from Wang et al., "Provably Unlearnable Data Examples", NDSS
2025, arXiv:2405.03316.
Departs from them: DFR refits the last epoch's model alone, not that of each epoch, and by a
convergent, penalised logistic regression on standardised features. The noise on a layer's weights
is relative to their root mean square.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from ..data.split import Split
from ..learn.loops import accuracy
from ..methods.run import Run
from ..models.features import encoder_of
from .probe import linear_probe

CLEAN_IMAGES = 5000
"""Clean training images that the last layer is refitted to, or all if there are fewer."""
DRAWS = 10
WEIGHT_NOISE = 0.1
"""Standard deviation of the noise on a layer's weights, relative to their root mean square."""


def recovery_record(model: nn.Module, clean: Split, test: Split, run: Run) -> dict[str, float]:
    """Return two accuracies on test images, in [0, 1], for a cell's record.

    `dfr_acc` is that of the model with its last layer refitted to clean training images, and
    `weight_noise_acc` is the highest over ten random changes of its weights. That draw is chosen on
    the test images, so it says what is possible and not what somebody without them would get.

    Args:
        model: the trained model, which stays unchanged.
        clean: the clean training set.
        test: the clean test set.
        run: randomness and device.
    """
    order = torch.randperm(len(clean), generator=run.rng, device=run.device)
    encoder, _ = encoder_of(copy.deepcopy(model))
    refitted = linear_probe(encoder, clean.subset(order[:CLEAN_IMAGES].to(clean.device)), run)
    noisy = [accuracy(_with_noise(model, run), test, run) for _ in range(DRAWS)]
    return {"dfr_acc": accuracy(refitted, test, run), "weight_noise_acc": max(noisy)}


@torch.no_grad()
def _with_noise(model: nn.Module, run: Run) -> nn.Module:
    """Return a copy of a model with random changes of its weights, but not of norms and biases."""
    noisy = copy.deepcopy(model)
    for weight in noisy.parameters():
        if weight.dim() > 1:
            noise = torch.randn(weight.shape, generator=run.rng, device=weight.device)
            weight.add_(noise * weight.square().mean().sqrt(), alpha=WEIGHT_NOISE)
    return noisy
