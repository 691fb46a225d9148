"""SEP-FA-VR, self-ensemble protection with feature alignment and variance reduction.

Source: Chen et al., "Self-Ensemble Protection: Training Checkpoints Are Good Data Protectors", ICLR
2023, arXiv:2211.12005, and its authors' code.
As `sep_fa` with 15 checkpoints, but each step is prepared by 15 inner ones, as in stochastic
variance-reduced gradient descent: from x on, an inner step adds the gradient of a random checkpoint
at the inner point, less that checkpoint's gradient at x, plus the mean gradient at x, and moves the
inner point along the sign of the sum so far. The outer step is along the sign of the whole sum.
Departs from it: as `sep` does. `means=last` reproduces a slip of the authors' code, whose inner
steps compare the drawn checkpoint's features with the means of the last one.
Cost: 120 passes for the network, 900 for the noise, and 15 forward passes for the means.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import Option, Run, Split, attack
from uebench.learn.pgd import zero_or_nan

from ._ensemble import FeatureEnsemble, feature_distance
from ._shared import AT_ONCE, ImageLoss, class_means, refused_if_nan


@attack("sep_fa_vr", title="SEP-FA-VR", source="arXiv:2211.12005", family="error-maximizing")
class SEPFAVR(FeatureEnsemble):
    """Feature-aligning noise against all checkpoints, with gradients of reduced variance."""

    checkpoints: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 15
    """Equidistant epochs whose networks are attacked together."""
    inner_steps: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 15
    """Inner steps before each step; the paper's number, where the code's default is 16."""
    means: Annotated[Literal["drawn", "last"], Option(variant=True)] = "drawn"
    """Under which checkpoint the means of the inner steps are taken: the drawn one, or always the
    last."""

    def image_passes(self, n: int) -> int:
        """Return the passes of the network's training and of all inner and outer gradients."""
        return n * (self.surrogate_epochs + self.steps * (self.checkpoints + self.inner_steps))

    def losses(self, models: list[nn.Module], data: Split, run: Run) -> list[ImageLoss]:
        """Return the losses of the outer gradients, then those of the inner ones."""
        means = [class_means(model, data, run) for model in models]
        inner = means if self.means == "drawn" else [means[-1]] * len(means)
        return [
            feature_distance(model, mean, run)
            for each in (means, inner)
            for model, mean in zip(models, each, strict=True)
        ]

    def search(
        self, losses: list[ImageLoss], part: Split, labels: Int[Tensor, " b"], run: Run
    ) -> Float[Tensor, "b c h w"]:
        """Return the noise of a batch."""
        size = AT_ONCE if run.device.type == "cpu" else len(part)
        deltas = [
            self._reduced(losses, part.pixels(rows), labels[rows], run)
            for rows in torch.arange(len(part), device=run.device).split(size)
        ]
        return torch.cat(deltas)

    def _reduced(
        self,
        losses: list[ImageLoss],
        clean: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, "b c h w"]:
        """Return the noise of images that fit the device's caches together."""
        n = len(losses) // 2
        outer, inner = losses[:n], losses[n:]
        clean = clean.contiguous(memory_format=torch.channels_last)
        x = clean.clone()
        mark = torch.zeros((), device=clean.device)
        for _ in range(self.steps):
            at_x = [gradient(loss, x, labels) for loss in outer]
            mean = torch.stack(at_x).mean(0)
            point, total = x, torch.zeros_like(x)
            for _ in range(self.inner_steps):
                drawn = int(torch.randint(n, (), generator=run.rng, device=run.device))
                total += gradient(inner[drawn], point, labels) - (at_x[drawn] - mean)
                point = self._stepped(point, total, clean)
            mark += zero_or_nan(total)
            x = self._stepped(x, total, clean)
        return refused_if_nan(x - clean + mark)

    def _stepped(self, x: Tensor, direction: Tensor, clean: Tensor) -> Tensor:
        """Return the point after a step down a direction, within budget and image range."""
        delta = (x - self.step * direction.sign() - clean).clamp_(-self.eps, self.eps)
        return (clean + delta).clamp_(0, 1)


def gradient(loss: ImageLoss, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of a loss with respect to its images."""
    point = images.detach().requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(point, labels), point)
    return slope
