"""The baselines: what the network is shown, and the labels of mixtures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import make_run
from uebench.data import Dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_defense


class Watched(nn.Module):
    """A linear network that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 16 * 16, 2)
        self.seen = torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.detach()
        return self.linear(x.flatten(1))


def shown(spec: str, tiny: Dataset, seed: int = 0) -> tuple[Watched, torch.Tensor]:
    model = Watched()
    made = build_defense(spec).resolve(Facts("test", 2, (3, 16, 16), 8, "resnet9"))
    run = make_run(tiny, seed, epochs=8)
    loss = made.loss(model, tiny.train.pixels(), tiny.train.labels, run)
    return model, loss.detach()


AUGMENT = ["autoaugment", "randaugment", "trivialaugment", "blur", "cutout[size=4]", "augment"]


@pytest.mark.parametrize("spec", AUGMENT)
def test_the_loss_is_that_of_changed_images(spec: str, tiny: Dataset) -> None:
    model, loss = shown(spec, tiny)
    assert model.seen.shape == tiny.train.pixels().shape
    assert (model.seen != tiny.train.pixels()).flatten(1).any(1).float().mean() > 0.5
    expected = F.cross_entropy(model(model.seen), tiny.train.labels)
    assert torch.allclose(loss, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_mixtures_loss_is_the_mean_of_both_labels(name: str, tiny: Dataset) -> None:
    model, loss = shown(name, tiny)
    made = build_defense(name).method
    mixed = made.mix(tiny.train.pixels(), make_run(tiny, epochs=8).rng)  # type: ignore[attr-defined]
    assert torch.equal(mixed.images, model.seen)
    labels = tiny.train.labels
    soft = mixed.share[:, None] * F.one_hot(labels, 2)
    soft += (1 - mixed.share)[:, None] * F.one_hot(labels[mixed.partner], 2)
    assert (soft.amax(1) < 0.99).any()
    assert torch.allclose(loss, F.cross_entropy(model(model.seen), soft), atol=1e-6)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_nothing_is_mixed_with_probability_0(name: str, tiny: Dataset) -> None:
    assert torch.equal(
        shown(f"{name}[probability=0]", tiny)[0].seen, shown("standard", tiny)[0].seen
    )


def test_parts_of_the_policy(tiny: Dataset) -> None:
    images = tiny.train.pixels()
    shuffled = shown("augment[policy=c]", tiny)[0].seen
    assert torch.equal(shuffled.sort(1).values, images.sort(1).values)
    assert not torch.equal(shuffled, images)
    seen = [shown(f"augment[policy={p}]", tiny)[0].seen for p in ("p+c", "p+c+t", "p+c+a")]
    assert not torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(shown("augment[policy=t+c+p]", tiny)[0].seen, seen[1])


def test_the_ablation_with_a_maximum_is_ueraser(tiny: Dataset) -> None:
    assert torch.equal(shown("augment[repeats=5]", tiny)[1], shown("ueraser", tiny)[1])
    assert torch.equal(shown("augment", tiny)[1], shown("ueraser_lite", tiny)[1])


def test_options_that_do_nothing_make_no_other_key() -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 200, "resnet18")

    def options(spec: str) -> dict[str, object]:
        return build_defense(spec).resolve(facts).options()

    assert options("iss[mode=gray,quality=30]") == options("iss[mode=gray]")
    assert options("iss[bits=4]") == options("iss")
    assert options("iss[mode=bdr+jpeg,bits=4,quality=30]")["quality"] == 30
    assert options("augment[select=no_grad,adversarial_epochs=7]") == options("augment")
    assert options("ueraser[select=no_grad,bn=loop]") == options("ueraser[select=no_grad]")
    assert options("ueraser[bn=loop]") != options("ueraser")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("ueraser[repeats=0]", "repeats must be a whole number in [1, 100], got 0"),
        ("ueraser[adversarial_epochs=-3]", "adversarial_epochs must be"),
        ("augment[policy=p+x]", "policy=p+x: letters must be p, c, and t or a"),
        ("augment[policy=t+a]", "policy=t+a: letter a stands in t's place"),
        ("augment[policy=a,engine=kornia,draw=batch,kornia=0.9]", "no AutoAugment for CIFAR-10"),
        ("iss[quality=0]", "quality must be a whole number in [1, 95], got 0"),
        ("iss[quality=96]", "quality must be a whole number in [1, 95], got 96"),
        ("iss[mode=jpg]", "mode must be one of jpeg, gray, bdr"),
        ("at[radius=4]", "a linf radius lies in (0, 1], got 4; divide by 255, radius=4/255"),
        ("at[step=2]", "a linf step lies in (0, 1], got 2; divide by 255, step=2/255"),
        ("cutout[size=0]", "size must be a whole number in [1, 4096], got 0"),
        ("cutmix[probability=1.5]", "probability must be a number in [0, 1], got 1.5"),
        ("mixup[beta=0]", "beta must be a number in (0, 1000], got 0"),
        ("randaugment[magnitude=31]", "magnitude must be a whole number in [0, 30], got 31"),
        ("blur[sigma=0]", "sigma must be a number in (0, 100], got 0"),
    ],
)
def test_bad_options_are_one_sentence(spec: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"\w: ") as error:
        build_defense(spec).resolve(Facts("test", 2, (3, 16, 16), 8, "resnet9"))
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert ("divide by 255" in str(error.value)) == spec.startswith("at[")
