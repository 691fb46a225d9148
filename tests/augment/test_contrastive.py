"""The contrastive augmentation and TAP's shift: draws, identities, gradients."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as V

from uebench.augment import contrastive, shift_flip
from uebench.augment.affine import interpolated
from uebench.augment.contrastive import (
    _jittered,
    _luminance,
    _recolored,
    _resized_crop,
    _turned,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(b, h, w, dtype=torch.float64):
    """Return images without equal neighbours or channels, where no operation has a kink."""
    return torch.rand(b, 3, h, w, dtype=dtype, generator=rng(1)).mul_(0.4).add_(0.3)


def check_gradients(change, images):
    """Compare gradients with central differences, along random directions."""
    images = images.clone().requires_grad_(True)
    weights = torch.rand(images.shape, dtype=images.dtype, generator=rng(2))
    (gradient,) = torch.autograd.grad((change(images) * weights).sum(), images)
    assert gradient.abs().sum() > 0
    for seed in range(5):
        direction = torch.randn(images.shape, dtype=images.dtype, generator=rng(seed)) * 1e-6
        with torch.no_grad():
            up, down = ((change(images + s * direction) * weights).sum().item() for s in (1, -1))
        assert (gradient * direction).sum().item() == pytest.approx((up - down) / 2, rel=1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_contrastive_has_the_gradients_of_finite_differences(strength, seed):
    check_gradients(lambda x: contrastive(x, rng(seed), strength), smooth(6, 7, 9))


@pytest.mark.parametrize("seed", range(3))
def test_shift_flip_has_the_gradients_of_finite_differences(seed):
    check_gradients(lambda x: shift_flip(x, rng(seed), 2.5), smooth(6, 7, 9))


def test_strength_0_only_mirrors():
    images = torch.rand(64, 3, 9, 12, generator=rng())
    out = contrastive(images, rng(1), 0.0)
    same = (out - images).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (out - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (same ^ mirrored).all()
    assert 20 < same.sum() < 44


def test_interpolation_along_the_axes_is_that_of_grid_sample():
    images = torch.rand(7, 2, 9, 12, dtype=torch.float64, generator=rng())
    x, y = (torch.rand(7, n, dtype=torch.float64, generator=rng(n)) * (n + 4) - 2 for n in (12, 9))
    grid = torch.stack(
        [
            ((2 * x + 1) / 12 - 1)[:, None, :].expand(7, 9, 12),
            ((2 * y + 1) / 9 - 1)[:, :, None].expand(7, 9, 12),
        ],
        3,
    )
    expected = F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
    assert (expected == 0).any()  # some places lie outside of the image
    assert torch.allclose(interpolated(images, x, y), expected, atol=1e-12)


def test_interpolation_is_exact_under_autocast():
    images = torch.rand(2, 3, 8, 8, generator=rng())
    places = torch.arange(8.0).expand(2, -1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(interpolated(images, places, places), images)


def test_crops_repeat_the_border_and_shifts_move_no_axis_of_one_pixel():
    white = torch.ones(32, 3, 6, 6)
    assert torch.allclose(_resized_crop(white, rng(), 0.9, mirror=True), white, atol=1e-5)
    for shape in ((1, 7), (7, 1)):
        moved = shift_flip(torch.ones(64, 1, *shape), rng(), 3.0)
        assert (moved.amax((1, 2, 3)) > 1 - 1e-5).all()  # along the other axis it would be darker
        assert (moved.amin((1, 2, 3)) < 0.5).any()


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_recolouring_reaches_as_far_as_the_strength_says(strength):
    """A gray image shows the brightness, and a colour of full chroma the hue."""
    n = 20_000
    gray = torch.full((n, 3, 1, 1), 0.5)
    light = _jittered(gray, 2 * torch.rand(4, n, generator=rng()) - 1, strength)[:, 0, 0, 0] / 0.5
    assert light.min().item() == pytest.approx(1 - 0.4 * strength, abs=0.01)
    assert light.max().item() == pytest.approx(1 + 0.4 * strength, abs=0.01)
    red = torch.zeros(n, 3, 1, 1)
    red[:, 0] = 1
    draws = torch.zeros(4, n)
    draws[3] = 2 * torch.rand(n, generator=rng()) - 1
    turned = _jittered(red, draws, strength)
    # a share t of the circle from red leads to green 6 t, or to blue 6 t
    assert turned[:, 1:].amax().item() == pytest.approx(0.6 * strength, abs=0.01)
    assert turned[:, 1].amax().item() == pytest.approx(turned[:, 2].amax().item(), abs=0.01)


def test_half_precision_images_pass_under_autocast():
    images = torch.rand(4, 3, 8, 8, generator=rng()).half()
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive(images, rng(), 1.0).dtype == torch.float16


@pytest.mark.parametrize("shape", [(32, 32), (20, 41)])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_crops_keep_the_promised_share_of_the_area(shape, strength):
    """A ramp along each axis, whose slope tells how much of that axis the crop shows."""
    h, w = shape
    images = torch.zeros(500, 2, h, w, dtype=torch.float64)
    images[:, 0] = (torch.arange(w) + 0.5) / w
    images[:, 1] = ((torch.arange(h) + 0.5) / h)[:, None]
    out = _resized_crop(images, rng(), 0.9 * strength, mirror=True)
    y, x = h // 2, w // 2  # the border is clamped
    wide = (out[:, 0, y, x] - out[:, 0, y, x - 1]).abs() * w
    high = (out[:, 1, y, x] - out[:, 1, y - 1, x]) * h
    area = wide * high
    assert wide.max() <= 1 + 1e-6
    assert high.max() <= 1 + 1e-6
    assert 1 - 0.9 * strength - 1e-6 <= area.min() < 1 - 0.9 * strength + 0.05
    assert 0.95 < area.max() <= 1 + 1e-6
    assert area.mean() == pytest.approx(1 - 0.45 * strength, abs=0.02)
    ratio = wide / high
    assert ratio.min() >= 3 / 4 - 1e-6
    assert ratio.max() <= 4 / 3 + 1e-6
    assert (out.amin((2, 3)) >= 0).all()


def test_colours_follow_torchvision():
    images = torch.rand(1, 3, 8, 8, generator=rng())
    assert torch.allclose(_luminance(images), V.rgb_to_grayscale(images), atol=1e-3)
    for turn in (-0.5, -0.1, 0.0, 0.1, 0.37):
        ours = _turned(images, torch.tensor([turn]))
        assert torch.allclose(ours, V.adjust_hue(images, turn), atol=1e-4), turn


def test_as_many_images_are_recoloured_and_grayed_as_the_strength_says():
    image = torch.rand(1, 3, 6, 6, generator=rng()) * 0.5 + 0.2
    images = image.expand(4000, -1, -1, -1)
    for strength in (0.5, 1.0):
        out = _recolored(images, rng(3), strength)
        gray = (out.amax(1) - out.amin(1)).amax((1, 2)) < 1e-5
        changed = (out - images).abs().amax((1, 2, 3)) > 1e-4
        assert gray.float().mean().item() == pytest.approx(0.2 * strength, abs=0.03)
        expected = 1 - (1 - 0.8 * strength) * (1 - 0.2 * strength)
        assert changed.float().mean().item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("reach", [1.0, 4.0])
def test_shifts_are_fractional_uniform_and_mirrored_half_of_the_time(reach):
    images = torch.zeros(4000, 1, 15, 15, dtype=torch.float64)
    images[:, 0, 7, 7] = 1
    out = shift_flip(images, rng(), reach)
    place = torch.arange(15, dtype=torch.float64)
    for axis in (2, 3):
        profile = out.sum(5 - axis)[:, 0]
        moved = (profile * place).sum(1) / profile.sum(1) - 7
        assert moved.abs().max() <= reach + 1e-4
        assert moved.abs().max() > 0.95 * reach
        assert moved.std().item() == pytest.approx(2 * reach / 12**0.5, rel=0.05)
    ramp = torch.arange(1, 9, dtype=torch.float64).expand(400, 1, 8, 8) / 10
    falling = shift_flip(ramp, rng(), 0.5)[:, 0, 4, 3:5].diff()[:, 0] < 0
    assert 160 < falling.sum() < 240


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: contrastive(x, rng(), 1.5), r"strength must lie in \[0, 1\], got 1.5"),
        (lambda x: shift_flip(x, rng(), -1.0), "reach must be 0 or more pixels, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(1, 3, 4, 4))
