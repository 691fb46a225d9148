"""ResNet-18 with weights trained on ImageNet, for transfer to another data set.

Figure 4 of arXiv:2303.15127. Ours, where it is silent: images are brought to 224 px bilinearly and
normalised by ImageNet's mean and sd, both inside the network, so that attacks and defenses stay in
[0, 1] and at the images' own size; the head is new, and everything is trained on.

The weights are a file that the user puts there: torchvision's state dict (.pth), or .safetensors.
Nothing in it is run. Its content, not its path, enters the key.
"""

from __future__ import annotations

import hashlib
import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn

from ..common.errors import UserError
from .ordinary import ordinary

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILE = "resnet18-f37072fd.pth"
"""What torchvision calls its ImageNet weights of ResNet-18."""


class NoWeightsError(UserError):
    """The file of weights is not there."""


class OnImageNet(nn.Module):
    """A network that sees images enlarged and normalised as those that it was trained on."""

    mean: Tensor
    sd: Tensor

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(SD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of images in [0, 1]; grey ones are shown in three channels."""
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
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
        weights: the file; where it is empty, `default_file()`.
        sha256: what the file's content must have, if given.
        size: pixels of a side that images are brought to.

    Raises:
        ValueError: the file is missing, no ResNet-18, or has another content than planned.
    """
    state, found = read_weights(weights)
    if sha256 and found != sha256:
        raise UserError(
            f"resnet18_imagenet: {weights or default_file()} was changed since the cell was "
            "planned; run again"
        )
    model = ordinary("resnet18", n_classes)
    model.load_state_dict(state, strict=False)  # read_weights saw that the head alone is missing
    return OnImageNet(model, size)


def default_file() -> Path:
    """Return where the weights are looked for: next to the data sets, as torchvision names them."""
    chosen = os.environ.get("UEBENCH_DATA")
    folder = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("uebench")) / "data"
    return folder / FILE


def pin(weights: str) -> str:
    """Return the sha256 of a file of weights that was seen to be a ResNet-18's.

    Raises:
        NoWeightsError: it is missing.
        ValueError: it is something else.
    """
    path = Path(weights).expanduser() if weights else default_file()
    try:
        found = path.stat()
    except OSError:
        found = None
    return _pinned(weights, f"{path}", found and (found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=64)
def _pinned(weights: str, path: str, state: tuple[int, int] | None) -> str:
    """Return the sha256 of the file; `state` changes when the file does."""
    return read_weights(weights)[1]


def read_weights(weights: str) -> tuple[dict[str, Tensor], str]:
    """Return a file's state dict without its head, and the sha256 of the file.

    Raises:
        NoWeightsError: the file is missing.
        ValueError: it is no ResNet-18.
    """
    path = Path(weights).expanduser() if weights else default_file()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoWeightsError(
            f"resnet18_imagenet: {path} cannot be read ({error.strerror}); put torchvision's "
            f"ImageNet weights of ResNet-18 there ({FILE}), or name the file: "
            "resnet18_imagenet[weights=FILE]"
        ) from None
    found: Any
    try:
        if path.suffix == ".safetensors":
            found = load(data)
        else:
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        found = found.get("state_dict", found)
        state = {str(key).removeprefix("module."): value for key, value in found.items()}
    except Exception as error:  # every reader has errors of its own
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(
            f"resnet18_imagenet: {path} holds no state dict ({reason}); give torchvision's "
            f"{FILE}, or its tensors as .safetensors"
        ) from None
    return _checked(state, path), hashlib.sha256(data).hexdigest()


def _checked(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return what a ResNet-18 needs of a state dict but the head.

    Raises:
        ValueError: a tensor is missing, has another shape, or is not finite.
    """
    with torch.device("meta"):
        wanted = ordinary("resnet18", 2).state_dict()
    kept = {}
    for name, like in wanted.items():
        if name.startswith("fc.") or (name.endswith("batches_tracked") and name not in state):
            continue  # the head is new; the oldest files count no batches
        value = state.get(name)
        fits = isinstance(value, Tensor) and value.shape == like.shape
        if value is None or not fits or not value.isfinite().all():
            problem = "no" if value is None else "a wrong" if not fits else "a not finite"
            raise UserError(
                f"resnet18_imagenet: {path} has {problem} {name}; give the state dict of "
                f"torchvision's ResNet-18 ({FILE})"
            )
        kept[name] = value
    return kept
