"""Promises of every victim: a judged model of any data set, one per seed, and data left intact."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..data import Dataset
from ..learn.protocol import PROTOCOLS
from ..methods.registry import build_defense
from ..methods.victim import Target, Trained
from .data import CASES, LARGE, case, facts_of, make_run
from .defending import TARGET, check_same_twice
from .generators import DRAW
from .promises import demand, promised_by
from .stand_in import some_gpu
from .subject import Subject

_PROTOCOL = PROTOCOLS["quick"].model_copy(update={"epochs": 2, "batch_size": 16})
_JUDGED = "return target.judged(model, data, run)"


def _trained(subject: Subject, dataset: Dataset, **options: Any) -> Trained:
    """Return what a victim trains on a data set, having checked that the images are intact."""
    run = make_run(dataset, epochs=_PROTOCOL.epochs, **options)
    standard = build_defense("standard").resolve(facts_of(dataset))
    train, test = dataset.train.to(run.device), dataset.test.to(run.device)
    images, labels = train.images.clone(), train.labels.clone()
    target = Target(TARGET, _PROTOCOL, standard, test, train)
    trained = subject.victim(dataset, _PROTOCOL.epochs).train(train, target, run)
    demand(
        isinstance(trained, Trained),
        f"`train` returns a {type(trained).__name__}",
        _JUDGED,
    )
    demand(
        torch.equal(images, train.images) and torch.equal(labels, train.labels),
        "`train` changed the data that it was given",
        "work on data.pixels() or on a clone",
    )
    return trained


@promised_by("victim", cases=CASES, costly=LARGE, remedy="write `train` for any size and classes")
def judging(subject: Subject, name: str) -> None:
    """It trains on images of any size and number of classes, and its model is judged on the test.

    The accuracy that it records is that of the model that it returns.
    """
    dataset = case(name)
    trained = _trained(subject, dataset)
    model, record = trained.model, trained.record
    demand(isinstance(model, nn.Module), "its model is not a torch.nn.Module", _JUDGED)
    with torch.no_grad():
        logits = model.eval()(dataset.test.pixels())
    demand(
        logits.shape == (len(dataset.test), dataset.n_classes),
        f"its model returns {list(logits.shape)}",
        "return a model from images in [0, 1] to one logit per class",
    )
    hits = (logits.argmax(1) == dataset.test.labels).float().mean().item()
    demand(
        abs(record.get("test_acc", -1) - hits) < 1e-6,
        f"it records a test accuracy of {record.get('test_acc')}, and its model has {hits}",
        _JUDGED,
    )


@promised_by("victim", remedy=DRAW)
def randomness__(subject: Subject, _: str) -> None:
    """Training is the same twice; global generators are neither read nor set."""
    dataset = case("unequal classes")
    check_same_twice(lambda: _trained(subject, dataset))


@promised_by("victim", remedy="run networks inside `with run.autocast():`")
def precision__(subject: Subject, _: str) -> None:
    """It trains in bf16 too, which GPUs and newer processors take."""
    _trained(subject, case("two classes"), precision="bf16")


@promised_by("victim", remedy="make tensors with device=run.device, and move nothing to the CPU")
def gpu__(subject: Subject, _: str) -> str:
    """It trains on a GPU, or on a stand-in for one where there is none."""
    with some_gpu() as (device, name):
        _trained(subject, case("two classes"), device=device)
    return name
