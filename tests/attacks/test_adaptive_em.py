"""Adaptive EM's claim: its noise keeps the loss small under its policy, where EM's does not."""

import pytest
import torch

from tests.conftest import make_run
from uebench import Policy, frozen
from uebench.attacks._shared import cross_entropy_of
from uebench.attacks.adaptive_em import AdaptiveEM
from uebench.attacks.em import EM
from uebench.data import Dataset, load_dataset
from uebench.learn.protocol import PROTOCOLS
from uebench.methods.base import Attack, Facts
from uebench.methods.registry import build_attack, build_defense
from uebench.victims.supervised import train_model


def made(dataset: Dataset, spec: str) -> Attack:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9[width=4]")
    return build_attack(spec).resolve(facts)


@pytest.mark.slow
def test_noise_keeps_the_loss_small_under_its_policy_where_plain_noise_does_not() -> None:
    data = load_dataset("synthetic[n_train=300,n_test=30,n_classes=3,size=24]")
    defense = build_defense("standard").method
    wanted = {"epochs": 40, "batch_size": 25, "lr": 0.05}
    protocol = PROTOCOLS["quick"].model_copy(update=wanted)
    run = make_run(data, epochs=40)
    model = train_model(data.train, data.test, "resnet8", protocol, defense, run).model
    options = "steps=60,step=0.4/255"
    adaptive = made(data, f"adaptive_em[policy=p+c,{options}]")
    plain = made(data, f"em[{options}]")
    assert isinstance(adaptive, AdaptiveEM)
    assert isinstance(plain, EM)
    losses = []
    with frozen(model):
        for attack in (adaptive, plain):
            noise = torch.zeros(data.train.images.shape)
            turns = attack.turns(model, make_run(data), "noise", 0.0)
            attack._descend_images(turns, data.train, noise)
            run = make_run(data, 8)
            loss = cross_entropy_of(model, run, adaptive.view(run, "noise"))
            with torch.no_grad():  # ten draws: one is noisy
                total = sum(loss(data.train.pixels() + noise, data.train.labels) for _ in range(10))
            losses.append(float(total) / 10 / len(data.train))
    assert losses[0] < 0.9 * losses[1], losses


def test_network_and_noise_both_see_the_policy(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    policy = Policy.__call__

    def noted(self: Policy, images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        calls.append(images.requires_grad)
        return policy(self, images, rng)

    monkeypatch.setattr(Policy, "__call__", noted)
    attack = made(tiny, "adaptive_em[rounds=1,train_steps=3,steps=2]")
    attack.perturb(tiny.train, make_run(tiny))
    assert calls == [False] * 3 + [True] * 2, "the surrogate's steps, then the noise's"


@pytest.mark.parametrize("letters", ["p", "c", "p+c", "p+c+t", "t"])
def test_gradients_reach_the_noise_through_every_policy(letters: str, tiny: Dataset) -> None:
    attack = made(tiny, f"adaptive_em[policy={letters}]")
    view = attack.view(make_run(tiny), "noise")  # type: ignore[attr-defined]
    images = tiny.train.pixels().requires_grad_(True)
    view(images).square().sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad.flatten(1) != 0).any(1).float().mean() > 0.95


def test_every_step_draws_a_new_policy(tiny: Dataset) -> None:
    view = made(tiny, "adaptive_em").view(make_run(tiny), "noise")  # type: ignore[attr-defined]
    images = tiny.train.pixels()
    assert not torch.equal(view(images), view(images))


def test_letters_are_checked_and_put_in_order(tiny: Dataset) -> None:
    attack = made(tiny, "adaptive_em[policy=t+p]")
    assert isinstance(attack, AdaptiveEM)
    assert attack.policy == Policy("p+t").letters == "p+t"
    with pytest.raises(ValueError, match="policy"):
        made(tiny, "adaptive_em[policy=x]")


def test_an_augmentation_drawn_once_a_round_is_the_same_at_every_step_of_it(tiny: Dataset) -> None:
    run, images = make_run(tiny), tiny.train.pixels()
    attack = made(tiny, "adaptive_em[redraw=round]")
    first, second = (attack.view(run, "noise") for _ in range(2))  # type: ignore[attr-defined]
    assert torch.equal(first(images), first(images))
    assert not torch.equal(first(images), second(images))


def test_a_gradient_around_the_augmentation_is_that_of_the_augmented_images(tiny: Dataset) -> None:
    weights = torch.randn(tiny.train.images.shape)
    seen, gradients = [], []
    for gradient in ("around", "through"):
        view = made(tiny, f"adaptive_em[gradient={gradient}]").view(  # type: ignore[attr-defined]
            make_run(tiny), "noise"
        )
        images = tiny.train.pixels().requires_grad_(True)
        seen.append(view(images))
        (seen[-1] * weights).sum().backward()
        assert images.grad is not None
        gradients.append(images.grad)
    assert torch.allclose(*seen, atol=1e-6), "the network sees the same images"
    assert torch.equal(gradients[0], weights)
    assert not torch.allclose(gradients[1], weights)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("augmented=training", [False] * 3),
        ("augmented=noise", [True] * 2),
        ("stop_on=augmented", [False] * 3 + [True] * 2 + [False]),
        ("augmented=noise,stop_on=augmented,operation=batch", [True] * 2 + [False]),
    ],
)
def test_the_policy_is_seen_where_the_options_say(
    options: str, expected: list[bool], tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, draws = [], set()
    policy = Policy.__call__

    def noted(self: Policy, images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        calls.append(images.requires_grad)
        draws.add(self.draw)
        return policy(self, images, rng)

    monkeypatch.setattr(Policy, "__call__", noted)
    made(tiny, f"adaptive_em[rounds=1,train_steps=3,steps=2,{options}]").perturb(
        tiny.train, make_run(tiny)
    )
    assert calls == expected, "the surrogate's steps, the noise's, and the stop test"
    assert draws == {"batch" if "operation=batch" in options else "image"}


def test_readings_that_became_options_later_leave_stored_poisons_known(tiny: Dataset) -> None:
    recipe = made(tiny, "adaptive_em").recipe()
    later = {"legacy_export", "operation", "redraw", "gradient", "augmented", "stop_on"}
    assert not later & set(recipe)
    assert made(tiny, "adaptive_em[redraw=round]").recipe() == {**recipe, "redraw": "round"}
    assert made(tiny, "adaptive_em[legacy_export=true]").recipe()["legacy_export"] is True
    assert made(tiny, "em").recipe()["legacy_export"] is False, "EM always had it"
