import kornia.enhance as enhance
import pytest
import torch
from kornia.augmentation import RandomAutoContrast, RandomBrightness, RandomChannelShuffle

from uebench.augment import (
    auto_contrast,
    brightness,
    channel_shuffle,
    contrast,
    equalize,
    posterize,
    sharpness,
    solarize,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


B = 9


@pytest.fixture(params=[(3, 32, 32), (1, 5, 7), (3, 64, 48)], ids=str)
def images(request):
    torch.manual_seed(0)
    # Continuous values, 8-bit values and a low-contrast image, as after a plasma step.
    batch = torch.rand(B, *request.param)
    batch[3:6] = (batch[3:6] * 255).round() / 255
    batch[6] = 0.4 + 0.1 * batch[6]
    return batch


def close(ours, expected):
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)


def test_kornias_output_for_the_same_factors(images):
    factor = torch.linspace(0.1, 1.9, B)
    close(contrast(images, factor), enhance.adjust_contrast(images, factor))
    close(brightness(images, factor), enhance.adjust_brightness(images, factor - 1))
    peer = RandomBrightness((0.1, 1.9), p=1.0)
    close(
        brightness(images, factor), peer.apply_transform(images, {"brightness_factor": factor}, {})
    )
    close(sharpness(images, factor), enhance.sharpness(images, factor))
    close(auto_contrast(images), RandomAutoContrast(p=1.0)(images))
    threshold = torch.linspace(0, 1, B)
    close(solarize(images, threshold), enhance.solarize(images, threshold))
    close(equalize(images, "0.9"), enhance.equalize(images))


def test_posterize_is_kornias_at_every_level_and_depth():
    levels = (torch.arange(256) / 255).view(1, 1, 16, 16).repeat(9, 3, 1, 1)
    bits = torch.arange(9)
    assert torch.equal(posterize(levels, bits), enhance.posterize(levels, bits))
    assert posterize(levels, bits)[0].max() == 0
    assert torch.equal(posterize(levels, bits)[8], levels[8])


def test_equalize_06_counts_as_its_histogram_did(images):
    """kornia 0.6.10 counted with `histc` over [0, 255] and looked up with the whole part."""

    def plane_by_plane(plane):
        values = plane * 255
        counts = torch.histc(values, 256, 0, 255)
        used = counts[counts > 0]
        step = (used.sum() - used[-1]).div(255).floor()
        if step == 0:
            return plane
        table = ((counts.cumsum(0) + (step / 2).floor()) / step).floor()
        table = torch.cat([torch.zeros(1), table[:-1]]).clamp(0, 255)
        return table[values.long()] / 255

    expected = torch.stack([torch.stack([plane_by_plane(p) for p in image]) for image in images])
    close(equalize(images, "0.6"), expected)


def test_equalize_behaviours_differ_on_continuous_values_alone():
    torch.manual_seed(1)
    rough = torch.rand(4, 3, 32, 32)
    assert not torch.equal(equalize(rough, "0.6"), equalize(rough, "0.9"))
    levels = (rough * 255).round() / 255
    assert torch.equal(equalize(levels, "0.6"), equalize(levels, "0.9"))


def test_every_image_has_its_own_magnitude():
    images = torch.rand(2, 3, 8, 8).repeat_interleave(4, 0)
    factor = torch.tensor([0.5, 1.0, 1.5, 0.2] * 2)
    for operation in (brightness, contrast, sharpness, solarize):
        out = operation(images, factor)
        assert len({tuple(image.flatten().tolist()) for image in out}) >= 6
        for i in range(8):
            close(out[i : i + 1], operation(images[i : i + 1], factor[i : i + 1]))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 2, 5), (2, 3, 7, 3), (0, 3, 4, 4)])
def test_shape_and_range(shape):
    images = torch.rand(shape)
    factor = torch.full(shape[:1], 1.7)
    for out in (
        *(f(images, factor) for f in (brightness, contrast, sharpness, solarize)),
        *(equalize(images, "0.6"), equalize(images, "0.9")),
        *(posterize(images, factor.long()), channel_shuffle(images, torch.Generator())),
    ):
        assert out.shape == shape
        assert out.dtype == images.dtype
        assert ((out >= 0) & (out <= 1)).all()


def test_gradient_goes_straight_through_where_there_is_none():
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    weight = torch.rand(4, 3, 8, 8)
    for out in (
        *(posterize(images, torch.tensor([0, 2, 4, 8])), equalize(images, "0.6")),
        solarize(images, torch.full((4,), 0.5)),
    ):
        (gradient,) = torch.autograd.grad((out * weight).sum(), images)
        assert torch.equal(gradient, weight)


def test_gradient_is_true_elsewhere():
    images = torch.rand(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    factor = torch.tensor([0.3, 1.0, 1.8])
    for operation in (brightness, contrast, sharpness):
        assert torch.autograd.gradcheck(lambda x, f=operation: f(x, factor), images, atol=1e-4)
    assert torch.autograd.gradcheck(auto_contrast, images, atol=1e-4)


def test_pixels_at_the_bounds_keep_their_gradient():
    images = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3).requires_grad_()
    contrast(images, torch.ones(1)).sum().backward()
    assert images.grad.flatten().tolist() == [1, 1, 1]
    images.grad = None
    contrast(images, torch.full((1,), 1.5)).sum().backward()
    assert images.grad.flatten().tolist() == [1.5, 1.5, 0]


def test_shuffle_permutes_the_channels_of_each_image():
    images = torch.rand(600, 3, 4, 4)
    out = channel_shuffle(images, torch.Generator().manual_seed(0), p=0.5)
    orders = (out[:, :, None] == images[:, None]).flatten(3).all(3).int()
    assert (orders.sum(1) == 1).all()
    assert (orders.sum(2) == 1).all()
    kinds, counts = orders.argmax(2).unique(dim=0, return_counts=True)
    # Half stay, and of the others a sixth: 7/12 unchanged and 1/12 for each other order.
    share = dict(zip(map(tuple, kinds.tolist()), (counts / 600).tolist(), strict=True))
    assert len(share) == 6
    assert share.pop((0, 1, 2)) == pytest.approx(7 / 12, abs=0.06)
    assert all(abs(value - 1 / 12) < 0.04 for value in share.values())


def test_shuffle_keeps_dtype_and_one_channel():
    levels = torch.randint(0, 256, (5, 1, 3, 3), dtype=torch.uint8)
    assert torch.equal(channel_shuffle(levels, torch.Generator(), p=1.0), levels)


def test_shuffles_p_is_kornias():
    images = torch.rand(3000, 3, 1, 1)
    peer = (RandomChannelShuffle(p=0.5)(images) != images).flatten(1).any(1).float().mean()
    ours = channel_shuffle(images, torch.Generator().manual_seed(0), 0.5)
    assert (ours != images).flatten(1).any(1).float().mean() == pytest.approx(peer.item(), abs=0.05)
