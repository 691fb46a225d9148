"""AutoAugment, RandAugment and TrivialAugment (Wide) are torchvision's, image by image."""

import pytest
import torch
from torchvision.transforms import AutoAugmentPolicy, v2

from uebench.augment import auto_augment, rand_augment, trivial_augment_wide
from uebench.augment.autoaugment import (
    _NUMBER,
    _SIGNED,
    AUTO,
    CIFAR10_POLICY,
    POLICY_OPERATIONS,
    RAND,
    WIDE,
    apply_operations,
)

F = v2.functional
THEIRS = {
    "identity": "Identity",
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
}
SHAPES = [(3, 32, 32), (3, 17, 40), (1, 9, 24)]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def their_result(name, image, magnitude):
    """What torchvision's transforms do to one image, 8-bit or float."""
    transform = v2.TrivialAugmentWide()
    return transform._apply_image_or_video_transform(
        image, THEIRS[name], magnitude, interpolation=F.InterpolationMode.NEAREST, fill={}
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", POLICY_OPERATIONS)
def test_an_operation_is_torchvisions(name, shape):
    levels = torch.randint(40, 220, (22, *shape), generator=rng(), dtype=torch.uint8)
    levels[5] = 77  # a constant image
    images = levels.float() / 255
    ramp = WIDE.table(*shape[1:])[_NUMBER[name], ::3]
    magnitude = torch.cat([ramp, -ramp if _SIGNED[_NUMBER[name]] else ramp])
    ours = apply_operations(images, torch.full((22,), _NUMBER[name]), magnitude)
    for i in range(22):
        m = magnitude[i].item()
        eight = their_result(name, levels[i], int(m) if name == "posterize" else m) / 255
        # Theirs also rounds the grey or the blur that it moves away from, by a factor of up to 1.
        different = ((ours[i] - eight).abs() > 2.01 / 255).float().mean()
        # A source in the very middle between two pixels goes to either, by rounding.
        assert different < 0.05, f"{name} {m}: {different:.3f} of the pixels differ"
        if name not in ("posterize", "equalize"):  # these two round floats in ways of their own
            exact = their_result(name, images[i], m)
            assert ((ours[i] - exact).abs() > 1e-5).float().mean() < 0.05, f"{name} {m}"


@pytest.mark.parametrize("name", ["posterize", "equalize"])
def test_8_bit_levels_come_out_as_pillows(name):
    levels = torch.randint(0, 256, (8, 3, 20, 24), generator=rng(), dtype=torch.uint8)
    for bits in (2, 4, 8):
        ours = apply_operations(
            levels / 255, torch.full((8,), _NUMBER[name]), torch.full((8,), float(bits))
        )
        theirs = torch.stack([their_result(name, x, bits) for x in levels])
        assert torch.equal((ours * 255).round().to(torch.uint8), theirs)


@pytest.mark.parametrize(
    ("ranges", "theirs"),
    [
        (AUTO, v2.AutoAugment(AutoAugmentPolicy.CIFAR10)._AUGMENTATION_SPACE),
        (RAND, v2.RandAugment()._AUGMENTATION_SPACE),
        (WIDE, v2.TrivialAugmentWide()._AUGMENTATION_SPACE),
    ],
)
def test_magnitudes_are_torchvisions(ranges, theirs):
    table = ranges.table(30, 50)
    for number, name in enumerate(POLICY_OPERATIONS):
        if THEIRS[name] not in theirs:
            assert name in ("invert", "identity")
            continue
        make, signed = theirs[THEIRS[name]]
        expected = make(ranges.bins, 30, 50)
        assert bool(_SIGNED[number]) == signed
        if expected is not None:
            torch.testing.assert_close(table[number], torch.as_tensor(expected).float())


def test_the_policy_is_the_papers():
    theirs = v2.AutoAugment(AutoAugmentPolicy.CIFAR10)._policies
    assert len(CIFAR10_POLICY) == len(theirs) == 25
    for ours, pair in zip(CIFAR10_POLICY, theirs, strict=True):
        for (name, chance, place), (their_name, their_chance, their_place) in zip(
            ours, pair, strict=True
        ):
            assert (THEIRS[name], chance) == (their_name, their_chance)
            if their_place is not None:
                assert place == their_place


def shares(augment, images):
    """The share of images that come back unchanged."""
    return (augment(images, rng(1)) == images).flatten(1).all(1).float().mean().item()


def test_how_many_images_stay_as_they_are():
    images = torch.rand(4000, 3, 8, 8, generator=rng())
    # The identity, and of the others those with magnitude 0 or 8 bits.
    wide = (1 + 9 / 31 + 6 / 31 + 1 / 31) / 14
    assert shares(trivial_augment_wide, images) == pytest.approx(wide, abs=0.03)
    assert shares(lambda x, g: rand_augment(x, g, n=2), images) < 0.05
    assert shares(lambda x, g: rand_augment(x, g, n=0), images) == 1
    assert 0.02 < shares(auto_augment, images) < 0.4


def test_signs_are_fair_and_images_draw_their_own():
    images = torch.zeros(3000, 1, 33, 33)
    images[:, :, 16, 16] = 1
    out = trivial_augment_wide(images, rng())
    places = out.flatten(1).argmax(1)[out.flatten(1).amax(1) == 1]
    rows, columns = places // 33 - 16, places % 33 - 16
    for moved in (rows[rows != 0], columns[columns != 0]):
        assert len(moved) > 50
        assert 0.35 < (moved > 0).float().mean() < 0.65
    assert len(places.unique()) > 20


def test_bad_numbers():
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"magnitude must lie in \[0, 30\], got 31"):
        rand_augment(images, rng(), magnitude=31)
    with pytest.raises(ValueError, match="n must be 0 operations or more, got -1"):
        rand_augment(images, rng(), n=-1)
