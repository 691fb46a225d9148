"""Passes over a data set: shuffled batches for training, and predictions for evaluation."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.split import Split

EVAL_BATCH = 500
"""Largest number of images that are evaluated together."""
EVAL_VALUES = 2**23
"""Largest number of pixel values that are evaluated together: those of 55 images of 224 px."""


class Computing(Protocol):
    """What evaluation needs to know about a run; `methods.run.Run` is an implementation."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that sets the precision in which networks are evaluated."""


class DivergedError(RuntimeError):
    """The training loss became NaN or infinite."""


def n_batches(n: int, batch_size: int) -> int:
    """Return how many batches of about this size `n` images are split into, at least one.

    No batch holds a single image, which batch norm cannot learn from, unless there is only one.
    """
    return max(1, min(round(n / batch_size), n // 2))


def shuffled_batches(n: int, batch_size: int, rng: torch.Generator) -> list[Tensor]:
    """Return the indices 0..n-1 in a random order, split into batches of almost equal size.

    The sizes differ by at most one image, so every image is seen once per epoch and no small last
    batch distorts the statistics of batch norm.
    """
    order = torch.randperm(n, generator=rng, device=rng.device)
    return list(order.tensor_split(n_batches(n, batch_size)))


def eval_batches(data: Split) -> list[slice]:
    """Return slices of images that are evaluated together."""
    size = max(1, min(EVAL_BATCH, EVAL_VALUES // math.prod(data.shape)))
    return [slice(start, start + size) for start in range(0, len(data), size)]


@torch.no_grad()
def predictions(model: nn.Module, data: Split, run: Computing) -> Tensor:
    """Return the predicted labels of all images, without augmentation and in eval mode."""
    model.eval()
    labels = []
    for part in eval_batches(data):
        images = data.pixels(part)
        with run.autocast():
            labels.append(model(images.contiguous(memory_format=torch.channels_last)).argmax(1))
    return torch.cat(labels)


def accuracy(model: nn.Module, data: Split, run: Computing) -> float:
    """Return the share of images that are classified correctly, in [0, 1]."""
    return (predictions(model, data, run) == data.labels).sum().item() / len(data)


def confusion_matrix(model: nn.Module, data: Split, run: Computing) -> Tensor:
    """Return int64 [k, k] counts: rows are true classes, columns are predicted classes."""
    k = data.n_classes
    pairs = data.labels * k + predictions(model, data, run)
    return torch.bincount(pairs, minlength=k * k).view(k, k).cpu()
