"""The squeezes: JPEG as Pillow makes it, grayscale, fewer bits."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import make_run, random_dataset
from uebench.api import Facts
from uebench.data import Dataset
from uebench.registry import build_defense


def prepared(dataset: Dataset, spec: str) -> torch.Tensor:
    return build_defense(spec).prepare(dataset.train, make_run(dataset)).images


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_pillows(quality: int, small: Dataset) -> None:
    images = prepared(small, f"iss[quality={quality}]")
    for i in (0, 7):
        buffer = io.BytesIO()
        array = small.train.images[i].permute(1, 2, 0).numpy()
        Image.fromarray(array).save(buffer, "JPEG", quality=quality)
        assert np.array_equal(images[i].permute(1, 2, 0).numpy(), np.asarray(Image.open(buffer)))


def test_bdr_leaves_four_levels() -> None:
    images = prepared(random_dataset([5, 5]), "iss[mode=bdr]")
    assert set(images.unique().tolist()) == {0, 85, 170, 255}


def test_gray_is_luma_in_every_channel() -> None:
    dataset = random_dataset([5, 5])
    images = prepared(dataset, "iss[mode=gray]")
    assert torch.equal(images[:, 0], images[:, 2])
    picture = Image.fromarray(dataset.train.images[0].permute(1, 2, 0).numpy()).convert("L")
    difference = images[0, 0].int() - torch.from_numpy(np.asarray(picture).copy()).int()
    assert difference.abs().max() <= 1


def test_several_squeezes_in_their_order() -> None:
    dataset = random_dataset([5, 5])
    both = prepared(dataset, "iss[mode=bdr+gray]")
    first = dataset.train.with_images(prepared(dataset, "iss[mode=bdr]"))
    second = build_defense("iss[mode=gray]").prepare(first, make_run(dataset)).images
    assert torch.equal(both, second)


def test_grey_images_of_one_channel() -> None:
    dataset = random_dataset([3, 3], channels=1)
    assert prepared(dataset, "iss").shape == dataset.train.images.shape


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ("iss[bits=4]", "iss"),
        ("iss[mode=gray,quality=30,bits=4]", "iss[mode=gray]"),
        ("iss[mode=bdr,quality=30]", "iss[mode=bdr]"),
    ],
)
def test_options_that_the_mode_does_not_use_are_in_no_key(spec: str, plain: str) -> None:
    facts = Facts("cifar10", 10, (3, 32, 32), 8, "resnet9")
    alike, one = (build_defense(each).resolve(facts).recipe() for each in (spec, plain))
    assert alike == one
    assert build_defense("iss[mode=bdr,bits=4]").resolve(facts).recipe() != one
