"""One projected gradient search, for every attack and for adversarial training.

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

TINY = 1e-12
"""Keeps a zero gradient from being divided by zero."""


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Hold a network in eval mode with parameters that ask for no gradient; restore both after."""
    was_training = [(module, module.training) for module in model.modules()]
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, mode in was_training:
            module.training = mode


def lengths(values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    """Return the l2 norm of each image's values, never zero."""
    norms: Tensor = values.flatten(1).norm(dim=1)
    return norms.clamp_min(TINY).view(-1, 1, 1, 1)


def project(delta: Float[Tensor, "b c h w"], norm: Norm, eps: float) -> Float[Tensor, "b c h w"]:
    """Return each image's perturbation moved to the nearest point of the ball of radius eps."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / lengths(delta)).clamp_max(1.0)


def random_start(
    images: Float[Tensor, "b c h w"], norm: Norm, eps: float, rng: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Return a random perturbation: uniform in the ball (linf), uniform on the sphere (l2)."""
    if norm == "linf":
        noise = torch.rand(images.shape, generator=rng, device=images.device)
        return noise.mul_(2 * eps).sub_(eps)
    noise = torch.randn(images.shape, generator=rng, device=images.device)
    return noise * (eps / lengths(noise))


def pgd(
    loss: Callable[[Float[Tensor, "b c h w"]], Float[Tensor, ""]],
    images: Float[Tensor, "b c h w"],
    *,
    norm: Norm,
    eps: float,
    step: float,
    steps: int,
    towards: Literal["max", "min"],
    start: Float[Tensor, "b c h w"] | None = None,
    draws: int = 1,
) -> Float[Tensor, "b c h w"]:
    """Return the perturbation that `steps` steps from `start` reach.

    Args:
        loss: the loss of perturbed images, summed over them so that no image's gradient depends on
            how many there are.
        images: in [0, 1]; not changed.
        norm: the norm of the ball and of a step.
        eps: radius of the ball.
        step: length of a step.
        steps: number of steps.
        towards: `max` climbs the loss, `min` descends it.
        start: where to begin; zero by default. It is not projected before the first step.
        draws: draws of a random `loss` whose gradients each step sums: the expectation over
            transformations.

    Returns:
        delta within the ball, with images + delta in [0, 1].
    """
    sign = 1.0 if towards == "max" else -1.0
    delta = torch.zeros_like(images) if start is None else start
    delta = (images + delta).clamp_(0, 1).sub_(images)
    for _ in range(steps):
        point = (images + delta).requires_grad_(True)
        gradient = torch.zeros_like(images)
        for _ in range(draws):
            with torch.enable_grad():
                gradient += torch.autograd.grad(loss(point), point)[0]
        gradient = gradient.sign_() if norm == "linf" else gradient / lengths(gradient)
        delta = project(delta.add(gradient, alpha=sign * step), norm, eps)
        delta = (images + delta).clamp_(0, 1).sub_(images)
    return delta
