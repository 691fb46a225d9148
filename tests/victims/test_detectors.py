"""Detectors find planted poisons, call clean pictures clean, and compute what they say."""

import numpy as np
import pytest
import torch

from tests.conftest import make_run, random_dataset
from uebench.common.errors import UserError
from uebench.data import Dataset, Split, load_dataset
from uebench.suite.single import craft
from uebench.victims.detectors import (
    DETECTORS,
    Scores,
    TwoLayer,
    build_detector,
    check_detectable,
    detector_spec,
    divided,
    edge_features,
)

QUICK = ["linear[epochs=3]", "two_layer[epochs=2,width=64]", "edge_pixels", "noise[steps=10]"]


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    """600 pictures of 4 classes."""
    return load_dataset("synthetic[n_train=600,n_test=4,n_classes=4,size=16]")


def scores(spec: str, dataset: Dataset, images: torch.Tensor, seed: int = 0) -> Scores:
    """Return what a detector says about other images of a training set."""
    run = make_run(dataset, seed)
    suspect = divided(dataset.train.with_images(images), dataset.train, run)
    return build_detector(spec).score(suspect, run)


@pytest.mark.parametrize(
    ("spec", "attacks"),
    [
        ("linear[epochs=60]", ["lsp", "random_class", "ops"]),
        ("noise[steps=100]", ["lsp", "random_class", "ops"]),
        ("edge_pixels", ["cuda"]),
        # crops of 4 px blur a pattern of 16 px, and few images need a strong one and many epochs
        pytest.param("two_layer[epochs=150,width=128]", ["lsp[eps=8]"], marks=pytest.mark.slow),
        pytest.param("bias_shift[epochs=20,arch=resnet8]", ["lsp[eps=4]"], marks=pytest.mark.slow),
    ],
)
def test_poisons_are_found_and_clean_pictures_are_not(
    pictures: Dataset, spec: str, attacks: list[str]
) -> None:
    threshold = build_detector(spec).threshold
    for attack in attacks:
        assert scores(spec, pictures, craft(attack, pictures).images).held_out > threshold, attack
    assert scores(spec, pictures, pictures.train.images).held_out < 0.6


def test_edge_features_are_the_steps_between_neighbouring_lines() -> None:
    dataset = random_dataset([3, 4], side=(9, 7))
    images = dataset.train.images.numpy().astype(np.float64) / 255
    expected = np.empty((7, 2, 12))
    for n, image in enumerate(images):
        for c, plane in enumerate(image):
            for which, turned in enumerate((plane, plane[::-1], plane.T, plane.T[::-1])):
                for depth in range(2):
                    step = turned[depth].mean() - turned[depth + 1].mean()
                    expected[n, depth, 3 * which + c] = step
    torch.testing.assert_close(
        edge_features(dataset.train), torch.from_numpy(expected).float(), atol=1e-6, rtol=0
    )


def test_the_noise_is_scored_on_held_out_images(pictures: Dataset) -> None:
    """Independent noise is fitted perfectly, and tells nothing about other images."""
    rng = torch.Generator().manual_seed(0)
    levels = torch.randint(-8, 9, pictures.train.images.shape, generator=rng)
    noisy = (pictures.train.images.int() + levels).clamp(0, 255).to(torch.uint8)
    found = scores("noise", pictures, noisy)
    assert found.train == 1.0
    assert found.held_out < 0.5


def test_a_fifth_is_held_out_and_differs_between_seeds(pictures: Dataset) -> None:
    first, again, other = (
        divided(pictures.train, pictures.train, make_run(pictures, seed)) for seed in (0, 0, 1)
    )
    assert (len(first.fitted), len(first.held_out)) == (480, 120)
    everything = torch.cat((first.fitted, first.held_out)).sort().values
    assert torch.equal(everything, torch.arange(600))
    assert torch.equal(first.held_out, again.held_out)
    assert not torch.equal(first.held_out, other.held_out)


def test_one_seed_gives_one_score(pictures: Dataset) -> None:
    images = craft("lsp", pictures).images
    for spec in QUICK:
        assert scores(spec, pictures, images) == scores(spec, pictures, images), spec


def test_the_defaults_are_the_sizes_of_the_source() -> None:
    assert {name: detector_spec(build_detector(name)) for name in DETECTORS} == {
        name: name for name in DETECTORS
    }
    two_layer = build_detector("two_layer")
    assert isinstance(two_layer, TwoLayer)
    assert (two_layer.width, two_layer.epochs) == (3072, 100)
    dataset = load_dataset("synthetic[n_train=10,n_test=10]")
    network = two_layer.network(dataset.train, make_run(dataset))
    assert sum(p.numel() for p in network.parameters()) == 3072 * 3073 + 10 * 3073


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lineal", "did you mean linear"),
        ("linear[epochs=0]", "epochs"),
        ("linear[width=3]", "width"),
        ("bias_shift[arch=resnet81]", "did you mean resnet8"),
        ("noise[steps=many]", "steps"),
    ],
)
def test_bad_specs_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_detector(spec)


@pytest.mark.parametrize(
    ("n", "labels", "side", "message"),
    [
        (2, [0, 1], 8, "at least 50 images.*got 2"),
        (60, [1], 8, "at least 2 classes.*got 1"),
        (60, [0, 1], 2, "at least 3x3 px, got 2x2"),
    ],
)
def test_sets_on_which_a_verdict_means_nothing_are_refused(
    n: int, labels: list[int], side: int, message: str
) -> None:
    images = torch.zeros(n, 3, side, side, dtype=torch.uint8)
    data = Split(images, torch.tensor(labels).repeat(n)[:n], ("a", "b"))
    with pytest.raises(UserError, match=message):
        check_detectable(data)
