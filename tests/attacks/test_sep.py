"""SEP's claim: its noise moves images to another class in all checkpoints of a training at once."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import make_run, random_dataset
from uebench import UserError, penultimate
from uebench.attacks._ensemble import SelfEnsemble
from uebench.attacks._shared import class_means
from uebench.attacks.sep_fa_vr import SEPFAVR, gradient
from uebench.data import Dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack
from uebench.store.store import Store

ARCH = "resnet8[width=8]"
OPTIONS = "surrogate_epochs=60,checkpoints=3,steps=15"


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the surrogate of these tests is trained once."""
    return Store(tmp_path_factory.mktemp("sep") / "store")


def made(dataset: Dataset, spec: str) -> SelfEnsemble:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, SelfEnsemble)
    return attack


@torch.no_grad()
def losses(models: list[nn.Module], images: Tensor, labels: Tensor) -> list[float]:
    return [F.cross_entropy(model(images), labels).item() for model in models]


@torch.no_grad()
def feature_distances(
    models: list[nn.Module], dataset: Dataset, images: Tensor, labels: Tensor
) -> list[float]:
    run = make_run(dataset)
    return [
        F.mse_loss(penultimate(m, images), class_means(m, dataset.train, run)[labels]).item()
        for m in models
    ]


@pytest.mark.slow
def test_noise_moves_all_checkpoints_to_the_target_class(
    stripes: Dataset, shared_store: Store
) -> None:
    attack = made(stripes, f"sep[{OPTIONS}]")
    run = make_run(stripes, store=shared_store)
    models = attack._checkpoints(stripes.train, run)
    assert len(models) == 3
    wanted = (stripes.train.labels + 1) % 3  # 3 classes: half of them is one
    poison = attack.craft(stripes.train, run)
    images = poison.images.float() / 255
    before = losses(models, stripes.train.pixels(), wanted)
    after = losses(models, images, wanted)
    assert all(a < b for a, b in zip(after, before, strict=True)), (before, after)
    assert max(after[1:]) < 0.1 * min(before[1:]), "the first checkpoint has hardly learned"
    last = attack.losses(models[-1:], stripes.train, run)
    alone = attack.search(last, stripes.train, wanted, run)
    of_one = losses(models, stripes.train.pixels() + alone, wanted)
    assert after[0] < of_one[0], "noise against the last checkpoint alone does less"
    assert torch.equal(poison.labels, stripes.train.labels)


@pytest.mark.parametrize("name", ["sep_fa", pytest.param("sep_fa_vr", marks=pytest.mark.slow)])
def test_features_move_to_the_target_s_mean_in_all_checkpoints(
    name: str, stripes: Dataset, shared_store: Store
) -> None:
    attack = made(stripes, f"{name}[{OPTIONS}]")
    run = make_run(stripes, store=shared_store)
    models = attack._checkpoints(stripes.train, run)
    wanted = (stripes.train.labels + 1) % 3
    images = attack.craft(stripes.train, run).images.float() / 255
    before = feature_distances(models, stripes, stripes.train.pixels(), wanted)
    after = feature_distances(models, stripes, images, wanted)
    assert all(a < 0.6 * b for a, b in zip(after, before, strict=True)), (before, after)


def test_every_step_sums_the_gradients_of_all_checkpoints(tiny: Dataset) -> None:
    calls: list[float] = []
    weights = (-1.5, -0.5, 0.5, 1.25)  # the sum decides the sign

    def weighted(weight: float) -> Any:
        def loss(images: Tensor, labels: Tensor) -> Tensor:
            calls.append(weight)
            return weight * images.sum()

        return loss

    attack = made(tiny, "sep[steps=2]")
    delta = attack.search(
        [weighted(w) for w in weights], tiny.train, tiny.train.labels, make_run(tiny)
    )
    assert calls == list(weights) * 2
    inside = tiny.train.pixels() < 0.98
    torch.testing.assert_close(delta[inside], torch.full_like(delta[inside], 2 / 255))


def test_variance_reduction_follows_its_definition(tiny: Dataset) -> None:
    """Against a plain transcription on two smooth losses, with the same random draws."""
    attack = made(tiny, "sep_fa_vr[steps=3,inner_steps=4,checkpoints=2,eps=3/255]")
    assert isinstance(attack, SEPFAVR)
    part, labels = tiny.train.subset(torch.arange(5)), tiny.train.labels[:5]
    targets = torch.rand(2, 5, *tiny.shape, generator=torch.Generator().manual_seed(1))

    def towards(target: Tensor, power: int) -> Any:
        return lambda images, labels: ((images - target) ** power).sum()

    both = [towards(targets[0], 2), towards(targets[1], 4)]
    found = attack.search(both + both, part, labels, make_run(tiny, 7))
    rng = make_run(tiny, 7).rng
    clean = part.pixels()
    x = clean
    for _ in range(3):
        at_x = [gradient(loss, x, labels) for loss in both]
        mean = (at_x[0] + at_x[1]) / 2
        inner, total = x, torch.zeros_like(x)
        for _ in range(4):
            drawn = int(torch.randint(2, (), generator=rng))
            total = total + gradient(both[drawn], inner, labels) - at_x[drawn] + mean
            inner = inner - total.sign() / 255
            inner = torch.minimum(torch.maximum(inner, clean - 3 / 255), clean + 3 / 255)
            inner = inner.clamp(0, 1)
        x = x - total.sign() / 255
        x = torch.minimum(torch.maximum(x, clean - 3 / 255), clean + 3 / 255).clamp(0, 1)
    torch.testing.assert_close(found, x - clean, atol=1e-6, rtol=0)
    assert found.abs().max() > 0


def test_the_released_slip_compares_with_the_last_checkpoint_s_means(
    stripes: Dataset, shared_store: Store
) -> None:
    run = make_run(stripes, store=shared_store)
    models = made(stripes, f"sep_fa_vr[{OPTIONS}]")._checkpoints(stripes.train, run)
    images, labels = stripes.train.pixels()[:20], stripes.train.labels[:20]
    values = {}
    for means in ("drawn", "last"):
        attack = made(stripes, f"sep_fa_vr[means={means},{OPTIONS}]")
        each = attack.losses(models, stripes.train, run)
        values[means] = torch.stack([loss(images, labels) for loss in each])
    torch.testing.assert_close(values["drawn"][:3], values["drawn"][3:])
    torch.testing.assert_close(values["last"][:3], values["drawn"][:3])
    torch.testing.assert_close(values["last"][5], values["drawn"][5])
    assert (values["last"][3:5] > 1.01 * values["drawn"][3:5]).any()


def test_the_two_numbers_of_checkpoints_share_one_training(stripes: Dataset, store: Store) -> None:
    facts = Facts("test", 3, stripes.shape, 1, "resnet8[width=2]")
    data = stripes.train.subset(torch.arange(40))
    states = []
    for spec in ("sep[surrogate_epochs=30]", "sep_fa_vr[surrogate_epochs=30]"):
        attack = build_attack(spec).resolve(facts)
        assert isinstance(attack, SelfEnsemble)
        models = attack._checkpoints(data, make_run(stripes, store=store))
        states.append([next(iter(model.parameters())) for model in models])
    assert (len(states[0]), len(states[1])) == (30, 15)
    assert len(list((store.base / "kept").iterdir())) == 1
    assert all(torch.equal(a, b) for a, b in zip(states[0][1::2], states[1], strict=True))


def test_the_authors_numbers_and_costs_are_the_defaults() -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 1, "resnet8")
    for name, checkpoints in (("sep", 30), ("sep_fa", 30), ("sep_fa_vr", 15)):
        attack = build_attack(name).resolve(facts)
        options = attack.options()
        assert options["checkpoints"] == checkpoints
        assert (options["surrogate_epochs"], options["steps"]) == (120, 30)
        assert options["step"] == pytest.approx(1 / 255)
        assert options["class_shift"] == 5
        assert attack.image_passes(1000) == 1_020_000
    hundred = Facts("cifar100", 100, (3, 32, 32), 1, "resnet8")
    assert build_attack("sep").resolve(hundred).options()["class_shift"] == 50


@pytest.mark.parametrize(
    ("spec", "n_classes", "message"),
    [
        (
            "sep",
            1,
            "sep moves images to another class, and the data set has 1; it needs",
        ),
        ("sep_fa[checkpoints=200]", 3, "checkpoints=200 exceeds surrogate_epochs=120"),
        ("sep_fa_vr[class_shift=6]", 3, "class_shift=6 leads each of 3 classes to itself"),
        ("sep[eps=2]", 3, r"eps must be a number in \(0, 1\], got 2; divide by 255"),
    ],
)
def test_bad_options_are_refused(spec: str, n_classes: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_attack(spec).resolve(Facts("test", n_classes, (3, 8, 8), 1, ARCH))


def test_features_move_to_classes_that_have_images() -> None:
    dataset = random_dataset([3] * 4)
    facts = Facts("test", 4, dataset.shape, 1, ARCH)
    attack = build_attack("sep_fa").resolve(facts)
    assert isinstance(attack, SelfEnsemble)
    assert attack.class_shift == 2
    labels = dataset.train.labels
    lacking = dataset.train.subset((labels != 2).nonzero().squeeze(1))
    targets = dict(zip(lacking.labels.tolist(), attack.targets(lacking).tolist(), strict=True))
    assert targets == {0: 3, 1: 3, 3: 1}, "2 has no images, and so no mean"
    one = dataset.train.subset((labels == 1).nonzero().squeeze(1))
    assert (attack.targets(one) == 1).all(), "there is no other mean"
