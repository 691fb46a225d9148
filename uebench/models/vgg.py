"""VGG-11, VGG-16 and VGG-19 with batch norm, for small images.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv:1409.1556, configurations
A, D and E, in the form that the field uses at 32 px: batch norm behind each convolution, and one
linear layer in place of three (9,231,114, 14,728,266 and 20,040,522 parameters for 10 classes).
"""

from __future__ import annotations

from functools import partial

from torch import nn

CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions of each of the five blocks, by the number of layers that the paper counts."""
FACTORS = (1, 2, 4, 8, 8)
"""Width of each block relative to the first."""


def vgg(depth: int, n_classes: int, channels: int = 3, width: int = 64) -> nn.Sequential:
    """Return a VGG network whose first block has `width` filters; each block halves the side."""
    layers: list[nn.Module] = []
    for n_layers, factor in zip(CONVOLUTIONS[depth], FACTORS, strict=True):
        for _ in range(n_layers):
            convolution = nn.Conv2d(channels, factor * width, 3, padding=1)
            layers += [convolution, nn.BatchNorm2d(factor * width), nn.ReLU(inplace=True)]
            channels = factor * width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)]
    return nn.Sequential(*layers, *head)


vgg11, vgg16, vgg19 = (partial(vgg, depth) for depth in CONVOLUTIONS)
