"""Passes over a data set: shuffled batches to train on, and predictions to judge by."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.split import Split

EVAL_BATCH = 500
"""Images that are judged together, at most."""
EVAL_VALUES = 2**23
"""Values of these images, at most: 55 images at 224 px."""


class Computing(Protocol):
    """What is known of how networks are evaluated; `methods.run.Run` is one."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks are evaluated."""


class DivergedError(RuntimeError):
    """The training loss became NaN or infinite."""


def shuffled_batches(n: int, batch_size: int, rng: torch.Generator) -> list[Tensor]:
    """Return the indices 0..n-1 in a new order, in batches as equal as can be.

    All images are seen in every epoch: the batches differ by at most one image, so that no small
    rest upsets batch norm.
    """
    order = torch.randperm(n, generator=rng, device=rng.device)
    return list(order.tensor_split(max(1, round(n / batch_size))))


def eval_batches(data: Split) -> list[slice]:
    """Return slices of images that are judged together."""
    size = max(1, min(EVAL_BATCH, EVAL_VALUES // math.prod(data.shape)))
    return [slice(start, start + size) for start in range(0, len(data), size)]


@torch.no_grad()
def predictions(model: nn.Module, data: Split, run: Computing) -> Tensor:
    """Return the predicted labels of all images, un-augmented, in eval mode."""
    model.eval()
    guesses = []
    for part in eval_batches(data):
        images = data.pixels(part)
        with run.autocast():
            guesses.append(model(images.contiguous(memory_format=torch.channels_last)).argmax(1))
    return torch.cat(guesses)


def accuracy(model: nn.Module, data: Split, run: Computing) -> float:
    """Return the share of images that are predicted rightly."""
    return (predictions(model, data, run) == data.labels).sum().item() / len(data)


def confusion_matrix(model: nn.Module, data: Split, run: Computing) -> Tensor:
    """Return int64 [k, k]: row true class, column predicted class."""
    k = data.n_classes
    pairs = data.labels * k + predictions(model, data, run)
    return torch.bincount(pairs, minlength=k * k).view(k, k).cpu()
