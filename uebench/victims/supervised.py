"""Train a target model under a defense and measure its accuracy.

The whole data set is kept on the device as 8-bit images, or in host memory if it is too large, and
batches are cropped and flipped on the device. Losses stay on the device until the end of the epoch,
because reading one would make Python wait for the GPU in every step.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from ..augment import crop_flip
from ..data.split import Split
from ..learn.loops import DivergedError, accuracy, n_batches, shuffled_batches
from ..learn.muon import Muon
from ..learn.protocol import Protocol
from ..methods.base import Defense
from ..methods.checked import loss_of, presented_by
from ..methods.registry import victim
from ..methods.run import Run
from ..methods.victim import Target, Trained, Victim
from ..store.arrays import chunks

BETA_OF_SQUARES = 0.999
"""Share of the running mean of squared gradients that a step of Adam keeps, as is usual."""


@victim("supervised", title="Supervised", source="arXiv:2303.15127")
class Supervised(Victim):
    """Trains a network from scratch with labels, as the protocol says, under the defense's loss."""

    uses_loss = True

    def train(self, data: Split, target: Target, run: Run) -> Trained:
        """Return the network after the protocol's last epoch.

        Raises:
            DivergedError: the loss became NaN or infinite.
        """
        return train_supervised(data, target, run)


class Normalised(nn.Module):
    """A network behind a fixed first layer that computes (x - mean) / sd for each channel."""

    mean: Tensor
    sd: Tensor

    def __init__(self, model: nn.Module, data: Split) -> None:
        super().__init__()
        self.model = model
        # counting the 256 levels is exact and fast, and takes no floating-point copy of the images
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.zeros(data.shape[0], 256, dtype=torch.int64)
        for part in chunks(data.images):
            channels = data.take(part).unbind(1)
            histograms = [torch.bincount(c.flatten(), minlength=256) for c in channels]
            counts += torch.stack(histograms).cpu()
        shares = torch.stack([count / count.sum() for count in counts]).double()
        mean = shares @ levels
        sd = (shares @ levels**2 - mean**2).clamp_min(1e-6).sqrt()
        self.register_buffer("mean", mean.float().view(1, -1, 1, 1))
        self.register_buffer("sd", sd.float().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits for images in [0, 1]."""
        out: Tensor = self.model((x - self.mean) / self.sd)
        return out


def train_model(
    data: Split, test: Split, arch: str, protocol: Protocol, defense: Defense, run: Run
) -> Trained:
    """Return a model trained on `data` under `defense` and evaluated on `test` and `data`.

    `data` is the training set that `Defense.prepare` returned.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    return train_supervised(data, Target(arch, protocol, defense, test, data), run)


def train_supervised(
    data: Split, target: Target, run: Run, model: nn.Module | None = None
) -> Trained:
    """Do what `train_model` does for a target, starting from a model if one is given.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    arch, protocol, defense, test = target.arch, target.protocol, target.defense, target.test
    run.label_smoothing = protocol.label_smoothing
    model = run.network(arch) if model is None else model
    if protocol.compile:
        model.compile()
    if protocol.normalise == "dataset":
        model = Normalised(model, data).to(run.device)
    optimizer = build_optimizer(model, protocol, run.device, len(data))
    start = time.perf_counter()
    sides = None
    if protocol.flip and protocol.alternate:
        # drawn before the checkpoint restores the generator, so a resumed run draws the same sides
        sides = torch.randint(0, 2, (len(data),), generator=run.rng, device=run.device)
    loop = target.checkpoint(run, "training", model=model, optimizer=optimizer)
    loop.facts = {"curve": [], "busy": 0.0, "augmenting": 0.0, "seconds": 0.0, **loop.facts}
    curve: list[dict[str, float]] = loop.facts["curve"]
    before = loop.facts["seconds"]
    for epoch in loop.steps(protocol.epochs):
        run.epoch = epoch
        epoch_start = time.perf_counter()
        row = _train_epoch(model, optimizer, data, protocol, defense, run, sides)
        loop.facts["busy"] += time.perf_counter() - epoch_start
        loop.facts["augmenting"] += run.augmenting.taken()
        if (epoch + 1) % protocol.eval_every == 0 and epoch + 1 < protocol.epochs:
            row["test_acc"] = accuracy(model, test, run)
            if protocol.train_curve:
                row["train_acc"] = accuracy(model, data, run)
        curve.append({"epoch": epoch + 1, **row})
        loop.facts["seconds"] = before + time.perf_counter() - start
        run.progress((epoch + 1) / protocol.epochs, f"epoch {epoch + 1}, loss {row['loss']:.3f}")
    return target.judged(
        model,
        data,
        run,
        curve,
        train_seconds=before + time.perf_counter() - start,
        images_per_second=protocol.epochs * len(data) / loop.facts["busy"],
        augment_share=loop.facts["augmenting"] / loop.facts["busy"],
    )


def build_optimizer(
    model: nn.Module, protocol: Protocol, device: torch.device, n_train: int
) -> torch.optim.Optimizer:
    """Return the protocol's optimizer for all parameters of a network."""
    if protocol.optimizer == "muon":
        n_batch = n_train / n_batches(n_train, protocol.batch_size)
        return Muon(
            model.parameters(),
            protocol.lr,
            head_lr=protocol.head_lr * n_batch,
            bias_lr=protocol.bias_lr * n_batch,
            momentum=protocol.momentum,
            rest_momentum=protocol.rest_momentum,
            nesterov=protocol.nesterov,
            weight_decay=protocol.weight_decay * n_batch,
        )
    common: dict[str, Any] = {
        "lr": protocol.lr,
        "weight_decay": protocol.weight_decay,
        "fused": device.type == "cuda",
    }
    if protocol.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if protocol.optimizer == "adam" else torch.optim.AdamW
        return kind(model.parameters(), betas=(protocol.momentum, BETA_OF_SQUARES), **common)
    return torch.optim.SGD(
        model.parameters(), momentum=protocol.momentum, nesterov=protocol.nesterov, **common
    )


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Split,
    protocol: Protocol,
    defense: Defense,
    run: Run,
    sides: Tensor | None = None,
) -> dict[str, float]:
    """Train for one epoch; return its mean loss and last learning rate.

    `sides`, int64 [n] of 0 and 1, says whether an image is flipped in odd (0) or even (1) epochs.
    """
    model.train()
    batches = shuffled_batches(len(data), protocol.batch_size, run.rng)
    total = torch.zeros((), device=run.device)
    rate = 0.0
    for i, batch in enumerate(batches):
        rate = protocol.learning_rate(run.epoch * len(batches) + i, len(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("relative_lr", 1.0)
        flip = protocol.flip if sides is None else (sides[batch] + run.epoch) % 2 == 1
        with run.augmenting:
            images = crop_flip(
                presented_by(defense, data.take(batch), run),
                run.rng,
                protocol.crop_padding,
                flip,
                protocol.crop_fill,
                size=data.shape[1:],
            )
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        images = images.contiguous(memory_format=torch.channels_last)
        with run.autocast():
            loss = loss_of(defense, model, images, data.labels[batch], run)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if protocol.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), protocol.clip_norm)
        optimizer.step()
        total += loss.detach()
    mean = total.item() / len(batches)
    if not mean < float("inf"):
        raise DivergedError(
            f"the loss is {mean} in epoch {run.epoch + 1}; lower lr, or set clip_norm or "
            "warmup_epochs"
        )
    return {"loss": mean, "lr": rate}
