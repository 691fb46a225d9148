"""DenseNet-121 for small images.

Source: Huang et al., "Densely Connected Convolutional Networks", arXiv:1608.06993, in the form that
the field uses at 32 px: a 3x3 stem of stride 1, no max-pool, growth 32, transitions that halve the
channels (6,956,298 parameters for 10 classes).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

LAYERS = (6, 12, 24, 16)
"""Dense layers of each of the four blocks."""


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution, each behind batch norm; what they make is added as channels."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_before(inputs),
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            *_before(4 * growth),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Return x with `growth` more channels."""
        return torch.cat([self.branch(x), x], 1)


def densenet121(n_classes: int, channels: int = 3, growth: int = 32) -> nn.Sequential:
    """Return DenseNet-121 for small images; `growth` channels are added by each dense layer."""
    width = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for block, n_layers in enumerate(LAYERS):
        for _ in range(n_layers):
            layers.append(DenseLayer(width, growth))
            width += growth
        if block < len(LAYERS) - 1:
            layers += [*_before(width), nn.Conv2d(width, width // 2, 1, bias=False)]
            layers += [nn.AvgPool2d(2, ceil_mode=True)]
            width //= 2
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes)]
    return nn.Sequential(*layers, *_before(width), *head)


def _before(inputs: int) -> list[nn.Module]:
    """Return what stands before a convolution: batch norm and a rectifier."""
    return [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
