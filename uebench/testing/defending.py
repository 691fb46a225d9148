"""Promises of every defense: a finite loss with gradients, data left intact, one model per seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..data import Dataset
from ..learn.protocol import PROTOCOLS, Protocol
from ..methods.base import Defense
from ..methods.checked import adjusted_by, loss_of, prepared_by, presented_by
from ..methods.run import Run
from ..methods.victim import Trained
from ..victims.supervised import train_model
from .data import CASES, LARGE, case, make_run
from .generators import DRAW, reseeded, states
from .promises import demand, promised_by
from .stand_in import some_gpu
from .subject import Subject

TARGET = "resnet9[width=2]"
"""The network that is trained in these tests."""
_EPOCHS = 4
TIMED = ("train_seconds", "images_per_second", "augment_share")


@promised_by("defense", cases=CASES, costly=LARGE, remedy="write `loss` for any size and batch")
def loss(subject: Subject, name: str) -> None:
    """The loss is a finite scalar with gradients, in the first epoch and in the last."""
    dataset = case(name)
    defense = subject.defense(dataset, _EPOCHS)
    for epoch in (0, _EPOCHS - 1):
        run = make_run(dataset, epochs=_EPOCHS)
        run.epoch = epoch
        _one_step(defense, dataset, run)


def _one_step(defense: Defense, dataset: Dataset, run: Run) -> None:
    """Check that a batch's loss has gradients and leaves model and batch as they were."""
    model = run.network(TARGET)
    images, labels = dataset.train.pixels().to(run.device), dataset.train.labels.to(run.device)
    before, named = images.clone(), labels.clone()
    with run.autocast():
        value = loss_of(defense, model, images, labels, run)
    demand(
        torch.isfinite(value),
        f"the loss is {value.item()} in epoch {run.epoch}",
        "divide by nothing that may be zero, and take logarithms by log_softmax",
    )
    value.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    demand(
        all(g is not None and torch.isfinite(g).all() for g in gradients),
        "some parameters have no gradient, or one that is NaN or infinite",
        "leave all parameters trainable, and detach only what is searched for",
    )
    demand(
        min(dataset.shape[1:]) < 10  # cutout at its default size covers images of 8 px completely
        or any(g.abs().sum() > 0 for g in gradients if g is not None),
        "all gradients are zero",
        "do not detach the loss",
    )
    demand(
        model.training and all(p.requires_grad for p in model.parameters()),
        "the model is not returned in train mode with trainable parameters",
        "search inside `with frozen(model):`, which puts the model back",
    )
    demand(
        torch.equal(images, before) and torch.equal(labels, named),
        "the batch was changed in place",
        "write images + noise instead of images += noise",
    )


@promised_by("defense", remedy="write `prepare` for any size and number of classes", cases=CASES)
def preparing(subject: Subject, name: str) -> None:
    """`prepare` returns labelled 8-bit images of the same size and leaves the given ones intact."""
    dataset = case(name)
    prepared_by(subject.defense(dataset), dataset.train, make_run(dataset))


@promised_by("defense", remedy="write `before_crop` for any size and batch", cases=CASES)
def presenting(subject: Subject, name: str) -> None:
    """`before_crop` returns images of any size and leaves the given ones intact."""
    dataset = case(name)
    defense, run = subject.defense(dataset, _EPOCHS), make_run(dataset, epochs=_EPOCHS)
    data = defense.prepare(dataset.train, run)
    before = data.images.clone()
    images = presented_by(defense, data.images, run)
    demand(
        images.dtype == torch.uint8 or (torch.isfinite(images).all() and images.abs().max() < 64),
        "`before_crop` returns floats that are not in the scale of [0, 1]",
        "divide by 255",
    )
    demand(
        torch.equal(before, data.images),
        "`before_crop` changed the images that it was given",
        "work on a copy",
    )


@promised_by("defense", remedy="set keep_prepared only where `prepare` draws nothing")
def keeping(subject: Subject, _: str) -> str:
    """What `prepare` returns does not depend on the seed where it is kept for all seeds."""
    dataset = case("odd and oblong")
    defense = subject.defense(dataset)
    if not defense.keep_prepared:
        return "nothing is kept"
    first, second = (defense.prepare(dataset.train, make_run(dataset, seed)) for seed in (1, 2))
    demand(
        torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels),
        "keep_prepared is set, but two seeds are prepared differently",
        "leave keep_prepared at False, or draw nothing in `prepare`",
    )
    return ""


@promised_by("defense", remedy=DRAW)
def randomness_(subject: Subject, _: str) -> None:
    """Training is the same twice; global generators are neither read nor set."""
    dataset = case("unequal classes")
    protocol = PROTOCOLS["quick"].model_copy(update={"epochs": 2, "batch_size": 16})
    defense = subject.defense(dataset, 2)

    def trained() -> Trained:
        run = make_run(dataset, 0, epochs=2)
        data = defense.prepare(dataset.train, run)
        return train_model(data, dataset.test, TARGET, protocol, defense, run)

    check_same_twice(trained)


def check_same_twice(train: Callable[[], Trained]) -> None:
    """Check that a training gives the same record twice, whatever the global generators hold."""
    records: list[dict[str, Any]] = []
    for world in (1, 2):
        before = reseeded(world)
        record = train().record
        demand(
            before == states(),
            "a global generator of torch or numpy was used or set",
            DRAW,
        )
        records.append({key: value for key, value in record.items() if key not in TIMED})
    demand(
        records[0] == records[1],
        "the same seed trained two different models",
        f"{DRAW}; do not depend on the time, the process or the order of a set",
    )


@promised_by("defense", remedy="return protocol.asked(warmup_epochs=1), for example")
def adjusting(subject: Subject, _: str) -> str:
    """`adjust` returns a protocol, and keeps what it may not decide."""
    protocol = PROTOCOLS["quick"]
    adjusted = adjusted_by(subject.defense(case("two classes")), protocol)
    demand(
        Protocol.model_validate(adjusted.model_dump()) == adjusted,
        "`adjust` does not return a valid protocol",
        "return protocol.asked(warmup_epochs=1), for example",
    )
    changed = [key for key, v in adjusted.model_dump().items() if getattr(protocol, key) != v]
    demand(
        not {"epochs", "arch", "eval_every"} & set(changed),
        f"`adjust` changes {', '.join(changed)}",
        "leave epochs and the network to the user: they are what tables compare",
    )
    return f"asks for {', '.join(changed)}" if changed else ""


@promised_by("defense", remedy="take the loss from float32 logits: model(images).float()")
def precision_(subject: Subject, _: str) -> None:
    """The loss is finite in bf16 too, which GPUs and newer processors take."""
    dataset = case("two classes")
    run = make_run(dataset, epochs=_EPOCHS, precision="bf16")
    _one_step(subject.defense(dataset, _EPOCHS), dataset, run)


@promised_by(
    "defense", remedy="make tensors with device=images.device, and move nothing to the CPU"
)
def gpu_(subject: Subject, _: str) -> str:
    """It prepares and trains on a GPU, or on a stand-in for one where there is none."""
    dataset = case("two classes")
    defense = subject.defense(dataset, _EPOCHS)
    with some_gpu() as (device, name):
        run = make_run(dataset, epochs=_EPOCHS, device=device)
        defense.prepare(dataset.train.to(device), run)
        _one_step(defense, dataset, run)
    return name
