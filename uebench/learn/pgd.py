"""Projected gradient descent and ascent, for every attack and for adversarial training.

Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
arXiv:1706.06083: signed (linf) or normalised (l2) gradient steps, projected onto the ball and then
onto the pixel range.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data.poison import Norm
from ..store.arrays import Array, as_tensor

TINY = 1e-12
"""Smallest length by which a gradient is divided, so that a zero gradient stays zero."""


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Keep a network in eval mode and its parameters without gradients; restore both afterwards."""
    was_training = [(module, module.training) for module in model.modules()]
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in was_training:
            module.training = mode


def lengths(values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    """Return the l2 norm of each image, at least `TINY`."""
    norms: Tensor = values.flatten(1).norm(dim=1)
    return norms.clamp_min(TINY).view(-1, 1, 1, 1)


def zero_or_nan(gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return 0 if all values are finite, and NaN if not; added to a result, it marks it.

    The sign of NaN is 0, so that a search against a network that diverged ends where it began and
    would pass clean images for a poison. Unlike a test, the mark does not wait for a GPU.
    """
    return (gradient * 0).sum()


def steepest(gradient: Float[Tensor, "b c h w"], norm: Norm) -> Float[Tensor, "b c h w"]:
    """Return the step of length 1 that follows each image's gradient; `gradient` is overwritten."""
    return gradient.sign_() if norm == "linf" else gradient / lengths(gradient)


def project(delta: Float[Tensor, "b c h w"], norm: Norm, eps: float) -> Float[Tensor, "b c h w"]:
    """Return the nearest perturbation of each image within the ball of radius `eps`."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / lengths(delta)).clamp_max(1.0)


def random_start(
    images: Float[Tensor, "b c h w"], norm: Norm, eps: float, rng: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Return random perturbations, uniform in the ball (linf) or on the sphere (l2)."""
    if norm == "linf":
        noise = torch.rand(images.shape, generator=rng, device=images.device)
        return noise.mul_(2 * eps).sub_(eps)
    noise = torch.randn(images.shape, generator=rng, device=images.device)
    return noise * (eps / lengths(noise))


def pgd(
    loss: Callable[[Float[Tensor, "b c h w"]], Float[Tensor, ""]],
    images: Float[Tensor | Array, "b c h w"],
    *,
    norm: Norm,
    eps: float,
    step: float,
    steps: int,
    towards: Literal["max", "min"],
    start: Float[Tensor | Array, "b c h w"] | None = None,
    draws: int = 1,
) -> Float[Tensor, "b c h w"]:
    """Return the perturbation that `steps` gradient steps from `start` lead to.

    Args:
        loss: the loss of perturbed images, summed over them so that the gradient of one image does
            not depend on the size of the batch.
        images: in [0, 1]; they are not changed.
        norm: the norm of the ball and of a step.
        eps: radius of the ball.
        step: length of a step.
        steps: number of steps.
        towards: `max` increases the loss, `min` decreases it.
        start: the first perturbation; zero by default. It is not projected before the first step.
        draws: number of evaluations of a random `loss` whose gradients are summed in each step
            (expectation over transformations).

    Returns:
        delta within the ball, with images + delta in [0, 1]. It is NaN if a gradient was not
        finite, as that of a network that diverged.
    """
    images, start = as_tensor(images), None if start is None else as_tensor(start)
    mark = torch.zeros((), device=images.device)
    sign = 1.0 if towards == "max" else -1.0
    delta = torch.zeros_like(images) if start is None else start
    delta = (images + delta).clamp_(0, 1).sub_(images)
    for _ in range(steps):
        point = (images + delta).requires_grad_(True)
        gradient = torch.zeros_like(images)
        for _ in range(draws):
            with torch.enable_grad():
                gradient += torch.autograd.grad(loss(point), point)[0]
        mark += zero_or_nan(gradient)
        delta = project(delta.add(steepest(gradient, norm), alpha=sign * step), norm, eps)
        delta = (images + delta).clamp_(0, 1).sub_(images)
    return delta + mark
