"""What the class-wise baselines share: every image of a class gets the pattern of its class."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from uebench import Facts, Run, Split, UserError, taken
from uebench.store.arrays import chunks


def check_classes(name: str, facts: Facts) -> None:
    """Refuse a data set with one class.

    Raises:
        UserError: there is nothing to tell apart.
    """
    if facts.n_classes < 2:
        raise UserError(f"{name} needs at least 2 classes to tell apart, got {facts.n_classes}")


def spread_over_images(
    patterns: Float[Tensor, "k c h w"], data: Split, run: Run
) -> Float[Tensor, "n c h w"]:
    """Return the pattern of each image's class."""
    delta = run.zeros(*data.images.shape)
    for part in chunks(delta):
        delta[part] = taken(patterns, data.labels[part], delta.device)
    return delta
