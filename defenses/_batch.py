"""The base of defenses that only augment: each batch is changed, then trained on as usual."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uebench import Defense, Run
from uebench.augment import Mixture


class Augmented(Defense):
    """Cross-entropy on images that `augment` changes after crop and flip."""

    def augment(
        self, images: Float[Tensor, "b c h w"], rng: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Return the images, in [0, 1], as the network is to see them."""
        raise NotImplementedError(f"{type(self).__name__} has no `augment`; write it")

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy on the augmented images."""
        with run.augmenting:
            images = dense(self.augment(images, run.rng))
        return run.cross_entropy(model(images), labels)


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
