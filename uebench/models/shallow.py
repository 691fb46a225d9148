"""Shallow networks: LeNet-5, perceptrons of two and three layers, and a linear model.

They reverse rankings: a poison that no deep network learns from may leave a perceptron unharmed
(arXiv:2603.03725 compares them). `lenet5` is LeCun et al., "Gradient-Based Learning Applied to
Document Recognition", 1998, in the form that the field uses: ReLU, max-pooling, and three linear
layers (62,006 parameters for 10 classes of colour images). It sees 32x32 px: smaller images are
padded with zeros, as the source pads digits of 28 px, and of larger ones the last feature maps are
averaged down to 5x5. The perceptrons and the linear model see the pixels themselves, so their size
depends on that of the images; 512 hidden units are our choice.
"""

from __future__ import annotations

import itertools
import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 32
"""Pixels of a side for which LeNet-5 was made."""


class Padded(nn.Module):
    """Zeros around images that are smaller than 32x32 px, on all sides alike."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h1 w1"]:
        """Return the images, none of their sides shorter than 32 px."""
        high, wide = (max(0, SIDE - size) for size in x.shape[2:])
        return F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))


def lenet5(n_classes: int, channels: int = 3) -> nn.Sequential:
    """Return LeNet-5 with 6 and 16 filters of 5x5 and linear layers of 120 and 84 units."""
    return nn.Sequential(
        Padded(),
        *(nn.Conv2d(channels, 6, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(5), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(inplace=True)),
        *(nn.Linear(120, 84), nn.ReLU(inplace=True)),
        nn.Linear(84, n_classes),
    )


def linear(n_classes: int, shape: tuple[int, int, int]) -> nn.Sequential:
    """Return one linear layer from the pixels to the classes (30,730 parameters for CIFAR-10)."""
    return _perceptron([math.prod(shape), n_classes])


def mlp2(n_classes: int, shape: tuple[int, int, int], width: int = 512) -> nn.Sequential:
    """Return a perceptron of two layers, with `width` hidden units and ReLU."""
    return _perceptron([math.prod(shape), width, n_classes])


def mlp3(n_classes: int, shape: tuple[int, int, int], width: int = 512) -> nn.Sequential:
    """Return a perceptron of three layers, with `width` units in both hidden layers and ReLU."""
    return _perceptron([math.prod(shape), width, width, n_classes])


def _perceptron(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])
