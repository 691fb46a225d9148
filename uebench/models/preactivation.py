"""Residual networks whose blocks begin with batch norm and a rectifier: WRN-28-10 and SENet-18.

Sources: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv:1605.07146, without its dropout
(36,479,194 parameters for 10 classes); Hu et al., "Squeeze-and-Excitation Networks",
arXiv:1709.01507, in the form that the field uses at 32 px: ResNet-18 with pre-activated blocks and
a bottleneck of a sixteenth of the channels (11,260,354 parameters for 10 classes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .resnet import mean_head

REDUCTION = 16
"""How many times fewer channels the bottleneck of an excitation has."""


class Excitation(nn.Module):
    """Multiply each channel by a factor in (0, 1) that depends on the means of all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // REDUCTION
        self.squeeze = nn.Linear(width, narrow)
        self.excite = nn.Linear(narrow, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the channels times their factors."""
        factors = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * factors[:, :, None, None]


class PreActivated(nn.Module):
    """Two 3x3 convolutions, each behind batch norm and a rectifier, and a shortcut.

    Where the size changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, excited: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.excitation = Excitation(outputs) if excited else nn.Identity()
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return the block's output."""
        active = F.relu(self.norm1(x))
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        out = self.excitation(out)
        return out + (x if self.shortcut is None else self.shortcut(active))


def wrn28_10(n_classes: int, channels: int = 3, widen: int = 10) -> nn.Sequential:
    """Return a WRN-28; its stages have 16, 32 and 64 times `widen` filters."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for stage in range(3):
        outputs = (16 << stage) * widen
        for block in range(4):
            stride = 2 if stage and not block else 1
            layers.append(PreActivated(inputs, outputs, stride, excited=False))
            inputs = outputs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *mean_head(inputs, n_classes))


def senet18(n_classes: int, channels: int = 3, width: int = 64) -> nn.Sequential:
    """Return SENet-18; its four stages have `width` to 8 x `width` filters."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),  # not in place: the first block's shortcut reads the same tensor
    ]
    inputs = width
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            layers.append(PreActivated(inputs, width << stage, stride, excited=True))
            inputs = width << stage
    return nn.Sequential(*layers, *mean_head(inputs, n_classes))
