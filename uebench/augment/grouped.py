"""Apply each of several operations once, to all images of a batch that drew it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["apply_grouped"]


def apply_grouped(
    images: Float[Tensor, "b c h w"],
    operation: Int[Tensor, " b"],
    strength: Float[Tensor, " b"],
    changes: Sequence[Callable[[Tensor, Tensor], Tensor]],
    move: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "b c h w"]:
    """Return the images, sorted by operation, after each has gone through its operation.

    Args:
        images: in [0, 1], sorted by operation.
        operation: one number per image, ascending, on the CPU. The first `len(changes)` numbers are
            those of `changes`; all above are operations that move pixels.
        strength: one number per image, on the images' device.
        changes: functions of images and their strengths that return the changed images.
        move: the same for the operations that move pixels, which run as one; it gets the numbers
            of the operations too, on the images' device and counted from 0.
    """
    n_changes = len(changes)
    counts = operation.bincount(minlength=n_changes).tolist()
    n_moved = sum(counts[n_changes:])
    sizes = [*counts[:n_changes], n_moved]
    groups, strengths = torch.split(images, sizes), torch.split(strength, sizes)
    done = [
        change(group, its_strength)
        for change, group, its_strength, count in zip(
            changes, groups, strengths, sizes, strict=False
        )
        if count
    ]
    if n_moved:
        kinds = operation[-n_moved:].to(images.device, non_blocking=True) - n_changes
        done.append(move(groups[-1], kinds, strengths[-1]))
    return torch.cat(done)
