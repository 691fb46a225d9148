"""What several attacks share: descending every image's loss, endless batches, poisoned images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from uebench import Run, Split, penultimate, pgd, taken
from uebench.data.poison import Norm
from uebench.learn.loops import DivergedError, eval_batches


@runtime_checkable
class ImageLoss(Protocol):
    """A loss of images in [0, 1] and their labels, summed over the images."""

    def __call__(
        self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Return the loss."""


AT_ONCE = 128
"""Images whose noise is searched together on a CPU. 512 at a time are a third slower there, since
the activations that a network keeps for the gradient no longer fit the caches."""

ImageView = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b c h w"]]
"""A transformation through which a network sees images in [0, 1], such as an augmentation."""


def unchanged(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return the images as they are."""
    return images


def cross_entropy_of(model: nn.Module, run: Run, view: ImageView = unchanged) -> ImageLoss:
    """Return the loss that is the network's cross-entropy on `view` of the images."""

    def loss(images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        seen = view(images).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            logits = model(seen)
        return F.cross_entropy(logits.float(), labels, reduction="sum")

    return loss


def refused_if_nan(noise: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return noise that a search has found, unless `pgd` has marked it.

    Raises:
        DivergedError: it is NaN, as after a search against a network that diverged.
    """
    if not noise.flatten()[:1].isfinite().all():
        raise DivergedError(
            "the gradient of the loss is not finite, so the network diverged; lower the learning "
            "rate that it is trained with"
        )
    return noise


def descend(
    loss: ImageLoss,
    data: Split,
    labels: Int[Tensor, " n"],
    delta: Float[Tensor, "n c h w"],
    *,
    norm: Norm,
    eps: float,
    step: float,
    steps: int,
    batch_size: int,
    draws: int = 1,
    at_once: int | None = None,
    report: Callable[[float], None] = lambda share: None,
    batches: Callable[[int], Iterable[int]] = range,
) -> None:
    """Lower the loss of `labels` by changing each image's noise, in place.

    Args:
        loss: of a frozen network.
        data: the clean images.
        labels: the class that each image is pushed towards.
        delta: where the noise starts, and where it ends.
        norm: `linf` or `l2`.
        eps: the budget.
        step: length of a step.
        steps: number of steps.
        batch_size: images between two reports of progress.
        draws: draws of a random `loss` whose gradients a step sums.
        at_once: images at a time; by default what suits the device.
        report: called with the share of images that are done.
        batches: given the number of batches, yields the indices of those still to be done. The
            `steps` of a checkpoint that holds `delta` skip what a killed process had finished.
    """
    if at_once is None:
        at_once = min(batch_size, AT_ONCE) if labels.device.type == "cpu" else batch_size
    for batch in batches(-(-len(data) // batch_size)):
        end = min(len(data), (batch + 1) * batch_size)
        for start in range(batch * batch_size, end, at_once):
            part = slice(start, min(end, start + at_once))
            images = data.pixels(part).contiguous(memory_format=torch.channels_last)
            before = taken(delta, part, images.device)
            noise = pgd(
                partial(loss, labels=labels[part]),
                images,
                norm=norm,
                eps=eps,
                step=step,
                steps=steps,
                towards="min",
                start=before.contiguous(memory_format=torch.channels_last),
                draws=draws,
            )
            delta[part] = refused_if_nan(noise)
        report(end / len(data))


class Batches:
    """An endless sequence of shuffled batches whose position a checkpoint can save.

    With `whole`, the incomplete batch at the end of each order is left out.
    """

    def __init__(self, n: int, size: int, run: Run, whole: bool = False) -> None:
        self.n, self.size, self.run = n, min(size, n), run
        self.end = n - n % self.size if whole else n
        self.order: Tensor | None = None
        self.at = 0

    def __next__(self) -> Int[Tensor, " b"]:
        """Return the next batch's indices."""
        if self.order is None or self.at >= self.end:
            self.order = torch.randperm(self.n, generator=self.run.rng, device=self.run.device)
            self.at = 0
        batch = self.order[self.at : min(self.at + self.size, self.end)]
        self.at += self.size
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the current order and the position in it."""
        return {"order": self.order, "at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        order = state["order"]
        self.order, self.at = None if order is None else order.to(self.run.device), state["at"]


def noisy_images(
    data: Split, noise: Float[Tensor, "m c h w"], index: Tensor | slice, rows: Tensor | slice
) -> Float[Tensor, "b c h w"]:
    """Return clip(x + noise, 0, 1) for the images at `index`; `rows` are their rows of `noise`."""
    images = (data.pixels(index) + taken(noise, rows, data.device)).clamp_(0, 1)
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def class_means(model: nn.Module, data: Split, run: Run) -> Float[Tensor, "k d"]:
    """Return the mean penultimate features of each class on clean images, in eval mode.

    The mean of a class without images is zero.
    """
    model.eval()
    features = []
    for part in eval_batches(data):
        images = data.pixels(part).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            features.append(penultimate(model, images))
    all_features = torch.cat(features)
    sums = all_features.new_zeros(data.n_classes, all_features.shape[1])
    sums.index_add_(0, data.labels, all_features)
    counts = torch.bincount(data.labels, minlength=data.n_classes).clamp(min=1)
    return sums / counts[:, None]
