"""AUE's claim: it hurts a network trained under contrastive augmentation more than EM does."""

import pytest
import torch
from torch import Tensor

from tests.attacks.conftest import striped
from tests.conftest import make_run
from uebench import Training
from uebench.attacks import _alternating as module
from uebench.attacks.aue import AUE
from uebench.data import Dataset
from uebench.learn.loops import accuracy
from uebench.methods.base import Attack, Facts
from uebench.methods.registry import build_attack

ARCH = "resnet8[width=8]"


def made(dataset: Dataset, spec: str) -> Attack:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    return build_attack(spec).resolve(facts)


@pytest.mark.slow
def test_it_hurts_a_network_trained_under_the_augmentation_more_than_em(stripes: Dataset) -> None:
    specs = {
        "em": "em[rounds=30,train_steps=2,steps=5,batch_size=128]",
        "aue": "aue[epochs=30,strength=0.4,noise_batch=300]",
    }
    training = Training(augment="contrastive", strength=0.4)
    accuracies = {}
    for name, spec in specs.items():
        poison = made(stripes, spec).craft(stripes.train, make_run(stripes))
        run = make_run(stripes, 1, shared_seed=1)
        victim = run.surrogate(
            stripes.train.with_images(poison.images), ARCH, epochs=40, held_out=0, training=training
        )
        accuracies[name] = accuracy(victim, striped(300, seed=9).train, run)
    assert accuracies["aue"] < accuracies["em"] - 0.1, accuracies


def test_network_and_noise_both_see_the_augmentation_and_the_schedule_is_a_cosine(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, float]] = []

    def noted(images: Tensor, rng: torch.Generator, strength: float) -> Tensor:
        seen.append((images.requires_grad, strength))
        return images

    rates: list[float] = []
    step = torch.optim.SGD.step

    def stepped(self: torch.optim.SGD, *args: object) -> object:
        (group,) = self.param_groups
        rates.append(group["lr"])
        assert group["weight_decay"] == 1e-4
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("uebench.attacks.aue.contrastive", noted)
    monkeypatch.setattr(torch.optim.SGD, "step", stepped)
    attack = made(tiny, "aue[epochs=2,steps=3,batch_size=20,noise_batch=40]")
    attack.perturb(tiny.train, make_run(tiny))
    an_epoch = [(False, 0.6)] * 2 + [(True, 0.6)] * 3
    assert seen == an_epoch * 2, "two steps of the network, then three of the noise"
    assert rates == pytest.approx([0.1] * 2 + [0.05] * 2, abs=1e-5)


def test_the_noise_goes_on_from_where_the_last_sweep_left_it(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []
    descend = module.descend

    def noted(loss: object, data: object, labels: object, delta: Tensor, **more: object) -> None:
        starts.append(delta.abs().max().item())
        descend(loss, data, labels, delta, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "descend", noted)
    attack = made(tiny, "aue[epochs=3,steps=1,noise_batch=40,step=1/255]")
    delta = attack.perturb(tiny.train, make_run(tiny))
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2] <= 2 / 255 + 1e-6
    assert delta.abs().max() <= 3 / 255 + 1e-6


def test_the_authors_numbers_and_cost_are_the_defaults() -> None:
    attack = build_attack("aue").resolve(Facts("cifar10", 10, (3, 32, 32), 1, "resnet8"))
    assert isinstance(attack, AUE)
    assert (attack.epochs, attack.steps, attack.batch_size, attack.lr) == (60, 5, 128, 0.1)
    assert attack.step == pytest.approx(0.8 / 255)
    assert attack.strength == 0.6
    assert attack.image_passes(1000) == 360_000
    more = build_attack("aue").resolve(Facts("cifar100", 100, (3, 32, 32), 1, "resnet8"))
    assert more.options()["strength"] == 1.0
