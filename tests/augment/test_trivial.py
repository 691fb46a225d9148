import pytest
import torch
from kornia.augmentation.auto import TrivialAugment

from uebench.augment import OPERATIONS, trivial_augment
from uebench.augment.trivial import apply_strengths, draw_operations, draw_strengths


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


KORNIA_NAMES = {
    "auto_contrast": ("AutoContrast", None),
    "equalize": ("Equalize", None),
    "posterize": ("Posterize", "bits_factor"),
    "solarize": ("Solarize", "thresholds"),
    "contrast": ("Contrast", "contrast_factor"),
    "brightness": ("Brightness", "brightness_factor"),
    "sharpness": ("Sharpness", "sharpness"),
    "rotate": ("Rotate", "degrees"),
    "shear_x": ("ShearX", "shear_x"),
    "shear_y": ("ShearY", "shear_y"),
    "translate_x": ("TranslateX", "translate_x"),
    "translate_y": ("TranslateY", "translate_y"),
}


def kornia_operations():
    """The operations of kornia's TrivialAugment by class name."""
    policy = TrivialAugment()
    found = [module for group in policy.children() for module in group.children()]
    return {type(module).__name__: module for module in found}


def strengths(kornia, n=24_000):
    rng = torch.Generator().manual_seed(0)
    operation = draw_operations(n, rng, "image")
    strength = draw_strengths(operation, rng, torch.device("cpu"), kornia)
    return {name: strength[operation == i] for i, name in enumerate(OPERATIONS)}


def test_the_twelve_operations_are_kornias():
    assert set(kornia_operations()) == {kind for kind, _ in KORNIA_NAMES.values()}
    assert set(OPERATIONS) == set(KORNIA_NAMES)


def test_a_mixed_batch_is_what_kornia_does_to_each_image():
    torch.manual_seed(0)
    images = torch.rand(48, 3, 20, 16)
    rng = torch.Generator().manual_seed(1)
    operation = torch.arange(48) % 12
    operation = operation[torch.randperm(48)]
    strength = draw_strengths(operation, rng, torch.device("cpu"), "0.9")
    ours = apply_strengths(images, operation, strength, "0.9")
    kornia = kornia_operations()
    for i in range(48):
        name = OPERATIONS[operation[i]]
        kind, key = KORNIA_NAMES[name]
        module, image = kornia[kind].op, images[i : i + 1]
        params = module.forward_parameters(image.shape)
        if key:
            side = {"translate_x": 16, "translate_y": 20}.get(name, 1)
            value = strength[i : i + 1] * side
            params[key] = value.round().long() if name == "posterize" else value
        expected = module(image, params=params)
        torch.testing.assert_close(ours[i : i + 1], expected, atol=1e-5, rtol=0, msg=name)


def test_images_draw_their_own_operation_and_the_batch_one():
    rng = torch.Generator().manual_seed(0)
    counts = draw_operations(24_000, rng, "image").bincount(minlength=12)
    assert ((counts / 24_000 - 1 / 12).abs() < 0.01).all()
    batches = [draw_operations(50, rng, "batch") for _ in range(200)]
    assert all(len(batch.unique()) == 1 for batch in batches)
    assert len({int(batch[0]) for batch in batches}) == 12


def test_ranges_06():
    drawn = strengths("0.6")
    for name, high in [("rotate", 30), ("shear_x", 0.3), ("shear_y", 0.3), ("translate_x", 0.5)]:
        assert drawn[name].min() >= 0, "one sign only"
        assert 0.97 * high < drawn[name].max() <= high
        assert drawn[name].mean() == pytest.approx(high / 2, rel=0.05)


def test_ranges_09():
    drawn = strengths("0.9")
    for name, high in [("rotate", 30), ("shear_x", 54), ("shear_y", 54), ("translate_y", 0.5)]:
        assert -high <= drawn[name].min() < -0.97 * high
        assert 0.97 * high < drawn[name].max() <= high
        assert drawn[name].mean().abs() < 0.05 * high


@pytest.mark.parametrize("kornia", ["0.6", "0.9"])
def test_color_ranges_are_the_same_in_both(kornia):
    drawn = strengths(kornia)
    for name in ("contrast", "brightness", "sharpness"):
        assert 0.1 <= drawn[name].min() < 0.15
        assert 1.85 < drawn[name].max() <= 1.9
    assert drawn["solarize"].min() < 0.02
    assert drawn["solarize"].max() > 0.98
    # round(U(0, 4)): the two ends have half the weight.
    bits = drawn["posterize"].round().long().bincount() / len(drawn["posterize"])
    assert bits.tolist() == pytest.approx([1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], abs=0.04)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 5, 7), (30, 3, 9, 4), (2, 3, 224, 224)])
@pytest.mark.parametrize("draw", ["image", "batch"])
def test_shape_range_and_input(shape, draw):
    images = torch.rand(shape)
    kept = images.clone()
    out = trivial_augment(images, torch.Generator().manual_seed(0), draw=draw)
    assert out.shape == shape
    assert torch.equal(images, kept)
    assert ((out >= 0) & (out <= 1)).all()


def test_an_images_result_does_not_depend_on_its_neighbours():
    images = torch.rand(36, 3, 8, 8)
    operation = torch.arange(36) % 12
    strength = draw_strengths(operation, torch.Generator(), torch.device("cpu"), "0.6")
    together = apply_strengths(images, operation, strength)
    back = torch.arange(35, -1, -1)
    reversed_ = apply_strengths(images[back], operation[back], strength[back])[back]
    torch.testing.assert_close(together, reversed_, atol=1e-6, rtol=0)
