"""Read the weights of a network from somebody's file, and check that they fit.

No code in the file is executed.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from ..common.errors import UserError


class NoWeightsError(UserError):
    """The file of weights does not exist or cannot be read."""


def read_state(path: Path, owner: str, advice: str) -> tuple[dict[str, Tensor], str]:
    """Return the state dict in a file, .safetensors or torch's own format, and the file's sha256.

    Args:
        path: the file.
        owner: who wants it, which messages begin with.
        advice: what messages recommend if there is no such file.

    Raises:
        NoWeightsError: the file is missing or cannot be read.
        UserError: it holds no state dict.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoWeightsError(
            f"{owner}: {path} cannot be read ({error.strerror}); {advice}"
        ) from None
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load(data)
        else:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        state = {str(key).removeprefix("module."): value for key, value in content.items()}
    except Exception as error:  # each reader raises its own errors
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(
            f"{owner}: {path} holds no state dict ({reason}); give a state dict that torch.save "
            "wrote, or its tensors as .safetensors"
        ) from None
    return state, hashlib.sha256(data).hexdigest()


def fitting(
    state: dict[str, Tensor], model: nn.Module, head: str, source: str
) -> dict[str, Tensor]:
    """Return the tensors that a network needs, except those of its head.

    Args:
        state: tensors by name; those that the network does not have are left out.
        model: the network, which may be on the device `meta`.
        head: the name of its last linear layer, which is trained from scratch.
        source: what messages begin with, such as `resnet18: weights.pth`.

    Raises:
        UserError: a tensor is missing, has another shape, or is not finite.
    """
    fits = {}
    for name, like in model.state_dict().items():
        if name.startswith(f"{head}.") or (name.endswith("batches_tracked") and name not in state):
            continue  # the oldest files have no batch counters
        value = state.get(name)
        if not isinstance(value, Tensor):
            raise UserError(f"{source} has no {name}; give weights of exactly this network")
        if value.shape != like.shape:
            raise UserError(
                f"{source} has a wrong {name}, of shape {list(value.shape)} where "
                f"{list(like.shape)} is needed; give weights of exactly this network"
            )
        if not value.isfinite().all():
            raise UserError(f"{source} has NaN or infinite values in {name}; give other weights")
        fits[name] = value
    return fits
