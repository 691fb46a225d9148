"""Surrogates: the schedule, the best epoch on held-out images, and one network for all who ask."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_run
from uebench import frozen
from uebench.data import Dataset
from uebench.learn import surrogate_training as module
from uebench.learn.loops import DivergedError
from uebench.learn.surrogate_training import Adversary, Training
from uebench.store.store import Store


def test_the_best_epoch_on_held_out_images_is_returned(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([0.2, 0.7, 0.5, 0.7, 0.6, 0.1])
    weights: list[dict[str, torch.Tensor]] = []
    rates: list[float] = []
    sizes: list[int] = []
    step = torch.optim.SGD.step

    def judged(model: torch.nn.Module, data: object, run: object) -> float:
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
        sizes.append(len(data))  # type: ignore[arg-type]
        return next(answers)

    def noted(self: torch.optim.SGD, *args: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "accuracy", judged)
    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    run = make_run(tiny)
    model = run.surrogate(tiny.train, "resnet8[width=2]", epochs=6, batch_size=18, lr=0.3)
    assert not model.training
    assert all(torch.equal(value, weights[1][key]) for key, value in model.state_dict().items())
    assert not all(torch.equal(value, weights[5][key]) for key, value in model.state_dict().items())
    assert rates == pytest.approx([0.3] * 8 + [0.03] * 2 + [0.003] * 2)  # 36 images, 2 steps each
    assert sizes == [4] * 6, "a tenth is held out where there are few images"
    assert run.notes["surrogate_held_out_acc"] == 0.7


def test_whoever_asks_for_the_same_gets_the_same(tiny: Dataset, store: Store) -> None:
    first, second = (
        make_run(tiny, seed, store=store).surrogate(tiny.train, "resnet8[width=2]", epochs=1)
        for seed in (1, 2)
    )
    x = tiny.test.pixels()
    assert torch.equal(first(x), second(x))
    assert len(list((store.base / "kept").iterdir())) == 1
    make_run(tiny, 1, store=store).surrogate(tiny.train, "resnet8[width=2]", epochs=2)
    make_run(tiny, 1, store=store, shared_seed=1).surrogate(
        tiny.train, "resnet8[width=2]", epochs=1
    )
    changed = tiny.train.with_images(tiny.train.images.flip(3))
    make_run(tiny, 1, store=store).surrogate(changed, "resnet8[width=2]", epochs=1)
    assert len(list((store.base / "kept").iterdir())) == 4


def test_a_surrogate_that_diverges_is_an_error(tiny: Dataset) -> None:
    with pytest.raises(DivergedError, match="lower its learning rate"):
        make_run(tiny).surrogate(tiny.train, "resnet8[width=2]", epochs=5, lr=1e30)


def test_checkpoints_are_the_epochs_of_one_kept_training(tiny: Dataset, store: Store) -> None:
    def ask(seed: int, checkpoints: int, epochs: int = 7) -> list[torch.nn.Module]:
        return make_run(tiny, seed, store=store).surrogates(
            tiny.train, "resnet8[width=2]", checkpoints=checkpoints, epochs=epochs
        )

    models = ask(1, 3)
    assert len(list((store.base / "kept").iterdir())) == 1
    assert not any(model.training for model in models)
    x = tiny.test.pixels()
    outputs = [model(x) for model in models]
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])
    assert all(torch.equal(a(x), b) for a, b in zip(ask(2, 3), outputs, strict=True))
    assert len(list((store.base / "kept").iterdir())) == 1, "it was trained again"
    with pytest.raises(ValueError, match="8 checkpoints cannot be taken from 7 epochs"):
        ask(1, 8)


def test_checkpoints_are_equidistant_and_end_with_the_last_epoch(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[dict[str, torch.Tensor]] = []
    train = module.train_epoch

    def noted(model: torch.nn.Module, *args: object) -> None:
        train(model, *args)  # type: ignore[arg-type]
        epochs.append({key: value.clone() for key, value in model.state_dict().items()})

    monkeypatch.setattr(module, "train_epoch", noted)
    models = make_run(tiny).surrogates(tiny.train, "resnet8[width=2]", checkpoints=3, epochs=7)
    chosen = [
        next(i for i, w in enumerate(epochs) if torch.equal(w["0.0.weight"], m["0.0.weight"]))
        for m in (model.state_dict() for model in models)
    ]
    assert chosen == [1, 3, 6]


def test_an_adversarially_trained_surrogate_sees_the_hardest_points_of_the_ball(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    adversary = Adversary(radius=4 / 255, steps=5, step=2 / 255)
    searched: list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]] = []
    search = module.adversarial

    def noted(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, *more: Any):  # type: ignore[no-untyped-def]
        points = search(model, images, labels, *more)
        with frozen(model):
            rise = F.cross_entropy(model(points), labels) - F.cross_entropy(model(images), labels)
        searched.append((model, images, points, rise))
        return points

    monkeypatch.setattr(module, "adversarial", noted)
    seen: list[torch.Tensor] = []
    forward = torch.nn.Sequential.forward

    def watched(self: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.shape[1:] == tiny.shape:
            seen.append(x.detach())
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Sequential, "forward", watched)
    run = make_run(tiny)
    run.surrogate(tiny.train, "resnet8[width=4]", epochs=3, batch_size=20, at=adversary)
    assert len(searched) == 6, "a search for each of two batches of three epochs"
    points = [points for _, _, points, _ in searched]
    assert all(any(torch.equal(p, x) for x in seen) for p in points), "the points are trained on"
    for _, images, points_of_batch, rise in searched:
        assert rise > 0
        assert (points_of_batch - images).abs().max() <= adversary.radius + 1e-6
        assert points_of_batch.min() >= 0
        assert points_of_batch.max() <= 1


@pytest.mark.parametrize(
    "changed",
    [
        {"at": Adversary(4 / 255, 1, 2 / 255)},
        {"training": Training(drops=None)},
        {"training": Training(warmup=1)},
        {"training": Training(weight_decay=1e-4)},
        {"training": Training(nesterov=True)},
        {"training": Training(augment="shift", strength=4.0)},
        {"training": Training(augment="contrastive", strength=0.4)},
    ],
    ids=str,
)
def test_another_recipe_is_another_network(
    tiny: Dataset, store: Store, changed: dict[str, Any]
) -> None:
    x = tiny.test.pixels()
    outputs = [
        make_run(tiny, store=store).surrogate(
            tiny.train, "resnet8[width=2]", epochs=3, batch_size=10, **options
        )(x)
        for options in ({}, {"training": Training()}, changed)
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert len(list((store.base / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        (Training(), [0.1] * 4 + [0.01] + [0.001]),
        (Training(drops=(0.5,)), [0.1] * 3 + [0.01] * 3),
        (Training(drops=None), [0.1, 0.0933, 0.075, 0.05, 0.025, 0.0067]),
        (Training(drops=None, warmup=2), [0.001, 0.0505, 0.1, 0.0854, 0.05, 0.0146]),
        (Training(drops=None, warmup=2, stairs=True), [0.05, 0.1, 0.1, 0.0854, 0.05, 0.0146]),
    ],
)
def test_schedules(training: Training, expected: list[float]) -> None:
    rates = [training.rate(0.1, epoch, 6) for epoch in range(6)]
    assert rates == pytest.approx(expected, abs=1e-4)
    assert training.rate(0.1, 3.9, 6) == training.rate(0.1, 3, 6), "constant within an epoch"
