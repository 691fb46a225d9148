"""What every attack and every defense must do: walks the registry, new files included."""

import pytest
import torch

from tests.conftest import make_run, random_dataset
from uebench.api import Attack, Defense, Facts
from uebench.data import Dataset
from uebench.protocol import PROTOCOLS
from uebench.registry import build_attack, build_defense, methods
from uebench.trainer import train_model

ATTACKS = sorted(methods("attack"))
DEFENSES = sorted(methods("defense"))
SMALL = {
    "rounds": 2,
    "train_steps": 40,
    "steps": 2,
    "batch_size": 16,
    "draws": 10_000,
    "surrogate_epochs": 10,
    "adv_steps": 1,
    "transform_draws": 1,
}
"""What makes an attack that has these options fast; defaults are tested method by method."""


def facts(dataset: Dataset, epochs: int = 4) -> Facts:
    return Facts("test", dataset.n_classes, dataset.shape, epochs, "resnet8[width=8]")


def small_attack(name: str, dataset: Dataset) -> Attack:
    options = {k: v for k, v in SMALL.items() if k in methods("attack")[name].model_fields}
    return build_attack(name, options).resolve(facts(dataset))


def small_defense(name: str, dataset: Dataset) -> Defense:
    return build_defense(name).resolve(facts(dataset))


SHAPES = {
    "two classes": random_dataset([6, 6]),
    "unequal classes": random_dataset([1, 9, 3]),
    "a hundred classes": random_dataset([2] * 100),
    "odd and oblong": random_dataset([4, 4], (19, 13)),
    "small": random_dataset([4, 4], (8, 8)),
    "64 px": random_dataset([3, 3], (64, 64)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_keeps_budget_labels_and_order(name: str, shape: str) -> None:
    dataset = SHAPES[shape]
    made = small_attack(name, dataset)
    poison = made.craft(dataset.train, make_run(dataset))
    assert poison.images.dtype == torch.uint8
    assert poison.images.shape == dataset.train.images.shape
    assert torch.equal(poison.labels, dataset.train.labels)
    assert torch.equal(poison.index, torch.arange(len(dataset.train)))
    changed = poison.images.int() - dataset.train.images.int()
    norm, eps = made.budget(dataset.shape)
    if norm == "linf":
        assert changed.abs().max() <= round(255 * eps)
    else:
        slack = 0.5 / 255 * dataset.train.images[0].numel() ** 0.5
        assert (changed.flatten(1).float().norm(dim=1) / 255).max() <= eps + slack + 1e-5
    if name != "none":
        # a network as small as these has images without any gradient, so not all need be changed
        assert (changed.flatten(1) != 0).any(1).float().mean() > 0.5, "most images are unchanged"


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "none"])
def test_an_attack_depends_on_its_seed_alone(name: str) -> None:
    dataset = SHAPES["two classes"]
    made = small_attack(name, dataset)
    before = dataset.train.images.clone()
    torch.manual_seed(1)
    first = made.craft(dataset.train, make_run(dataset, 3, shared_seed=3)).images
    torch.manual_seed(2)
    second = made.craft(dataset.train, make_run(dataset, 3, shared_seed=3)).images
    other = made.craft(dataset.train, make_run(dataset, 4, shared_seed=4)).images
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, dataset.train.images), "the clean images were changed"


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_leaves_the_global_generator_alone(name: str) -> None:
    dataset = SHAPES["two classes"]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    small_attack(name, dataset).craft(dataset.train, make_run(dataset))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_gives_a_loss_with_gradient(name: str) -> None:
    dataset = SHAPES["two classes"]
    made = small_defense(name, dataset)
    for epoch in (0, 3):
        run = make_run(dataset, epochs=4)
        run.epoch = epoch
        model = run.network("resnet9[width=2]")
        images = dataset.train.pixels()
        loss = made.loss(model, images, dataset.train.labels, run)
        assert loss.shape == ()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)
        assert any(g.abs().sum() > 0 for g in gradients)
        assert model.training, "the model must be given back in train mode"
        assert torch.equal(images, dataset.train.pixels()), "the batch was changed in place"


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_prepares_without_changing_the_given_data(name: str) -> None:
    dataset = SHAPES["odd and oblong"]
    before = dataset.train.images.clone()
    made = small_defense(name, dataset).prepare(dataset.train, make_run(dataset))
    assert made.images.dtype == torch.uint8
    assert made.images.shape[1:] == before.shape[1:]
    assert len(made.labels) == len(made.images)
    assert torch.equal(before, dataset.train.images)


@pytest.mark.parametrize("name", DEFENSES)
def test_training_under_a_defense_is_the_same_twice(name: str, tiny: Dataset) -> None:
    protocol = PROTOCOLS["quick"].model_copy(
        update={"epochs": 2, "batch_size": 16, "draws": 10_000}
    )
    made = build_defense(name).resolve(facts(tiny, 2))
    records = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        run = make_run(tiny, 0, epochs=2)
        data = made.prepare(tiny.train, run)
        trained = train_model(data, tiny.test, "resnet9[width=2]", protocol, made, run).record
        timed = ("train_seconds", "images_per_second", "augment_share")
        records.append({k: v for k, v in trained.items() if k not in timed})
    assert records[0] == records[1]


@pytest.mark.parametrize("name", ATTACKS)
def test_resolving_leaves_nothing_open(name: str) -> None:
    options = small_attack(name, SHAPES["two classes"]).options()
    assert "auto" not in options.values()


@pytest.mark.parametrize("name", DEFENSES)
def test_resolving_a_defense_leaves_nothing_open(name: str) -> None:
    options = small_defense(name, SHAPES["two classes"]).options()
    assert not {"auto", "half", "all"} & {v for v in options.values() if isinstance(v, str)}
