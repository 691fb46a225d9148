"""OPS: one pixel per image, the one with the highest score of all, and no pair used twice."""

from itertools import product

import numpy as np
import pytest
import torch

from tests.conftest import make_run, random_dataset
from uebench.attacks._one_pixel import find_shortcuts
from uebench.data import Dataset, from_arrays
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack


def crafted(dataset: Dataset, spec: str = "ops") -> torch.Tensor:
    """Return the 8-bit images."""
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9")
    return build_attack(spec).resolve(facts).craft(dataset.train, make_run(dataset)).images


def structured(sizes: list[int], side: tuple[int, int], channels: int = 3) -> Dataset:
    """Return images whose pixels have means and spreads of their own, none black or white."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    mean = rng.uniform(40, 215, (len(sizes), *side, channels))
    spread = rng.uniform(2, 30, (len(sizes), *side, channels))
    images = mean[labels] + spread[labels] * rng.standard_normal((len(labels), *side, channels))
    pixels = images.clip(1, 254).astype(np.uint8)
    return from_arrays("made", (pixels, labels), (pixels, labels), None)


def plain_loop(dataset: Dataset, variance: bool) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return row, column and colour of each class, by the definition."""
    images = dataset.train.images.numpy() / 255
    labels = dataset.train.labels.numpy()
    c, h, w = dataset.shape
    chosen: list[tuple[int, int, tuple[int, ...]]] = []
    for label in range(dataset.n_classes):
        best, pair = -1.0, (0, 0, (0,))
        for y, x in product(range(h), range(w)):
            for color in product((0, 1), repeat=c):
                distance = np.abs(images[labels == label][:, :, y, x] - np.array(color))
                spread = distance.var() if variance else distance.std()
                score = distance.mean() / spread
                if (y, x, color) not in chosen and score >= best:
                    best, pair = score, (y, x, color)
        chosen.append(pair)
    return chosen


def test_the_seed_changes_nothing_and_the_attack_says_so() -> None:
    dataset = structured([7, 9], (6, 5))
    method = build_attack("ops").resolve(Facts("test", 2, dataset.shape, 1, "resnet9"))
    first, second = (method.craft(dataset.train, make_run(dataset, seed)) for seed in (0, 1))
    assert torch.equal(first.images, second.images)
    assert method.deterministic, "poison seeds would repeat one measurement"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("score", ["mean/sd", "mean/variance"])
def test_the_pixel_maximises_the_score(score: str, channels: int) -> None:
    dataset = structured([7, 20, 12, 9], (6, 5), channels)
    images = crafted(dataset, f"ops[score={score}]")
    for label, (y, x, color) in enumerate(plain_loop(dataset, score == "mean/variance")):
        mine = dataset.train.labels == label
        wanted = dataset.train.images[mine].clone()
        wanted[:, :, y, x] = 255 * torch.tensor(color, dtype=torch.uint8)
        assert torch.equal(images[mine], wanted), label


def test_the_two_scores_differ() -> None:
    dataset = structured([20] * 8, (8, 8))
    assert not torch.equal(crafted(dataset), crafted(dataset, "ops[score=mean/variance]"))


@pytest.mark.parametrize("sizes", [[30] * 10, [2] * 100])
def test_exactly_one_position_changes_and_no_pair_is_used_twice(sizes: list[int]) -> None:
    dataset = structured(sizes, (12, 12))
    images = crafted(dataset)
    changed = (images != dataset.train.images).any(1).flatten(1)
    assert (changed.sum(1) == 1).all()
    pairs = set()
    for label in range(len(sizes)):
        mine = dataset.train.labels == label
        position = changed[mine].nonzero()[:, 1].unique()
        color = images[mine].flatten(2)[:, :, position].unique(dim=0)
        assert len(position) == len(color) == 1
        assert set(color.flatten().tolist()) <= {0, 255}
        pairs.add((int(position), tuple(color.flatten().tolist())))
    assert len(pairs) == len(sizes)


def test_classes_that_agree_on_the_best_take_turns() -> None:
    """All classes are alike, so that each would choose the same pair."""
    rng = np.random.default_rng(0)
    images = np.tile(rng.integers(1, 255, (4, 6, 6, 3), dtype=np.uint8), (3, 1, 1, 1))
    labels = np.repeat(np.arange(3), 4)
    dataset = from_arrays("made", (images, labels), (images, labels), None)
    out = crafted(dataset).view(3, 4, 3, 6, 6)
    assert not torch.equal(out[0], out[1])
    assert not torch.equal(out[1], out[2])
    assert not torch.equal(out[0], out[2])


def test_of_equal_scores_the_last_wins() -> None:
    images = np.full((4, 4, 4, 1), 51, dtype=np.uint8)  # every position is the same
    labels = np.array([0, 0, 1, 1])
    dataset = from_arrays("made", (images, labels), (images, labels), None)
    out = crafted(dataset)[:, 0]
    assert (out[:2, 3, 3] == 255).all()
    assert (out[2:, 3, 2] == 255).all()


def test_of_two_colours_for_one_position_the_worse_stays() -> None:
    images = np.zeros((4, 4, 4, 3), dtype=np.uint8)
    images[1::2] = 255  # black and white: every colour has a score of 1
    images[:2, 0, 0] = (0, 0, 51)  # farthest from (1, 1, 1), with a score of 9.9; then (1, 1, 0)
    labels = np.array([0, 0, 1, 1])
    dataset = from_arrays("made", (images, labels), (images, labels), None)
    found = find_shortcuts(dataset.train, 2, "mean/sd")
    assert found.positions[0].tolist() == [0, 0]
    out = crafted(dataset, "ops[sparsity=2]")
    assert found.colors[0].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert out[:2, :, 0, 0].tolist() == [[255, 255, 0]] * 2, "as the authors: the best goes first"


def test_sparsity_is_the_number_of_pixels() -> None:
    dataset = structured([30] * 4, (16, 16))
    changed = (crafted(dataset, "ops[sparsity=3]") != dataset.train.images).any(1).flatten(1)
    assert (changed.sum(1) <= 3).all()
    assert (changed.sum(1) >= 2).all()
    one = (crafted(dataset) != dataset.train.images).any(1).flatten(1)
    assert (changed[dataset.train.labels == 0] >= one[dataset.train.labels == 0]).all()


@pytest.mark.parametrize(
    ("n_classes", "shape", "spec", "sentence"),
    [
        (1, (3, 8, 8), "ops", "needs at least 2 classes to tell apart, got 1"),
        (9, (1, 2, 2), "ops", "9 classes with 1 pixels each need 9 pairs .* have only 8"),
        (3, (3, 2, 2), "ops[sparsity=11]", "lower sparsity, or use fewer classes"),
        (1, (3, 8, 8), "cifar10_s", "needs at least 2 classes"),
        (9, (1, 2, 2), "cifar10_s", "cifar10_s: 9 classes"),
    ],
)
def test_what_cannot_be_separated_is_refused(
    n_classes: int, shape: tuple[int, int, int], spec: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_attack(spec).resolve(Facts("test", n_classes, shape, 1, "resnet9"))


@pytest.mark.parametrize("option", ["norm=linf", "eps=8/255", "sparsity=0", "score=median"])
def test_a_budget_of_another_kind_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"norm must be l0|no option eps|sparsity must|score must"):
        build_attack(f"ops[{option}]")


def test_all_pairs_can_be_used() -> None:
    dataset = random_dataset([2] * 32, (4, 4), channels=1)
    assert (crafted(dataset) != dataset.train.images).any()
    shortcuts = find_shortcuts(dataset.train, 1, "mean")
    pairs = {
        (int(place), int(color))
        for place, color in zip(*(s.flatten() for s in shortcuts), strict=True)
    }
    assert len(pairs) == 32
