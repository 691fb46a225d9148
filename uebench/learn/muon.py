"""Muon: gradients of matrices are replaced by the nearest orthogonal ones.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, and the
variant of airbench (arXiv:2404.00498) that uses it: momentum 0.6 in Nesterov's form, and filters
that are scaled back to a fixed length before every step, which takes the place of weight decay.

`torch.optim.Muon` accepts two-dimensional parameters only (torch 2.14), so that the filters of a
convolution are out of its reach; here they count as matrices of one row per filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: they raise small singular values fastest, and leave large ones within
0.7 to 1.2 instead of at 1, which does no harm to training."""
ITERATIONS = 3
"""The source takes three; small singular values then stay small, which does no harm either."""
SMALLEST_NORM = 1e-7


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix [m, n] whose singular values are all 1, by Newton-Schulz.

    It is computed in bf16, whose rounding is far smaller than what the iteration itself leaves.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    x = x / (x.norm() + SMALLEST_NORM)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x if wide else x.T).to(matrix.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Muon for the filters of convolutions, SGD with momentum for everything else.

    Args:
        parameters: all parameters of a network; those that need no gradient are left out.
        lr: length of a step of the filters, relative to their own length.
        head_lr: learning rate of matrices, which are the weights of linear layers.
        bias_lr: learning rate of vectors: biases, and the scales of normalisations.
        momentum: momentum of the filters.
        rest_momentum: momentum of everything else.
        nesterov: whether both use Nesterov's form.
        weight_decay: share of a matrix or vector that a step at full learning rate takes away.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        head_lr: float,
        bias_lr: float,
        momentum: float,
        rest_momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "orthogonal": True}
        ]
        for rate in (head_lr, bias_lr):
            groups.append(
                {
                    "lr": rate,
                    "momentum": rest_momentum,
                    "weight_decay": weight_decay / rate,
                    "orthogonal": False,
                }
            )
        for group in groups:
            group |= {"params": [], "relative_lr": group["lr"] / lr}
        for parameter in parameters:
            if parameter.requires_grad:
                place = {4: 0, 2: 1}.get(parameter.ndim, 2)
                groups[place]["params"].append(parameter)
        super().__init__([g for g in groups if g["params"]], {"nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient; there is no closure to evaluate."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._change(parameter, parameter.grad, group)

    def _change(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Change one parameter by its gradient and the momentum kept for it."""
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        if group["nesterov"]:
            gradient = gradient.add(momentum, alpha=group["momentum"])
        else:
            gradient = momentum
        if group["orthogonal"]:
            # every filter has length 1 on average, so that `lr` is a step relative to its length
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp_min(SMALLEST_NORM))
            gradient = orthogonalised(gradient.flatten(1)).view(gradient.shape)
        parameter.add_(gradient, alpha=-group["lr"])
