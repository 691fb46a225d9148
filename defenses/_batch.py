"""The base of defenses that only augment: each batch is changed, then trained on as usual."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uebench import Defense, Run


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


def dense(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return the images in channels-last memory format, in which convolutions are faster."""
    return images.contiguous(memory_format=torch.channels_last)
