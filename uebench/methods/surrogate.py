"""Surrogates: networks that an attack trains on clean images, kept and shared by recipe.

Source of the defaults: Tao et al., "Better Safe Than Sorry", NeurIPS 2021, arXiv:2102.04716, and
its authors' code: 150 epochs of SGD, learning rate 0.1 and x0.1 at two thirds and five sixths,
batch 128, weight decay 5e-4, random crops and flips, the best epoch on 1,000 held-out training
images.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import crop_flip
from ..models import network_recipe, parse_arch
from ..store.arrays import add_bytes
from ..victims.supervised import DivergedError, accuracy, shuffled_batches

if TYPE_CHECKING:
    from ..data.split import Split
    from .base import Run

SURROGATE_VERSION = 2
"""Raised when the numbers of surrogates change, which makes the stored ones stale."""

MOMENTUM, WEIGHT_DECAY, CROP_PADDING = 0.9, 5e-4, 4


def kept_surrogate(
    data: Split, run: Run, *, arch: str, epochs: int, lr: float, batch_size: int, held_out: int
) -> nn.Module:
    """Return a network trained on `data` as the module says, from the store where it is there.

    Whoever asks with the same data, settings and poison seed gets the same network, in eval mode.

    Args:
        data: clean training images.
        run: gives device, precision and the store.
        arch: the network, such as `resnet18`.
        epochs: passes over the images that are not held out.
        lr: peak learning rate.
        batch_size: images a step.
        held_out: images, over all classes, that only choose the best epoch; a tenth where there are
            fewer than ten times as many.
    """
    arch = parse_arch(arch)[0]
    recipe = {
        "data": content_hash(data),
        "classes": data.n_classes,
        **network_recipe(arch, data.shape),
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "held_out": held_out,
        "precision": run.precision,
        "version": SURROGATE_VERSION,
    }
    found = run.kept(
        "surrogate",
        recipe,
        lambda fresh: _trained(data, fresh, arch, epochs, lr, batch_size, held_out),
    )
    held_out_acc = found.pop("held_out_acc").item()
    if held_out_acc >= 0:
        run.note(surrogate_held_out_acc=round(held_out_acc, 4))
    model = run.network(arch)
    model.load_state_dict(found)
    return model.eval()


def content_hash(data: Split) -> str:
    """Return the sha256 of a split's images and labels."""
    digest = hashlib.sha256()
    for values in (data.images, data.labels):
        add_bytes(digest, values)
    return digest.hexdigest()


def _trained(
    data: Split, run: Run, arch: str, epochs: int, lr: float, batch_size: int, held_out: int
) -> dict[str, Tensor]:
    """Return the weights of the best epoch, and how accurate it was on the held-out images."""
    model = run.network(arch)
    n_held = min(held_out, len(data) // 10)
    order = torch.randperm(len(data), generator=run.rng, device=run.device)
    judged, train = data.subset(order[:n_held]), data.subset(order[n_held:])
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    loop = run.checkpoint("surrogate", model=model, optimizer=optimizer)
    loop.facts = {"best": -1.0, "weights": {}, **loop.facts}
    for epoch in loop.steps(epochs):
        done = epoch / epochs
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 if done < 2 / 3 else 0.1 if done < 5 / 6 else 0.01)
        _epoch(model, optimizer, train, batch_size, run)
        judged_acc = accuracy(model, judged, run) if n_held else float(epoch)
        if judged_acc > loop.facts["best"]:
            loop.facts["best"] = judged_acc
            loop.facts["weights"] = {k: v.clone() for k, v in model.state_dict().items()}
        run.progress(
            (epoch + 1) / epochs, f"surrogate epoch {epoch + 1}, held-out {judged_acc:.3f}"
        )
    best = loop.facts["best"] if n_held else -1.0
    return {**loop.facts["weights"], "held_out_acc": torch.tensor(best)}


def _epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Split, batch_size: int, run: Run
) -> None:
    """Train one epoch on cropped and flipped images."""
    model.train()
    for batch in shuffled_batches(len(data), batch_size, run.rng):
        images = crop_flip(data.take(batch), run.rng, CROP_PADDING, True)
        images = images.float().div_(255).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), data.labels[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    if not loss.isfinite():
        raise DivergedError(f"the surrogate's loss is {loss.item()}; lower its learning rate")
