"""The class-wise baselines: one pattern per class, which a linear probe finds at once."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.conftest import make_run, random_dataset
from uebench.attacks.regions import Regions
from uebench.data import Dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack

SPECS = (
    *("random_class", "regions[tiles=4]", "regions", "regions[tiles=64]"),
    *("regions[norm=l2]", "p5"),
)


def noise(dataset: Dataset, spec: str) -> torch.Tensor:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9")
    return build_attack(spec).resolve(facts).perturb(dataset.train, make_run(dataset))


@pytest.mark.parametrize("spec", SPECS)
def test_one_pattern_per_class_and_no_two_alike(spec: str) -> None:
    dataset = random_dataset([3] * 100, (16, 16))
    delta = noise(dataset, spec)
    labels = dataset.train.labels
    patterns = delta.flatten(1).unique(dim=0)
    assert len(patterns) == 100
    for label in (0, 57):
        assert len(delta[labels == label].flatten(1).unique(dim=0)) == 1


@pytest.mark.parametrize("spec", SPECS)
def test_a_linear_probe_finds_the_class_in_the_8_bit_images(spec: str) -> None:
    dataset = random_dataset([30] * 10, (16, 16))
    facts = Facts("test", 10, dataset.shape, 1, "resnet9")
    poison = build_attack(spec).resolve(facts).craft(dataset.train, make_run(dataset))
    change = (poison.images.float() - dataset.train.images).flatten(1).numpy()
    labels = dataset.train.labels.numpy()
    probe = LogisticRegression(max_iter=300).fit(change[:150], labels[:150])
    assert probe.score(change[150:], labels[150:]) == 1


def test_the_noise_is_uniform_within_the_budget() -> None:
    delta = noise(random_dataset([1, 1], (32, 32)), "random_class[eps=16/255]") * 255
    assert -16 <= delta.min() < -15.9
    assert 15.9 < delta.max() <= 16
    assert delta.std().item() == pytest.approx(16 / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("tiles", [4, 16, 64])
@pytest.mark.parametrize("side", [(32, 32), (19, 13)])
def test_regions_are_tiles_of_one_sign_at_the_budget(tiles: int, side: tuple[int, int]) -> None:
    delta = noise(random_dataset([2, 2], side), f"regions[tiles={tiles}]")
    assert torch.equal(delta.abs(), torch.full_like(delta, 8 / 255))
    across = math.isqrt(tiles)
    for axis, length in zip((2, 3), side, strict=True):
        borders = (delta.diff(dim=axis) != 0).transpose(axis, 3).flatten(0, 2).any(0).sum()
        assert 1 <= borders <= across - 1, (axis, length)


@pytest.mark.parametrize(
    ("spec", "norm"),
    [("p5", 0.5), ("p5[eps=1]", 1.0), ("regions[norm=l2]", 1.0), ("regions[norm=l2,eps=2]", 2.0)],
)
def test_l2_patterns_have_the_length_of_the_budget(spec: str, norm: float) -> None:
    delta = noise(random_dataset([2, 2], (32, 32)), spec)
    assert torch.allclose(delta.flatten(1).norm(dim=1), torch.tensor(norm), atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "n_classes", "shape", "sentence"),
    [
        ("random_class", 1, (3, 8, 8), "random_class needs at least 2 classes to tell apart"),
        ("p5", 1, (3, 8, 8), "p5 needs at least 2 classes to tell apart, got 1"),
        ("regions", 1, (3, 8, 8), "regions needs at least 2 classes to tell apart, got 1"),
        ("regions[tiles=4]", 17, (1, 8, 8), "4 tiles and 1 channels give 16 patterns"),
        ("regions[tiles=64]", 5, (3, 8, 7), "64 tiles need images of at least 8x8 px, got 8x7"),
        ("regions[eps=8]", 5, (3, 8, 8), "divide by 255"),
        ("regions[eps=0.0019]", 5, (3, 8, 8), r"rounds to nothing; take an eps of at least 0.002"),
        ("regions[norm=l2,eps=0.1]", 5, (3, 32, 32), r"by 0.46 .* eps of at least 0.1087"),
    ],
)
def test_what_has_no_pattern_per_class_is_refused(
    spec: str, n_classes: int, shape: tuple[int, int, int], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_attack(spec).resolve(Facts("test", n_classes, shape, 1, "resnet9"))


@pytest.mark.parametrize("spec", ["regions[tiles=15]", "random_class[norm=l2]", "p5[norm=l0]"])
def test_bad_options_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"4, 16, 64 or another square|norm must be"):
        build_attack(spec)


def test_no_two_of_many_classes_share_their_signs(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = iter([torch.zeros(3, 27, dtype=torch.int64), torch.eye(3, 27, dtype=torch.int64)])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(draws))
    signs = Regions._signs(3, 27, make_run(tiny))
    assert len(signs.unique(dim=0)) == 3
