"""Features: the input of a network's last linear layer, and the network without that layer."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..common.errors import UserError
from ..store.arrays import Array, as_tensor


def penultimate(model: nn.Module, images: Float[Tensor | Array, "b c h w"]) -> Float[Tensor, "b d"]:
    """Return the input of a network's last linear layer, in float32; gradients pass.

    Every network of this package has such a layer, behind the pooling over all positions.

    Args:
        model: a network; its mode stays as it is.
        images: in [0, 1].

    Raises:
        UserError: the network has no linear layer.
    """
    _, linear = last_linear(model)
    images = as_tensor(images)
    inputs: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0])

    handle = linear.register_forward_pre_hook(keep)
    try:
        model(images)
    finally:
        handle.remove()
    return inputs[-1].flatten(1).float()


def encoder_of(model: nn.Module) -> tuple[nn.Module, int]:
    """Return a network without its last linear layer, and the number of its features.

    The layer is replaced in place, so the network itself becomes the encoder.

    Raises:
        UserError: the network has no linear layer.
    """
    name, linear = last_linear(model)
    model.set_submodule(name, nn.Identity())
    return model, linear.in_features


def last_linear(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name of a network's last linear layer, and the layer."""
    linear = [(n, module) for n, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(
            f"{type(model).__name__} has no linear layer whose input could be its features; "
            "choose another surrogate, such as resnet18"
        )
    return linear[-1]
