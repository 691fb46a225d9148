"""CUDA: the images are the convolution with their class's filter, and nothing else."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from tests.conftest import make_run, random_dataset
from uebench.data import Dataset, from_arrays
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack


def facts_of(dataset: Dataset) -> Facts:
    return Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9")


def crafted(dataset: Dataset, spec: str = "cuda", seed: int = 0) -> torch.Tensor:
    attack = build_attack(spec).resolve(facts_of(dataset))
    return attack.craft(dataset.train, make_run(dataset, seed)).images


def authors_filters(k: int, side: int, blur: float) -> np.ndarray:
    """Return the filters as the authors' code draws them, written down from its description."""
    stream = np.random.RandomState(0)
    filters = []
    for _ in range(k):
        three = blur * stream.rand(3, side, side)
        y, x = stream.randint(side), stream.randint(side)
        three[0, y, x] = 1.0
        filters.append(three[0])
    return np.stack(filters)


@pytest.mark.parametrize("side", [2, 3, 4, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_the_convolution(side: int, channels: int) -> None:
    dataset = random_dataset([4, 5, 2], (13, 11), channels=channels)
    images = crafted(dataset, f"cuda[kernel={side},blur=0.3,filters=authors]", seed=7)
    filters = authors_filters(3, side, 0.3)
    for image, clean, label in zip(images, dataset.train.images, dataset.train.labels, strict=True):
        # scipy puts the origin of an even kernel one pixel further down and to the right
        blurred = np.stack(
            [
                correlate(
                    plane.numpy() / 255,
                    filters[int(label)],
                    mode="constant",
                    origin=0 if side % 2 else -1,
                )
                for plane in clean
            ]
        )
        wanted = 255 * blurred / blurred.max()
        assert np.abs(image.numpy() - wanted).max() <= 0.5 + 1e-3


def test_filters_are_drawn_with_the_seed_unless_they_are_the_authors() -> None:
    dataset = random_dataset([3, 3])
    assert not torch.equal(crafted(dataset, seed=1), crafted(dataset, seed=2))
    same = crafted(dataset, "cuda[filters=authors]", seed=1)
    assert torch.equal(same, crafted(dataset, "cuda[filters=authors]", seed=2))


def test_seeded_filters_have_one_entry_of_one_and_the_others_within_the_blur() -> None:
    dataset = random_dataset([1] * 50)
    attack = build_attack("cuda[kernel=5,blur=0.2]").resolve(facts_of(dataset))
    kernels = attack.kernels(50, make_run(dataset)).flatten(1)  # type: ignore[attr-defined]
    assert ((kernels == 1).sum(1) == 1).all()
    others = kernels[kernels != 1]
    assert 0 <= others.min() < 0.01
    assert 0.19 < others.max() <= 0.2
    assert len(kernels.argmax(1).unique()) > 10, "the entry of one is anywhere"


def test_one_image_is_scaled_by_its_own_maximum_and_black_stays_black() -> None:
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    images[1:] = np.random.default_rng(0).integers(0, 60, (3, 8, 8, 3), dtype=np.uint8)
    labels = np.array([0, 0, 1, 1])
    out = crafted(from_arrays("made", (images, labels), (images, labels), None))
    assert not out[0].any()
    assert (out[1:].flatten(1).amax(1) == 255).all()


@pytest.mark.parametrize(
    ("side", "kernel", "blur"), [(32, 3, 0.3), (63, 3, 0.3), (64, 9, 0.06), (2, 2, 0.3)]
)
def test_auto_follows_the_paper(side: int, kernel: int, blur: float) -> None:
    facts = Facts("test", 10, (3, side, side), 1, "resnet9")
    options = build_attack("cuda").resolve(facts).options()
    assert (options["kernel"], options["blur"]) == (kernel, blur)


@pytest.mark.parametrize(
    ("spec", "n_classes", "sentence"),
    [
        ("cuda[kernel=9]", 10, "kernel of 9 px does not fit images of 8x12 px; choose at most"),
        ("cuda", 1, "at least 2 classes"),
    ],
)
def test_what_does_not_fit_is_refused(spec: str, n_classes: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_attack(spec).resolve(Facts("test", n_classes, (3, 8, 12), 1, "resnet9"))


@pytest.mark.parametrize("option", ["norm=linf", "eps=8/255", "kernel=1", "filters=mine"])
def test_a_budget_is_refused(option: str) -> None:
    with pytest.raises(
        ValueError, match=r"norm must be none|no option eps|kernel must|filters must"
    ):
        build_attack(f"cuda[{option}]")
