"""What every augmentation must do: walks the package's names, so that a new one is tested too."""

import inspect

import pytest
import torch

import uebench.augment as augment


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def each(value):
    """Turn one number into one for each image."""
    return lambda x: torch.full((len(x),), value)


def with_factor(name, value):
    return lambda x: getattr(augment, name)(x, each(value)(x))


CALLS = {
    **{
        name: lambda x, name=name: getattr(augment, name)(x, rng())
        for name in (
            "auto_augment",
            "channel_shuffle",
            "contrastive",
            "crop_flip",
            "cutout",
            "plasma_brightness",
            "plasma_contrast",
            "rand_augment",
            "shift_flip",
            "trivial_augment",
            "trivial_augment_wide",
        )
    },
    **{
        name: lambda x, name=name: getattr(augment, name)(x, rng()).images
        for name in ("cutmix", "mixup")
    },
    **{
        name: with_factor(name, value)
        for name, value in {
            "brightness": 1.2,
            "contrast": 0.7,
            "rotate": 20.0,
            "sharpness": 1.5,
            "shear_x": 10.0,
            "shear_y": -10.0,
            "solarize": 0.5,
            "translate_x": 0.1,
            "translate_y": -0.1,
        }.items()
    },
    "Policy": lambda x: augment.Policy()(x, rng()),
    "auto_contrast": augment.auto_contrast,
    "equalize": augment.equalize,
    "fewer_bits": lambda x: augment.fewer_bits(x, 2),
    "gaussian_blur": lambda x: augment.gaussian_blur(x, 1.0),
    "grayscale": augment.grayscale,
    "jpeg": lambda x: augment.jpeg(x, 10),
    "posterize": lambda x: augment.posterize(x, torch.full((len(x),), 3)),
    "warp": lambda x: augment.warp(x, torch.full((len(x), 5), 0.1)),
}
NOT_FOR_IMAGES = {"Mixture", "plasma_maps"}
EIGHT_BIT = ("channel_shuffle", "crop_flip", "fewer_bits", "grayscale", "jpeg")
SHAPES = [(1, 3, 1, 1), (1, 3, 224, 224), (3, 3, 7, 13), (2, 1, 5, 5), (1, 3, 2, 1)]


def test_none_is_forgotten():
    functions = {n for n in augment.__all__ if callable(getattr(augment, n))}
    assert functions - NOT_FOR_IMAGES == set(CALLS)
    for name in functions:
        assert inspect.getdoc(getattr(augment, name))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CALLS)
def test_shape_range_type_and_input_are_kept(name, dtype, shape):
    images = torch.rand(shape, dtype=dtype, generator=rng(1))
    kept = images.clone()
    out = CALLS[name](images)
    assert out.shape == images.shape
    assert out.dtype == dtype
    assert ((out >= 0) & (out <= 1)).all()
    assert torch.equal(images, kept)
    assert out.data_ptr() != images.data_ptr(), "the caller may change what it gets"


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_8_bit_images_stay_8_bit(name):
    images = torch.randint(0, 256, (3, 3, 9, 8), dtype=torch.uint8, generator=rng())
    out = CALLS[name](images)
    assert out.shape == images.shape
    assert out.dtype == torch.uint8


@pytest.mark.parametrize("name", CALLS)
def test_gradients_pass_and_stay_finite(name):
    images = torch.rand(24, 3, 12, 12, generator=rng(1)).mul_(0.8).add_(0.1).requires_grad_()
    CALLS[name](images).square().sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1) != 0).any(1).float().mean() > 0.5


@pytest.mark.parametrize(
    "name",
    [
        *("auto_augment", "rand_augment", "trivial_augment_wide", "cutout", "Policy"),
        *("contrastive", "shift_flip"),
    ],
)
def test_images_have_draws_of_their_own(name):
    image = torch.rand(1, 3, 16, 16, generator=rng(2))
    images = torch.cat([image.expand(32, -1, -1, -1), torch.rand(1, 3, 16, 16)])
    out = CALLS[name](images)[:32]
    assert len({tuple(x.flatten().tolist()) for x in out}) > 6


@pytest.mark.parametrize("name", CALLS)
def test_autocast_changes_nothing(name):
    """A defense's loss runs under it; images are not rounded to bfloat16."""
    images = torch.rand(24, 3, 20, 20, generator=rng(1))
    expected = CALLS[name](images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(CALLS[name](images), expected)
