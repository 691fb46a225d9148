"""MobileNet-V2 for small images.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381,
in the form that the field uses at 32 px: stem and second stage of stride 1, ReLU in place of ReLU6,
and a 1x1 convolution on the shortcut of a stride-1 block that changes its width, where the paper
has no shortcut (2,296,922 parameters for 10 classes).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and the first block's stride, one row per stage."""
STEM, LAST = 32, 1280
"""Channels of the first and of the last convolution."""


def conv_norm(
    inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution that keeps the side but for its stride, and batch norm."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Channels widened, filtered one by one, and narrowed without a rectifier."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * inputs
        self.branch = nn.Sequential(
            *conv_norm(inputs, wide),
            nn.ReLU(inplace=True),
            *conv_norm(wide, wide, 3, stride, groups=wide),
            nn.ReLU(inplace=True),
            *conv_norm(wide, outputs),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return the block's output; a block that halves the side has no shortcut."""
        out: Tensor = self.branch(x)
        return out if self.shortcut is None else out + self.shortcut(x)


def mobilenet_v2(n_classes: int, channels: int = 3, width: int = STEM) -> nn.Sequential:
    """Return MobileNet-V2 for small images; all layers are as wide as `width` of the stem says."""
    layers = [*conv_norm(channels, width, 3), nn.ReLU(inplace=True)]
    inputs = width
    for expansion, base, n_blocks, stride in STAGES:
        outputs = max(1, base * width // STEM)
        for block in range(n_blocks):
            layers.append(InvertedResidual(inputs, outputs, expansion, 1 if block else stride))
            inputs = outputs
    last = LAST * width // STEM
    layers += [*conv_norm(inputs, last), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, n_classes))
