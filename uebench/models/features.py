"""Penultimate features: what a network's last linear layer gets, for objectives on features."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..common.errors import UserError


def penultimate(model: nn.Module, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
    """Return the input of a network's last linear layer, in float32; gradients pass.

    Every network of this package has such a layer, behind the pooling over all positions.

    Args:
        model: a network; its mode stays as it is.
        images: in [0, 1].

    Raises:
        UserError: the network has no linear layer.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(
            f"{type(model).__name__} has no linear layer whose input could be its features; "
            "choose another surrogate, such as resnet18"
        )
    inputs: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0])

    handle = linear[-1].register_forward_pre_hook(keep)
    try:
        model(images)
    finally:
        handle.remove()
    return inputs[-1].flatten(1).float()
