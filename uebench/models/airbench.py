"""The network of airbench, made to learn CIFAR-10 in few epochs.

Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, in the size
of its variant for the optimizer Muon: 64, 256 and 256 filters, 1,971,352 trained parameters for ten
classes. The first layer whitens 2x2 patches and is not trained, except for its bias. The
convolutions begin as the identity on the channels that they are given, and batch norm has no
trained scale.

Departs from it:
- The whitening is computed from the first batch that the network is trained on, after crop, flip
  and whatever a defense does to images, and not from 5,000 images beforehand. So every training,
  of a target model or of a surrogate, whitens what it sees, and a stored network keeps its filters.
- The whitening's bias is trained to the end, and not for three epochs.
- The last layer begins with weights of standard deviation 1/256 where the source draws them with
  standard deviation 1 and divides the logits by 256. With the learning rate of the last layer
  divided by 256 squared the two are the same training, and ours suits other optimizers too.
- Pooling stops where nothing is left to pool, so that images of any size from 2x2 px pass.
- `first=trained` has an ordinary trained convolution in the place of the whitening, to tell what
  the whitening does.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PATCH = 2
"""Pixels of a side of the patches that are whitened."""
REGULARISER = 5e-4
"""Added to the variances: directions in which patches hardly vary are not blown up to noise."""
MOST_VALUES = 2**23
"""Values of the batch that the covariance is estimated from: 2,730 images of 3x32x32."""
BATCH_MEMORY = 0.4
"""Share of a new batch in batch norm's running statistics; 0.1 is too slow for 200 steps."""


class Whitening(nn.Module):
    """A convolution whose filters whiten 2x2 patches: twice as many filters as a patch has values.

    The filters are the principal directions of the patches, scaled to unit variance, and their
    negatives. They are fixed by the first batch in training mode.
    """

    weight: Tensor
    fitted: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        n_values = channels * PATCH**2
        start = torch.empty(n_values, n_values)
        nn.init.orthogonal_(start)  # whoever asks before any training gets a rotation
        self.register_buffer("weight", self._filters(start, channels))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.bias = nn.Parameter(torch.zeros(2 * n_values))
        self._must_look = True

    @staticmethod
    def _filters(rows: Tensor, channels: int) -> Tensor:
        """Return the filters [2 c p p, c, p, p] of directions [c p p, c p p], one per row."""
        return torch.cat((rows, -rows)).view(-1, channels, PATCH, PATCH)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f h1 w1"]:
        """Return the whitened patches, one pixel less in height and width."""
        if self.training and self._must_look:
            if not bool(self.fitted):  # asked once: on a GPU the question waits for all its work
                self._fit(x)
            self._must_look = False
        return F.conv2d(x, self.weight, self.bias)

    @torch.no_grad()
    def _fit(self, x: Tensor) -> None:
        """Set the filters from the patches of a batch."""
        _, channels, height, width = x.shape
        x = x[: max(1, MOST_VALUES // (channels * height * width))]
        with torch.autocast(x.device.type, enabled=False):
            patches = F.unfold(x.float(), PATCH).transpose(1, 2).reshape(-1, channels * PATCH**2)
            covariance = torch.cov(patches.T, correction=0)
            variances, directions = torch.linalg.eigh(covariance)
            rows = (directions / (variances.clamp_min(0) + REGULARISER).sqrt()).T.flip(0)
        self.weight.copy_(self._filters(rows, channels))
        self.fitted.fill_(True)


def halved(x: Tensor) -> Tensor:
    """Return the largest of every 2x2 pixels; what is a single pixel wide or high stays."""
    return F.max_pool2d(x, tuple(min(2, size) for size in x.shape[2:]))


class Group(nn.Module):
    """Two convolutions, the first one followed by pooling, each normalised and through GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = self._convolution(inputs, outputs)
        self.second = self._convolution(outputs, outputs)
        self.first_norm = self._norm(outputs)
        self.second_norm = self._norm(outputs)

    @staticmethod
    def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
        """Return a 3x3 convolution that begins as the identity on as many channels as it can."""
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        with torch.no_grad():
            nn.init.dirac_(layer.weight[: min(inputs, outputs)])
        return layer

    @staticmethod
    def _norm(width: int) -> nn.BatchNorm2d:
        """Return a batch norm with a trained bias and a fixed scale of 1."""
        layer = nn.BatchNorm2d(width, momentum=BATCH_MEMORY)
        layer.weight.requires_grad_(False)
        return layer

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return the features at half of the size."""
        x = F.gelu(self.first_norm(halved(self.first(x))))
        return F.gelu(self.second_norm(self.second(x)))


class Airbench(nn.Module):
    """Whitening, three groups of convolutions, a pool over all positions and a linear layer."""

    def __init__(self, n_classes: int, channels: int, width: int, pool: str, first: str) -> None:
        super().__init__()
        self.whitening = (
            Whitening(channels)
            if first == "whitened"
            else nn.Conv2d(channels, 2 * channels * PATCH**2, PATCH)
        )
        self.groups = nn.Sequential(
            Group(2 * channels * PATCH**2, width),
            Group(width, 4 * width),
            Group(4 * width, 4 * width),
        )
        self.pool = pool
        self.head = nn.Linear(4 * width, n_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / self.head.in_features)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        x = self.groups(F.gelu(self.whitening(x)))
        x = x.amax((2, 3)) if self.pool == "max" else x.mean((2, 3))
        out: Tensor = self.head(x)
        return out


def airbench(
    n_classes: int,
    channels: int = 3,
    width: int = 64,
    pool: Literal["max", "mean"] = "max",
    first: Literal["whitened", "trained"] = "whitened",
) -> Airbench:
    """Return the network; the later groups are four times as wide as the first, `width` filters."""
    return Airbench(n_classes, channels, width, pool, first)
