"""Training: schedules, batches, normalisation, and what is reported."""

import time
from dataclasses import replace

import pytest
import torch
from pydantic import PrivateAttr

from tests.conftest import make_run
from uebench import Defense, Facts
from uebench.data import Dataset
from uebench.learn.loops import DivergedError, predictions, shuffled_batches
from uebench.learn.protocol import PROTOCOLS, Protocol, named_protocol
from uebench.methods.registry import build_attack, build_defense, methods
from uebench.victims.supervised import Normalised, build_optimizer, train_model


def trained(dataset: Dataset, seed: int = 0, **changes: object) -> dict:  # type: ignore[type-arg]
    protocol = named_protocol("quick", "", **{"epochs": 3, "batch_size": 20, **changes})
    run = make_run(dataset, seed, epochs=protocol.epochs)
    standard = build_defense("standard").method
    return train_model(
        dataset.train, dataset.test, "resnet9[width=8]", protocol, standard, run
    ).record


def test_a_network_learns_and_reports_what_it_did(small: Dataset) -> None:
    facts = Facts("test", 10, small.shape, 1, "resnet9")
    easy = build_attack("lsp[eps=30]").resolve(facts).craft(small.train, make_run(small))
    record = trained(replace(small, train=small.train.with_images(easy.images)), epochs=16)
    assert record["train_acc"] > 0.9, "colours as loud as these are learned in a moment"
    assert [row["epoch"] for row in record["curve"]] == list(range(1, 17))
    assert record["curve"][-1]["loss"] < record["curve"][0]["loss"]
    confusion = torch.tensor(record["confusion"])
    assert confusion.sum() == len(small.test)
    assert confusion.trace() / len(small.test) == pytest.approx(record["test_acc"])
    best = max(row["test_acc"] for row in record["curve"])
    assert record["test_acc_best"] == best >= record["test_acc"]
    assert record["curve"][record["best_epoch"] - 1]["test_acc"] == best
    rows = [confusion[label].sum() for label in range(10)]
    assert rows == [(small.test.labels == label).sum() for label in range(10)]


def test_the_training_curve_is_measured_when_asked_and_moves_no_number(tiny: Dataset) -> None:
    plain = trained(tiny, epochs=4, eval_every=2)
    asked = trained(tiny, epochs=4, eval_every=2, train_curve=True)
    assert not any("train_acc" in row for row in plain["curve"])
    assert [row["epoch"] for row in asked["curve"] if "train_acc" in row] == [2, 4]
    assert asked["curve"][-1]["train_acc"] == asked["train_acc"] == plain["train_acc"]
    losses = [[row["loss"] for row in record["curve"]] for record in (plain, asked)]
    assert losses[0] == losses[1]
    assert named_protocol("quick", "", train_curve=True).name == "quick"


def test_the_test_set_is_looked_at_only_when_asked(tiny: Dataset) -> None:
    curve = trained(tiny, epochs=5, eval_every=2)["curve"]
    assert [row["epoch"] for row in curve if "test_acc" in row] == [2, 4, 5]


def test_another_seed_is_another_training(tiny: Dataset) -> None:
    assert trained(tiny, 0)["curve"][0]["loss"] != trained(tiny, 1)["curve"][0]["loss"]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "onecycle"])
def test_schedules(schedule: str) -> None:
    protocol = Protocol(epochs=10, lr=0.5, schedule=schedule)
    rates = [protocol.learning_rate(step, 7) for step in range(70)]
    assert max(rates) == pytest.approx(0.5, rel=0.06)
    assert all(rate > 0 for rate in rates)
    if schedule == "constant":
        assert set(rates) == {0.5}
    elif schedule == "step":
        assert [rates[0], rates[35], rates[-1]] == pytest.approx([0.5, 0.05, 0.005])
    else:
        assert rates[-1] < 0.02
        assert (rates[0] < 0.1) == (schedule == "onecycle")


def test_warm_up_begins_near_zero() -> None:
    protocol = Protocol(epochs=10, lr=0.5, schedule="constant", warmup_epochs=2)
    rates = [protocol.learning_rate(step, 10) for step in range(100)]
    assert rates[0] < 0.03
    assert rates[:20] == sorted(rates[:20])
    assert set(rates[20:]) == {0.5}


def test_every_image_is_seen_once_per_epoch() -> None:
    rng = torch.Generator().manual_seed(0)
    for n, size in ((65, 64), (7, 3), (2, 64), (640, 64)):
        batches = shuffled_batches(n, size, rng)
        assert sorted(torch.cat(batches).tolist()) == list(range(n))
        assert max(map(len, batches)) - min(map(len, batches)) <= 1
    first, second = (torch.cat(shuffled_batches(640, 64, rng)) for _ in range(2))
    assert not torch.equal(first, second)


def test_normalisation_is_a_fixed_layer(tiny: Dataset) -> None:
    layer = Normalised(torch.nn.Identity(), tiny.train)
    out = layer(tiny.train.pixels())
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(out.std((0, 2, 3)), torch.ones(3), atol=1e-2)
    assert not list(layer.parameters())


class Exploding(Defense):
    """A loss that is not a number."""

    def loss(self, model, images, labels, run):  # type: ignore[no-untyped-def]
        """Return NaN."""
        return super().loss(model, images, labels, run) * float("nan")


def test_a_loss_that_is_not_finite_ends_the_training(tiny: Dataset) -> None:
    with pytest.raises(DivergedError, match="epoch 1"):
        train_model(
            tiny.train,
            tiny.test,
            "resnet9[width=2]",
            PROTOCOLS["quick"],
            Exploding(),
            make_run(tiny),
        )


class KnownLoss(Defense):
    """A loss of the parameters alone: `slope` times their sum. Keeps the images it was shown."""

    slope: float
    _shown: list[torch.Tensor] = PrivateAttr(default_factory=list)

    def loss(self, model, images, labels, run):  # type: ignore[no-untyped-def]
        """Return a loss whose gradient is `slope` everywhere."""
        self._shown.append(images)
        return self.slope * sum(p.sum() for p in model.parameters())


def trained_on_known_loss(
    tiny: Dataset, slope: float, **changes: object
) -> tuple[list[torch.Tensor], KnownLoss]:
    """Return how a network's parameters moved in one training of whole batches, and the defense."""
    base = {"epochs": 1, "batch_size": 40, "schedule": "constant", "nesterov": False, "lr": 0.1}
    protocol = named_protocol("quick", "", **base | changes)
    defense, run = KnownLoss(slope=slope), make_run(tiny, epochs=protocol.epochs)
    before = make_run(tiny, epochs=protocol.epochs).network("resnet9[width=2]").parameters()
    model = train_model(tiny.train, tiny.test, "resnet9[width=2]", protocol, defense, run).model
    after = model.parameters()
    return [b.detach() - a.detach() for a, b in zip(before, after, strict=True)], defense


def test_gradients_are_clipped(tiny: Dataset) -> None:
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    moved, _ = trained_on_known_loss(tiny, 1000.0, clip_norm=2.0, **plain)
    assert torch.cat([m.flatten() for m in moved]).norm() == pytest.approx(0.1 * 2.0, rel=1e-3)
    free, _ = trained_on_known_loss(tiny, 1000.0, **plain)
    assert free[0].flatten() == pytest.approx(torch.full_like(free[0].flatten(), -100.0), rel=1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_and_weight_decay_are_the_protocols(nesterov: bool, tiny: Dataset) -> None:
    moved, _ = trained_on_known_loss(
        tiny, 1.0, epochs=3, momentum=0.7, weight_decay=0.02, nesterov=nesterov
    )
    start = make_run(tiny, epochs=3).network("resnet9[width=2]").parameters()
    for weight, change in zip(start, moved, strict=True):
        now, speed = weight.detach().clone(), torch.zeros_like(weight)
        for _ in range(3):
            slope = 1.0 + 0.02 * now
            speed = 0.7 * speed + slope
            now -= 0.1 * (slope + 0.7 * speed if nesterov else speed)
        assert torch.allclose(change, now - weight.detach(), rtol=1e-4, atol=1e-6)


def nearest(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the distance from each image to the nearest of others."""
    return (images.flatten(1)[:, None] - others.flatten(1)).norm(dim=2).amin(1)


def test_images_are_cropped_and_flipped_as_the_protocol_says(tiny: Dataset) -> None:
    originals = tiny.train.pixels()

    def shown(**changes: object) -> torch.Tensor:
        return trained_on_known_loss(tiny, 0.0, **changes)[1]._shown[0]

    assert nearest(shown(crop_padding=0, flip=False), originals).max() < 1e-3
    flipped = shown(crop_padding=0, flip=True)
    straight = nearest(flipped, originals) < 1e-3
    assert 5 < straight.sum() < 35, "about half of the images are mirrored"
    assert nearest(flipped[~straight].flip(3), originals).max() < 1e-3
    cropped = shown(crop_padding=4, flip=False)
    black = [(cropped[:, :, :, i] == 0).flatten(1).all(1) for i in (0, -1)]
    assert 5 < black[0].sum() < 35, "shifted by up to 4 pixels to either side"
    assert 5 < black[1].sum() < 35
    assert not (cropped[:, :, :, 4:-4] == 0).flatten(1).all(1).any()


def test_alternating_flips_show_both_sides_in_two_epochs(tiny: Dataset) -> None:
    originals = tiny.train.pixels()
    shown = trained_on_known_loss(tiny, 0.0, crop_padding=0, alternate=True, epochs=4)[1]._shown
    sides = []
    for images in shown:  # one batch an epoch
        straight = nearest(originals, images) < 1e-3
        mirrored = nearest(originals, images.flip(3)) < 1e-3
        assert torch.equal(straight, ~mirrored)
        sides.append(straight)
    assert 5 < sides[0].sum() < 35, "a coin decides on which side an image begins"
    assert torch.equal(sides[0], ~sides[1])
    assert torch.equal(sides[0], sides[2])
    assert torch.equal(sides[1], sides[3])
    never = trained_on_known_loss(tiny, 0.0, crop_padding=0, flip=False, alternate=True)[1]._shown[
        0
    ]
    assert nearest(originals, never).max() < 1e-3, "flip=false stays so"


def test_the_network_is_judged_in_eval_mode(tiny: Dataset) -> None:
    modes = []
    run = make_run(tiny)
    model = run.network("resnet9[width=2]").train()
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    predictions(model, tiny.test, run)
    assert modes == [False]


def test_the_network_is_compiled_where_asked_for(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    plain = trained(tiny)
    assert not compiled
    assert trained(tiny, compile=True)["curve"] == plain["curve"]
    assert len(compiled) == 1


def test_the_time_in_augmentation_is_measured(tiny: Dataset) -> None:
    class Slow(Defense):
        """Spends its time in augmentation."""

        def loss(self, model, images, labels, run):  # type: ignore[no-untyped-def]
            """Return the loss after a while."""
            with run.augmenting:
                time.sleep(0.1)
            return super().loss(model, images, labels, run)

    protocol = named_protocol("quick", "", epochs=2, batch_size=40)
    run = make_run(tiny, 0, epochs=2)
    record = train_model(tiny.train, tiny.test, "resnet9[width=2]", protocol, Slow(), run).record
    assert 0.2 < record["augment_share"] * 2 * 40 / record["images_per_second"] < 0.5
    assert record["images_per_second"] < 40 / 0.1
    assert run.augmenting.taken() == 0, "every epoch reads the stopwatch"


@pytest.mark.parametrize("spec", ["standard", "ueraser_lite", "ueraser", "iss", "at", "cutmix"])
def test_the_airbench_protocol_trains_under_every_kind_of_defense(spec: str, tiny: Dataset) -> None:
    protocol = named_protocol("airbench", "", epochs=2, batch_size=20)
    defense = build_defense(spec).resolve(Facts("test", 2, tiny.shape, 2, "resnet8"))
    run = make_run(tiny, epochs=2)
    data = defense.prepare(tiny.train, run)
    arch = "airbench[width=4]"
    record = train_model(data, tiny.test, arch, defense.adjust(protocol), defense, run).record
    assert all(row["loss"] < float("inf") for row in record["curve"])
    assert record["curve"][0]["lr"] == pytest.approx(0.24 * 3 / 4), "linear, after 1 of 4 steps"


def test_muon_learns_what_sgd_learns(small: Dataset) -> None:
    facts = Facts("test", 10, small.shape, 1, "resnet9")
    easy = build_attack("lsp[eps=30]").resolve(facts).craft(small.train, make_run(small))
    data = small.train.with_images(easy.images)
    protocol = named_protocol("airbench", "", epochs=8, batch_size=25)
    run = make_run(small, epochs=8)
    standard = build_defense("standard").resolve(facts)
    record = train_model(data, small.test, "airbench[width=8]", protocol, standard, run).record
    assert record["train_acc"] > 0.9


BUILT_IN = [n for n, c in methods("defense").items() if c.info.origin == "built-in"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_label_smoothing_reaches_the_loss_of_every_defense(name: str, tiny: Dataset) -> None:
    class Sure(torch.nn.Module):
        """Is certain that every image belongs to the first class."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([40.0, 0.0]) + 0 * x.flatten(1)[:, :2]

    defense = build_defense(name).resolve(Facts("test", 2, tiny.shape, 4, "resnet9"))
    images, labels = tiny.train.pixels(slice(0, 8)), torch.zeros(8, dtype=torch.int64)
    run = make_run(tiny, epochs=4)
    plain = defense.loss(Sure(), images, labels, run)
    run.label_smoothing = 0.3
    smooth = defense.loss(Sure(), images, labels, run)
    assert plain < 1e-3, "the right class has all the probability"
    assert smooth.item() == pytest.approx(0.3 / 2 * 40, abs=1e-3)


def test_the_protocol_sets_the_label_smoothing(tiny: Dataset) -> None:
    losses = [trained(tiny, label_smoothing=share)["curve"][-1]["loss"] for share in (0.0, 0.9)]
    assert losses[0] < losses[1], "with 0.9 even a perfect network keeps most of its loss"
    assert losses[1] > 0.6


def test_muons_rates_for_biases_follow_the_size_of_the_batches_that_there_are(
    tiny: Dataset,
) -> None:
    protocol = named_protocol("airbench", "")
    model = make_run(tiny).network("airbench[width=4]")
    few = build_optimizer(model, protocol, torch.device("cpu"), 500)
    many = build_optimizer(model, protocol, torch.device("cpu"), 50_000)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in (few, many)]
    assert rates == [
        [0.24, pytest.approx(0.005), pytest.approx(26.5)],
        [0.24, pytest.approx(0.02), pytest.approx(106)],
    ]


@pytest.mark.parametrize(("optimizer", "decay"), [("adam", 0.0), ("adamw", 0.5)])
def test_adam_and_adamw_are_torchs_and_adamw_decays_by_the_rate(
    tiny: Dataset, optimizer: str, decay: float
) -> None:
    protocol = named_protocol("quick", "", optimizer=optimizer, lr=1e-3, weight_decay=0.5)
    weight = torch.nn.Parameter(torch.ones(3))
    model = torch.nn.Module()
    model.weight = weight
    built = build_optimizer(model, protocol, torch.device("cpu"), 100)
    assert built.param_groups[0]["betas"] == (0.9, 0.999)
    weight.grad = torch.tensor([4.0, -0.25, 0.0])
    built.step()
    # the first step is lr long whatever the gradient's size; Adam's penalty is part of the gradient
    sides = [-1.0, 1.0, 0.0] if optimizer == "adamw" else [-1.0, -1.0, -1.0]
    expected = (1 - 1e-3 * decay) + 1e-3 * torch.tensor(sides)
    assert torch.allclose(weight.detach(), expected, atol=1e-6)
    assert trained(tiny, optimizer=optimizer, lr=3e-3, epochs=3)["curve"][-1]["loss"] < 0.8
