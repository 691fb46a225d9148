"""SEM's claim: its noise leaves a low loss under random perturbations, at a ninth of REM's cost."""

import pytest
import torch
from torch import Tensor

from tests.conftest import make_run
from uebench import UserError, crop_flip, frozen, random_start
from uebench.attacks._shared import cross_entropy_of
from uebench.attacks.rem import REM, Centred
from uebench.attacks.sem import SEM
from uebench.data import Dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack
from uebench.methods.run import Run


def made(dataset: Dataset, spec: str) -> REM:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet8[width=8]")
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, REM)
    return attack


class Uncentred(torch.nn.Module):
    """Undoes `Centred`, so that a network sees the images that it was trained on."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5


@pytest.mark.slow
def test_noise_leaves_a_lower_loss_under_random_perturbations(stripes: Dataset) -> None:
    """Lower than the same search without perturbations does, on one network for both."""
    run = make_run(stripes)
    network = run.surrogate(stripes.train, "resnet8[width=8]", epochs=40, held_out=0)
    model = torch.nn.Sequential(Centred(), Uncentred(), network)
    options = "steps=20,step=1/255,transform_draws=3"
    means = []
    with frozen(model):
        for radius in ("16/255", "0"):
            attack = made(stripes, f"sem[adv_radius={radius},{options}]")
            delta = attack._noise(model, stripes.train, make_run(stripes))
            loss, rng = cross_entropy_of(model, run), make_run(stripes, 5).rng
            total = 0.0
            for _ in range(10):
                images = crop_flip(stripes.train.pixels() + delta, rng)
                images = (images + random_start(images, "linf", 16 / 255, rng)).clamp(0, 1)
                with torch.no_grad():
                    total += loss(images, stripes.train.labels).item()
            means.append(total / 10 / len(stripes.train))
    assert means[0] < 0.8 * means[1], means


def test_the_search_draws_one_perturbation_per_view_and_the_surrogate_keeps_its_adversary(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, Tensor]] = []
    forward = Centred.forward

    def noted(self: Centred, x: Tensor) -> Tensor:
        seen.append((self.training, x.detach()))
        return forward(self, x)

    monkeypatch.setattr(Centred, "forward", noted)
    monkeypatch.setattr("uebench.attacks.sem.crop_flip", lambda images, rng: 0 * images + 0.5)
    attack = made(tiny, "sem[train_steps=1,steps=2,transform_draws=3,adv_steps=4,batch_size=40]")
    model = torch.nn.Sequential(Centred(), make_run(tiny).network("resnet8[width=8]"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    attack._train_step(model, optimizer, tiny.train, make_run(tiny))
    assert len(seen) == 2 * 3 + 4 + 1, "draws of the noise, the adversary's steps, and training"
    drawn = torch.stack([x for _, x in seen[:6]]) - 0.5
    assert drawn.abs().max() <= 4 / 255 + 1e-6
    assert drawn.std().item() == pytest.approx(4 / 255 / 3**0.5, rel=0.02), "uniform"
    assert not torch.equal(drawn[0], drawn[1])
    assert [training for training, _ in seen] == [False] * 10 + [True]


def test_gradients_reach_saturated_pixels(tiny: Dataset) -> None:
    attack = made(tiny, "sem")
    run: Run = make_run(tiny)
    white = torch.ones(8, *tiny.shape, requires_grad=True)
    loss = attack._robust_loss(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2)), run
    )
    (gradient,) = torch.autograd.grad(loss(white, torch.zeros(8, dtype=torch.long)), white)
    assert (gradient != 0).float().mean() > 0.6, "what the crop keeps has a gradient"


def test_its_numbers_are_rem_s_and_its_cost_a_ninth() -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 1, "resnet8")
    sem, rem = (build_attack(name).resolve(facts) for name in ("sem", "rem"))
    assert isinstance(sem, SEM)
    assert sem.options() == rem.options()
    assert sem.image_passes(50_000) / 50_000 == pytest.approx(830.8, abs=0.1)
    assert rem.image_passes(50_000) / sem.image_passes(50_000) > 9


@pytest.mark.parametrize("name", ["sem", "rem"])
@pytest.mark.parametrize("option", ["adv_steps=3", "adv_step=4/255"])
def test_options_of_an_adversary_that_is_not_there_are_refused(name: str, option: str) -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 1, "resnet8")
    without = build_attack(f"{name}[adv_radius=0]").resolve(facts)
    assert without.resolve(facts).options() == without.options()
    with pytest.raises(UserError, match=r"no effect with adv_radius=0; raise adv_radius or leave"):
        build_attack(f"{name}[adv_radius=0,{option}]").resolve(facts)
