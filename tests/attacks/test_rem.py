"""REM's claim: its noise keeps a network's loss small under an adversary, where EM's does not."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import make_run
from uebench import frozen, pgd, random_start
from uebench.attacks._shared import Batches
from uebench.attacks.rem import REM, Centred
from uebench.data import Dataset, load_dataset
from uebench.learn.protocol import PROTOCOLS
from uebench.methods.base import Attack, Facts
from uebench.methods.registry import build_attack, build_defense
from uebench.methods.run import Run
from uebench.victims.supervised import train_model


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    return load_dataset("synthetic[n_train=120,n_test=30,n_classes=2,size=16]")


def made(dataset: Dataset, spec: str) -> Attack:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9[width=4]")
    return build_attack(spec).resolve(facts)


@pytest.mark.slow
def test_noise_keeps_the_loss_small_under_the_adversary_where_plain_noise_does_not() -> None:
    data = load_dataset("synthetic[n_train=300,n_test=30,n_classes=3,size=24]")
    defense = build_defense("standard").method
    wanted = {"epochs": 40, "batch_size": 25, "lr": 0.05}
    protocol = PROTOCOLS["quick"].model_copy(update=wanted)
    run = make_run(data, epochs=40)
    trained = train_model(data.train, data.test, "resnet8", protocol, defense, run)
    spec = "rem[transform_draws=3,adv_radius={}]"
    robust, plain = made(data, spec.format("4/255")), made(data, spec.format(0))
    assert isinstance(robust, REM)
    assert isinstance(plain, REM)
    losses = []
    with frozen(trained.model):
        for attack in (robust, plain):
            delta = attack._noise(trained.model, data.train, make_run(data))
            loss = robust._robust_loss(trained.model, make_run(data, 8))
            with torch.no_grad():
                value = loss(data.train.pixels() + delta, data.train.labels) / len(data.train)
            losses.append(value.item())
    assert losses[0] < 0.95 * losses[1], losses


def test_the_inner_adversary_stays_in_its_ball_and_raises_the_loss(pictures: Dataset) -> None:
    attack = made(pictures, "rem")
    assert isinstance(attack, REM)
    run = make_run(pictures)
    model = run.network("resnet9[width=4]")
    images, labels = pictures.train.pixels(), pictures.train.labels

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(images), labels, reduction="sum")

    with frozen(model):
        point = attack._adversarial(loss, images, labels, run)
        before, after = loss(images, labels), loss(point, labels)
    assert after > before
    assert (point - images).abs().max() <= 4 / 255 + 1e-6
    assert point.min() >= 0
    assert point.max() <= 1


def test_the_gradient_is_the_sum_over_the_draws(pictures: Dataset) -> None:
    images = pictures.train.pixels()[:4]
    weights = torch.arange(1.0, 4.0)
    calls: list[float] = []

    def loss(x: Tensor) -> Tensor:
        weight = weights[len(calls) % 3].item()
        calls.append(weight)
        return (x * (weight - 2.5)).sum()  # -1.5, -0.5, 0.5: the sum decides the sign

    delta = pgd(loss, images, norm="linf", eps=0.1, step=0.01, steps=1, towards="min", draws=3)
    assert calls == [1.0, 2.0, 3.0]
    inside = images < 0.98
    assert torch.allclose(delta[inside], torch.tensor(0.01), atol=1e-6)


def test_every_image_gets_noise_and_the_paper_s_numbers_are_the_defaults() -> None:
    dataset = load_dataset("synthetic[n_train=50,n_test=10,n_classes=2,size=16]")
    rem = made(dataset, "rem")
    assert isinstance(rem, REM)
    assert (rem.train_steps, rem.steps, rem.adv_steps, rem.transform_draws) == (5000, 10, 10, 5)
    assert rem.step == pytest.approx(1.6 / 255)
    assert rem.adv_radius == pytest.approx(4 / 255)
    assert rem.adv_step == pytest.approx(0.8 / 255)
    quick = made(dataset, "rem[train_steps=2,steps=1,adv_steps=1,transform_draws=1,batch_size=16]")
    delta = quick.perturb(dataset.train, make_run(dataset))  # 50 = 3 x 16 + 2
    assert (delta.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 63, 63), (5000, 10, 5, 10)),
        ((3, 64, 64), (3000, 7, 4, 7)),
        ((3, 32, 64), (3000, 7, 4, 7)),
    ],
)
def test_images_from_64_pixels_on_take_fewer_steps(
    shape: tuple[int, int, int], expected: tuple[int, int, int, int]
) -> None:
    method = build_attack("rem").resolve(Facts("test", 10, shape, 1, "resnet18"))
    assert isinstance(method, REM)
    counts = (method.train_steps, method.steps, method.transform_draws, method.adv_steps)
    assert counts == expected
    assert method.adv_step == pytest.approx(method.adv_radius / expected[2])


def test_without_an_adversary_no_step_is_spent_on_it(pictures: Dataset) -> None:
    attack = made(pictures, "rem[adv_radius=0]")
    assert isinstance(attack, REM)
    run: Run = make_run(pictures)
    images = random_start(pictures.train.pixels(), "linf", 0.1, run.rng)

    def never(images: Tensor, labels: Tensor) -> Tensor:
        raise AssertionError

    assert attack._adversarial(never, images, pictures.train.labels, run) is images


def test_the_surrogate_is_trained_on_adversarial_points_at_falling_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = load_dataset("synthetic[n_train=40,n_test=10,n_classes=2,size=16]")
    rates: list[float] = []
    seen: list[tuple[bool, Tensor]] = []
    step = torch.optim.SGD.step
    forward = Centred.forward

    def noted_step(self: torch.optim.SGD, *args: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)  # type: ignore[arg-type]

    def noted_forward(self: Centred, x: Tensor) -> Tensor:
        seen.append((self.training, x.detach().clone()))
        return forward(self, x)

    monkeypatch.setattr(torch.optim.SGD, "step", noted_step)
    monkeypatch.setattr(Centred, "forward", noted_forward)
    rem = made(
        data, "rem[train_steps=10,steps=2,adv_steps=2,transform_draws=1,batch_size=20,lr=1.0]"
    )
    rem.perturb(data.train, make_run(data))
    assert rates == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.01] * 2)
    training = [i for i, (mode, _) in enumerate(seen) if mode]
    assert len(training) == 10, "the searches run in eval mode"
    for i in training:
        before, at = seen[i - 1][1], seen[i][1]  # the adversary's last step starts where it ended
        assert before.shape == at.shape == (20, 3, 16, 16)
        assert not torch.equal(before, at)
        assert (before - at).abs().max() <= 0.8 / 255 + 1e-6


def test_each_draw_and_each_training_step_has_a_crop_of_its_own(
    pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def noted(images: Tensor, rng: torch.Generator, *args: object) -> Tensor:
        seen.append(images.detach())
        return torch.zeros_like(images) + 0.5 + 0 * images  # what everything after it works on

    monkeypatch.setattr("uebench.attacks.rem.crop_flip", noted)
    rem = made(pictures, "rem[train_steps=1,steps=2,adv_steps=1,transform_draws=3,batch_size=120]")
    assert isinstance(rem, REM)
    shown: list[Tensor] = []
    forward = Centred.forward
    monkeypatch.setattr(
        Centred, "forward", lambda self, x: forward(self, shown.append(x.detach()) or x)
    )
    model = torch.nn.Sequential(Centred(), make_run(pictures).network("resnet9[width=4]"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rem._train_step(model, optimizer, pictures.train, make_run(pictures))
    assert len(seen) == 2 * 3 + 1, "draws of each step of the noise, and one of the surrogate's"
    assert len(shown) == 2 * 3 * 2 + 2
    assert all((x - 0.5).abs().max() <= 4 / 255 + 1e-6 for x in shown), "of crops, not of images"


@pytest.mark.slow
def test_training_lowers_the_robust_loss_of_fresh_noise() -> None:
    data = load_dataset("synthetic[n_train=60,n_test=10,n_classes=2,size=16]")
    spec = "rem[steps=4,step=4/255,adv_steps=2,transform_draws=1,batch_size=30,train_steps={}]"
    losses = []
    for steps in (1, 60):
        rem = made(data, spec.format(steps))
        assert isinstance(rem, REM)
        model = torch.nn.Sequential(Centred(), make_run(data).network("resnet8[width=8]"))
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        run = make_run(data, 1)
        batches = Batches(len(data.train), rem.batch_size, run, whole=True)
        for _ in range(steps):
            loss = rem._train_step(model, optimizer, data.train.subset(next(batches)), run)
        losses.append(loss.item())
    assert losses[1] < 0.8 * losses[0], losses
