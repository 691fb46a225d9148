"""Robust accuracy: how many test images stay rightly predicted within a ball around each.

Source: Madry et al., ICLR 2018, arXiv:1706.06083: PGD of 20 steps of 2.5 / 20 of the radius from a
random start, once.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

from ..data.poison import Norm
from ..data.split import Split
from ..learn.loops import eval_batches
from ..learn.pgd import frozen, pgd, random_start
from ..methods.base import Defense
from ..methods.run import Run

STEPS = 20


def ball_of(defense: Defense, norm: Norm = "linf", eps: float = 8 / 255) -> tuple[Norm, float]:
    """Return norm and radius to attack in: the defense's own, else half of the poison's budget.

    Args:
        defense: resolved; adversarial training has `norm` and `radius`.
        norm: of the poison's budget; `linf` on clean data.
        eps: of the poison's budget; 8/255 on clean data.
    """
    own, radius = getattr(defense, "norm", None), getattr(defense, "radius", None)
    if own in ("linf", "l2") and isinstance(radius, float):
        return own, radius
    return norm, eps / 2


def robust_record(
    model: nn.Module, test: Split, norm: Norm, radius: float, run: Run
) -> dict[str, Any]:
    """Return the robust accuracy, in [0, 1], with its norm and radius, for a cell's record."""
    right = 0
    with frozen(model):
        for part in eval_batches(test):
            images, labels = test.pixels(part), test.labels[part]
            with run.autocast():
                delta = pgd(
                    lambda x, labels=labels: F.cross_entropy(  # type: ignore[misc]
                        model(x).float(), labels, reduction="sum"
                    ),
                    images,
                    norm=norm,
                    eps=radius,
                    step=2.5 * radius / STEPS,
                    steps=STEPS,
                    towards="max",
                    start=random_start(images, norm, radius, run.rng),
                )
                right += int((model(images + delta).argmax(1) == labels).sum())
    return {"robust_acc": right / len(test), "robust_norm": norm, "robust_radius": radius}
