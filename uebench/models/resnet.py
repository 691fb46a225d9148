"""Residual networks for small images.

`resnet18` is He et al., arXiv:1512.03385, in the form that the field uses at 32 px: a 3x3 stem of
stride 1 and no max-pool (11,173,962 parameters for 10 classes). The 7x7 stem gives other numbers.
`resnet9` is the network of D. Page's cifar10-fast for CPUs, 16 channels wide where his has 64. Its
logits are multiplied by 1/8 as his are: without that the large learning rates of short trainings
begin at a loss far above chance, and 1,500 images never come back from it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    """Return a 3x3 convolution, max-pooled by two where asked, normalised, rectified."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two convolutions and a shortcut, at one size and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_bn(width, width), conv_bn(width, width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x plus its branch."""
        out: Tensor = x + self.branch(x)
        return out


class OpponentColours(nn.Module):
    """A fixed change of colour axes: luminance, red against blue, green against both.

    Each axis is divided by its sd on photographs (0.79, 0.23 and 0.11, from 2x2 sums of 2,000
    CIFAR-10 images), as whitening does. In raw RGB the three channels are nearly one, and a narrow
    network needs thousands of steps to see a weak colour signal; a long training finds these axes
    by itself.
    """

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
        axes = axes / axes.norm(dim=1, keepdim=True) / torch.tensor([[0.79], [0.23], [0.11]])
        self.register_buffer("weights", axes.view(3, 3, 1, 1))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images on the new axes, grey at zero."""
        return F.conv2d(x - 0.5, self.weights)


def resnet9(
    n_classes: int, channels: int = 3, width: int = 16, colours: str = "rgb"
) -> nn.Sequential:
    """Return a network of nine layers, `width` to 8 x `width` channels.

    Args:
        n_classes: number of logits.
        channels: channels of the images.
        width: channels of the first layer.
        colours: `rgb`, or `opponent` for `OpponentColours` first; other images than of three
            channels stay as they are.
    """
    first = [OpponentColours()] if colours == "opponent" and channels == 3 else []
    return nn.Sequential(
        *first,
        conv_bn(channels, width),
        conv_bn(width, 2 * width, pool=True),
        Residual(2 * width),
        conv_bn(2 * width, 4 * width, pool=True),
        conv_bn(4 * width, 8 * width, pool=True),
        Residual(8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, n_classes, bias=False),
        Scaled(0.125),
    )


class Scaled(nn.Module):
    """A multiplication by a fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Return the logits times the factor."""
        return x * self.factor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a 1x1 convolution on the shortcut where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return the block's output."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out, inplace=True)


def resnet18(n_classes: int, channels: int = 3, width: int = 64) -> nn.Sequential:
    """Return ResNet-18 for small images; `width` is that of its first stage."""
    stem = nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)
    )
    stages: list[nn.Module] = []
    inputs = width
    for stage in range(4):
        outputs = width << stage
        stages += [BasicBlock(inputs, outputs, 1 if stage == 0 else 2)]
        stages += [BasicBlock(outputs, outputs, 1)]
        inputs = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, n_classes)]
    return nn.Sequential(stem, *stages, *head)
