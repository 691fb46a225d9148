"""TUE's claim: its noise is tightly clustered by class, with no network and whatever the images."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests.conftest import make_run
from uebench import Facts, Split
from uebench.attacks.tue import TUE
from uebench.data import Dataset, load_dataset
from uebench.methods.registry import build_attack


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    return load_dataset("synthetic[n_train=400,n_test=30,n_classes=4,size=16]")


def built(dataset: Dataset, spec: str) -> TUE:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9")
    attack = build_attack(spec).resolve(facts)
    assert isinstance(attack, TUE)
    return attack


def csd(noise: Tensor, labels: Tensor, spread_gradient: bool = True) -> Tensor:
    """Return the discriminant in a plain loop over the pairs of classes."""
    centres, spreads = [], []
    for label in labels.unique():
        mine = noise[labels == label]
        centres.append(mine.mean(0))
        spreads.append((mine - centres[-1]).norm(dim=1).mean())
        if not spread_gradient:
            spreads[-1] = spreads[-1].detach()
    ratios = [
        (spreads[i] + spreads[j] + 1e-5) / ((centres[i] - centres[j]).norm() + 1e-5)
        for i in range(len(centres))
        for j in range(len(centres))
        if i != j
    ]
    return torch.stack(ratios).mean()


def flat(delta: Tensor) -> Tensor:
    return delta.flatten(1).double()


def separation(dataset: Dataset, spec: str) -> tuple[float, Tensor]:
    """Return the discriminant of an attack's noise, and the noise."""
    delta = built(dataset, spec).perturb(dataset.train, make_run(dataset))
    return csd(flat(delta), dataset.train.labels).item(), flat(delta)


def test_noise_is_less_alike_between_classes_than_uniform_noise_of_each_class(
    pictures: Dataset,
) -> None:
    labels = pictures.train.labels
    patterns = torch.rand(4, *pictures.shape, generator=torch.Generator().manual_seed(0))
    uniform = pictures.train.pixels() + (2 * patterns[labels] - 1) * 8 / 255
    of_classes = csd(flat(uniform.clamp(0, 1) - pictures.train.pixels()), labels)
    reached, delta = separation(pictures, "tue[sweeps=20,batch_size=100]")
    assert reached < of_classes
    probe = LogisticRegression(C=1e4).fit(delta[:300].numpy(), labels[:300].numpy())
    assert probe.score(delta[300:].numpy(), labels[300:].numpy()) == 1


@pytest.mark.slow
def test_the_paper_s_gradient_separates_the_classes_but_not_as_well(pictures: Dataset) -> None:
    """Its signed steps, which never get shorter, keep the noise of a class apart."""
    uniform = 2 * torch.rand(400, 768, generator=torch.Generator().manual_seed(0)) - 1
    start = csd(uniform.double(), pictures.train.labels)
    paper, _ = separation(pictures, "tue[sweeps=20,batch_size=100,spread_gradient=true]")
    code, _ = separation(pictures, "tue[sweeps=20,batch_size=100]")
    assert code < paper < 0.1 * start


@pytest.mark.parametrize("spread_gradient", [True, False])
def test_a_step_follows_the_gradient_of_the_definition(
    pictures: Dataset, spread_gradient: bool
) -> None:
    part = pictures.train.subset(torch.arange(50))
    rng = torch.Generator().manual_seed(3)
    noise = (2 * torch.rand(part.images.shape, generator=rng) - 1) * 8 / 255
    noise = (part.pixels() + noise).clamp(0, 1) - part.pixels()
    spec = f"tue[steps=3,spread_gradient={str(spread_gradient).lower()}]"
    searched = built(pictures, spec)._searched(part, noise)
    expected = noise.double()
    images = part.pixels().double()
    for _ in range(3):
        point = expected.clone().requires_grad_()
        loss = csd(point.flatten(1), part.labels, spread_gradient)
        (gradient,) = torch.autograd.grad(loss, point)
        expected = (expected - 0.8 / 255 * gradient.sign()).clamp(-8 / 255, 8 / 255)
        expected = (images + expected).clamp(0, 1) - images
    # a gradient that is almost zero may have either sign
    assert (searched - expected).abs().lt(1e-6).float().mean() > 0.999


def test_the_noise_depends_on_no_image_but_for_the_range_of_pixels(pictures: Dataset) -> None:
    """Nothing is clipped on images of middle gray, so that any two of them get equal noise."""
    noises = []
    for level in (90, 150):
        images = torch.full_like(pictures.train.images, level)
        data = Split(images, pictures.train.labels, pictures.train.class_names)
        noises.append(built(pictures, "tue[sweeps=2]").perturb(data, make_run(pictures)))
    assert (noises[0] - noises[1]).abs().lt(1e-6).float().mean() > 0.999


def test_one_class_in_a_batch_or_alone_in_the_set(pictures: Dataset) -> None:
    alone = pictures.train.subset(torch.nonzero(pictures.train.labels == 2).squeeze(1))
    delta = built(pictures, "tue[sweeps=2]").perturb(alone, make_run(pictures))
    assert delta.isfinite().all()
    assert delta.std() > 3 / 255, "the random start is kept"
    with pytest.raises(ValueError, match="tue needs at least 2 classes to tell apart, got 1"):
        build_attack("tue").resolve(Facts("test", 1, (3, 8, 8), 1, "resnet9"))


def test_a_class_with_one_image_has_no_spread() -> None:
    images = torch.full((3, 1, 4, 4), 128, dtype=torch.uint8)
    data = Split(images, torch.tensor([0, 0, 1]), ("a", "b"))
    attack = build_attack("tue").resolve(Facts("test", 2, (1, 4, 4), 1, "resnet9"))
    assert isinstance(attack, TUE)
    searched = attack._searched(data, torch.rand(3, 1, 4, 4) * 8 / 255)
    assert searched.isfinite().all()
    assert F.pdist(searched.flatten(1)).isfinite().all()


def test_the_authors_numbers_are_the_defaults() -> None:
    attack = build_attack("tue").resolve(Facts("cifar10", 10, (3, 32, 32), 1, "resnet8"))
    assert isinstance(attack, TUE)
    assert (attack.sweeps, attack.steps, attack.batch_size) == (200, 20, 512)
    assert attack.step == pytest.approx(0.8 / 255)
    assert attack.image_passes(1000) == 0
