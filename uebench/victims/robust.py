"""Robust accuracy: the share of test images that are still classified correctly under attack.

Source: Madry et al., ICLR 2018, arXiv:1706.06083: PGD of 20 steps, each 2.5 / 20 of the radius
long, from one random start.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

from ..data.poison import Norm
from ..data.split import Split
from ..learn.loops import eval_batches
from ..learn.pgd import frozen, pgd, random_start
from ..methods.run import Run

PGD_STEPS = 20


def robust_record(
    model: nn.Module, test: Split, norm: Norm, radius: float, run: Run
) -> dict[str, Any]:
    """Return the robust accuracy, in [0, 1], with its norm and radius, for a cell's record."""
    n_correct = 0
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
                    step=2.5 * radius / PGD_STEPS,
                    steps=PGD_STEPS,
                    towards="max",
                    start=random_start(images, norm, radius, run.rng),
                )
                n_correct += int((model(images + delta).argmax(1) == labels).sum())
    return {"robust_acc": n_correct / len(test), "robust_norm": norm, "robust_radius": radius}
