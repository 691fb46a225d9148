"""What defenses that mix images share: the loss of a mixture, and fast images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uebench.augment import Mixture


def mixed_cross_entropy(
    logits: Float[Tensor, "b k"],
    labels: Int[Tensor, " b"],
    mixed: Mixture,
    cross_entropy: Callable[..., Tensor],
) -> Float[Tensor, " b"]:
    """Return the losses for both labels of each mixture, weighted by their shares."""
    own = cross_entropy(logits, labels, reduction="none")
    other = cross_entropy(logits, labels[mixed.partner], reduction="none")
    return torch.lerp(other, own, mixed.share)


def dense(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return the images in channels-last memory format, in which convolutions are faster."""
    return images.contiguous(memory_format=torch.channels_last)
