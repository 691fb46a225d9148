"""The ImageNet forms of the networks, taken from torchvision, for images from 96 px on.

They begin with a 7x7 or 3x3 convolution of stride 2 and, except MobileNet-V2, a max-pool. Departs
from torchvision: the first convolution is replaced if images do not have three channels, and
MobileNet-V2 has no dropout, because dropout would draw from torch's global generator.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..common.errors import UserError

FIRST = {"resnet18": "conv1", "resnet50": "conv1", "densenet121": "features.conv0"}
FIRST |= {"mobilenet_v2": "features.0.0"}
"""Where each network's first convolution is."""


def ordinary(name: str, n_classes: int, channels: int = 3) -> nn.Module:
    """Return torchvision's network of that name, untrained.

    Raises:
        UserError: torchvision cannot be imported with this torch.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"{name} for images from 96 px on is torchvision's, which does not load "
            f"({str(error).splitlines()[0]}); install the torchvision that belongs to this torch, "
            f"or take {name}[form=cifar]"
        ) from None
    options: dict[str, Any] = {"dropout": 0.0} if name == "mobilenet_v2" else {}
    model: nn.Module = getattr(models, name)(weights=None, num_classes=n_classes, **options)
    if channels != 3:
        _take_channels(model, FIRST[name], channels)
    return model


def _take_channels(model: nn.Module, path: str, channels: int) -> None:
    """Replace a network's first convolution by one for another number of channels."""
    parent, _, last = path.rpartition(".")
    old = model.get_submodule(path)
    assert isinstance(old, nn.Conv2d)
    fresh = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=False,
    )
    setattr(model.get_submodule(parent), last, fresh)
