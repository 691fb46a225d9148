"""The squeezes: JPEG as Pillow makes it, grayscale, fewer bits."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.conftest import make_run, random_dataset
from uebench.augment import fewer_bits, grayscale
from uebench.data import Dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_defense


def prepared(dataset: Dataset, spec: str) -> torch.Tensor:
    return build_defense(spec).method.prepare(dataset.train, make_run(dataset)).images


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_pillows(quality: int, small: Dataset) -> None:
    images = prepared(small, f"iss[quality={quality}]")
    for i in (0, 7):
        buffer = io.BytesIO()
        array = small.train.images[i].permute(1, 2, 0).numpy()
        Image.fromarray(array).save(buffer, "JPEG", quality=quality)
        assert np.array_equal(images[i].permute(1, 2, 0).numpy(), np.asarray(Image.open(buffer)))


def every_level() -> torch.Tensor:
    """All 8-bit values of a channel, beside many others of the two other channels."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.permuted(np.tile(np.arange(256, dtype=np.uint8), (3, 64)), axis=1))


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_bdr_is_pillows_posterize(bits: int) -> None:
    images = every_level().view(1, 3, 128, 128)
    picture = ImageOps.posterize(Image.fromarray(images[0].permute(1, 2, 0).numpy()), bits)
    assert np.array_equal(fewer_bits(images, bits)[0].permute(1, 2, 0), np.asarray(picture))
    exact = fewer_bits(images / 255, bits) * 255
    assert torch.equal(exact.round().to(torch.uint8), fewer_bits(images, bits))
    dataset = random_dataset([5, 5])
    assert torch.equal(
        prepared(dataset, f"iss[mode=bdr,bits={bits}]"), fewer_bits(dataset.train.images, bits)
    )


def test_gray_is_pillows_luma_in_every_channel() -> None:
    images = every_level().view(1, 3, 128, 128)
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy()).convert("L")
    assert np.array_equal(grayscale(images)[0, 1], np.asarray(picture))
    dataset = random_dataset([5, 5])
    squeezed = prepared(dataset, "iss[mode=gray]")
    assert torch.equal(squeezed, grayscale(dataset.train.images))
    assert torch.equal(squeezed[:, 0], squeezed[:, 2])


def test_several_squeezes_in_their_order() -> None:
    dataset = random_dataset([5, 5])
    both = prepared(dataset, "iss[mode=bdr+gray]")
    first = dataset.train.with_images(prepared(dataset, "iss[mode=bdr]"))
    second = build_defense("iss[mode=gray]").method.prepare(first, make_run(dataset)).images
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
