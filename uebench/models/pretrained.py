"""ResNet-18 with weights trained on ImageNet, for transfer to another data set.

Source: Figure 4 of arXiv:2303.15127. Where the paper says nothing, these choices are ours: the
network itself resizes images to 224 px (bilinear) and normalises them by ImageNet's mean and
standard deviation, so that attacks and defenses work in [0, 1] at the images' own size; the head is
new, and all layers are trained.

The user provides the weights as a file: torchvision's state dict (.pth), or .safetensors. No code
in the file is executed. Its content enters the key, its path does not.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..common.errors import UserError
from ..data.sources import default_data_dir
from .ordinary import ordinary
from .weights import fitting, read_state

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILE = "resnet18-f37072fd.pth"
"""The name of torchvision's file of ImageNet weights for ResNet-18."""


class Prepared(nn.Module):
    """Resize and normalise images as in a network's pretraining, then apply the network.

    Args:
        model: the network.
        size: the side in pixels that images are resized to; 0 keeps their own.
        normalise: whether to subtract ImageNet's mean and divide by its standard deviation.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, model: nn.Module, size: int, normalise: bool) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.normalise = normalise
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(SD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of images in [0, 1]; grey ones get three channels to be normalised."""
        if self.normalise and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.size and x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        if self.normalise:
            x = (x - self.mean) / self.sd
        out: Tensor = self.model(x.contiguous(memory_format=torch.channels_last))
        return out


def resnet18_imagenet(
    n_classes: int, channels: int = 3, weights: str = "", sha256: str = "", size: int = 224
) -> nn.Module:
    """Return ResNet-18 with the weights of a file and a new head.

    Args:
        n_classes: outputs of the new head.
        channels: of the images, 1 or 3.
        weights: the file; if empty, `default_file()`.
        sha256: the expected hash of the file, or empty.
        size: the side in pixels that images are resized to.

    Raises:
        UserError: the file is missing, is not a ResNet-18, or has changed since planning.
    """
    state, content_sha256 = read_weights(weights)
    if sha256 and content_sha256 != sha256:
        raise UserError(
            f"resnet18_imagenet: {weights or default_file()} was changed since the cell was "
            "planned; run again"
        )
    model = ordinary("resnet18", n_classes)
    model.load_state_dict(
        state, strict=False
    )  # read_weights has checked that only the head is missing
    return Prepared(model, size, normalise=True)


def default_file() -> Path:
    """Return the default place of the weights: torchvision's file name, next to the data sets."""
    return default_data_dir() / FILE


def pin(weights: str) -> str:
    """Check that a file holds the weights of a ResNet-18, and return its sha256.

    Raises:
        NoWeightsError: it is missing.
        UserError: it holds something else.
    """
    path = Path(weights).expanduser() if weights else default_file()
    try:
        status = path.stat()
    except OSError:
        status = None
    return _pinned(weights, f"{path}", status and (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _pinned(weights: str, path: str, state: tuple[int, int] | None) -> str:
    """Return the sha256 of the file; `state` makes the cache notice that the file changed."""
    return read_weights(weights)[1]


def read_weights(weights: str) -> tuple[dict[str, Tensor], str]:
    """Return a file's state dict without its head, and the sha256 of the file.

    Raises:
        NoWeightsError: the file is missing.
        UserError: it is not a ResNet-18.
    """
    path = Path(weights).expanduser() if weights else default_file()
    advice = (
        f"put torchvision's ImageNet weights of ResNet-18 there ({FILE}), or name the file: "
        "resnet18_imagenet[weights=FILE]"
    )
    state, sha256 = read_state(path, "resnet18_imagenet", advice)
    with torch.device("meta"):
        model = ordinary("resnet18", 2)
    return fitting(state, model, "fc", f"resnet18_imagenet: {path}"), sha256
