"""MI-UE's claim: features of one class have a higher cosine than without it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import make_run
from uebench import frozen, penultimate
from uebench.attacks import _alternating as module
from uebench.attacks.mi_ue import MIUE, feature_loss
from uebench.data import Dataset
from uebench.learn.loops import accuracy
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack

ARCH = "resnet8[width=8]"


def made(dataset: Dataset, spec: str) -> MIUE:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, MIUE)
    return attack


def cosine(features: Tensor, labels: Tensor) -> float:
    """Return the mean cosine of the features of two images of one class."""
    unit = F.normalize(features, dim=1)
    return (unit @ unit.T)[labels[:, None] == labels].mean().item()


@pytest.mark.parametrize("zeta", [0, 0.1])
def test_one_sweep_makes_the_features_of_a_class_more_alike(zeta: float, stripes: Dataset) -> None:
    run = make_run(stripes)
    model = run.surrogate(stripes.train, ARCH, epochs=40, held_out=0)
    attack = made(stripes, f"mi_ue[zeta={zeta},mirror=false,steps=20,noise_batch=300]")
    noise = torch.zeros(stripes.train.images.shape)
    labels = stripes.train.labels
    with frozen(model):
        attack._sweep(model, stripes.train, noise, 1 / 255, run)
        with torch.no_grad():
            before = cosine(penultimate(model, stripes.train.pixels()), labels)
            after = cosine(penultimate(model, stripes.train.pixels() + noise), labels)
    assert after > before + 0.3 * (1 - before), (before, after)


@pytest.mark.slow
def test_features_of_a_class_have_a_higher_cosine_than_without_and_with_em(
    stripes: Dataset,
) -> None:
    specs = {
        "none": "none",
        "em": "em[rounds=30,train_steps=2,steps=5,batch_size=128]",
        "mi_ue": "mi_ue[epochs=30,step=0.8/255,noise_batch=300,batch_size=50]",
    }
    alike, right = {}, {}
    for name, spec in specs.items():
        attack = build_attack(spec).resolve(Facts("test", 3, stripes.shape, 1, ARCH))
        data = stripes.train.with_images(attack.craft(stripes.train, make_run(stripes)).images)
        run = make_run(stripes, 2, shared_seed=2)
        victim = run.surrogate(data, ARCH, epochs=40, held_out=0)
        with torch.no_grad():
            alike[name] = cosine(penultimate(victim, data.pixels()), data.labels)
        right[name] = accuracy(victim, stripes.test, run)
    assert alike["mi_ue"] > alike["none"] + 0.015, alike
    assert alike["mi_ue"] > alike["em"], alike
    assert right["mi_ue"] < 0.6 < 0.9 < right["none"], right


def test_the_loss_is_its_definition() -> None:
    """Against a plain loop over all pairs."""
    rng = torch.Generator().manual_seed(0)
    features = torch.rand(7, 5, generator=rng, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 0])
    total = 0.0
    for i in range(7):
        near, everyone, far = 0.0, 0.0, 0.0
        for j in range(7):
            cosine = F.cosine_similarity(features[i], features[j], dim=0).item()
            value = torch.tensor(cosine / 0.1).exp().item() + 1e-8
            everyone += value
            if labels[i] == labels[j]:
                near += value
                far += (features[i] - features[j]).norm().item()
        total += -torch.tensor(near / everyone).log().item()
        total += 0.3 * torch.tensor(1 + far / 5).log().item()
    assert feature_loss(features, labels, 0.1, 0.3).item() == pytest.approx(total, rel=1e-5)


def test_low_temperatures_do_not_overflow() -> None:
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], requires_grad=True)
    loss = feature_loss(features, torch.tensor([0, 0, 1, 1]), 0.01, 0.0)
    (slope,) = torch.autograd.grad(loss, features)
    assert loss.isfinite()
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


def test_equal_features_have_finite_gradients() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    feature_loss(features, torch.tensor([0, 0, 1, 1]), 0.1, 0.1).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_steps_grow_and_the_whole_batch_is_one(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[float] = []
    sizes: list[int] = []
    descend = module.descend

    def noted(loss: object, data: object, labels: Tensor, delta: Tensor, **more: object) -> None:
        steps.append(more["step"])  # type: ignore[arg-type]
        assert more["at_once"] == len(labels)
        sizes.append(len(labels))
        descend(loss, data, labels, delta, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "descend", noted)
    attack = made(tiny, "mi_ue[epochs=3,steps=1,noise_batch=20]")
    attack.perturb(tiny.train, make_run(tiny))
    assert sizes == [20] * 6
    assert [255 * step for step in steps] == pytest.approx(
        [x for x in (0.2, 0.8 / 3, 1 / 3) for _ in "ab"]
    )


def test_images_are_mirrored_before_the_noise_is_added(tiny: Dataset) -> None:
    run = make_run(tiny)
    part = made(tiny, "mi_ue").clean(tiny.train, run)
    kept = (part.images == tiny.train.images).flatten(1).all(1)
    mirrored = (part.images == tiny.train.images.flip(3)).flatten(1).all(1)
    assert (kept | mirrored).all()
    assert 8 < mirrored.sum() < 32
    assert made(tiny, "mi_ue[mirror=false]").clean(tiny.train, run) is tiny.train


def test_the_paper_s_numbers_and_cost_are_the_defaults() -> None:
    attack = build_attack("mi_ue").resolve(Facts("cifar10", 10, (3, 32, 32), 1, "resnet8"))
    assert isinstance(attack, MIUE)
    assert (attack.epochs, attack.steps, attack.batch_size) == (100, 10, 128)
    assert (attack.noise_batch, attack.temperature, attack.zeta) == (512, 0.1, 0.1)
    assert attack.step == pytest.approx(0.2 / 255)
    assert attack.image_passes(1000) == 1_100_000
