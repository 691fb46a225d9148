"""JPEG is Pillow's, blur torchvision's; grayscale and fewer bits."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur as their_blur

from uebench.augment import fewer_bits, gaussian_blur, grayscale, jpeg
from uebench.augment import squeeze as module


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pillow(image, quality):
    array = image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(
        file, "JPEG", quality=quality
    )
    decoded = np.asarray(Image.open(file)).reshape(array.shape)
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [1, 10, 75, 95])
@pytest.mark.parametrize("shape", [(9, 3, 32, 32), (2, 1, 7, 13), (12, 3, 70, 65), (1, 3, 1, 1)])
def test_jpeg_is_pillows(quality, shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng())
    out = jpeg(images, quality)
    for ours, image in zip(out, images, strict=True):
        assert torch.equal(ours, pillow(image, quality))
    torch.testing.assert_close(jpeg(images / 255, quality) * 255, out.float())


def test_threads_change_nothing(monkeypatch):
    images = torch.randint(0, 256, (11, 3, 66, 66), dtype=torch.uint8, generator=rng())
    first = jpeg(images, 10)
    monkeypatch.setattr(module, "MAX_THREADS", 1)
    assert torch.equal(jpeg(images, 10), first)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 20, 41)])
def test_blur_is_torchvisions(sigma, shape):
    images = torch.rand(shape, generator=rng())
    size = 2 * int(np.ceil(3 * sigma)) + 1
    expected = their_blur(images, [size, size], [sigma, sigma])
    torch.testing.assert_close(gaussian_blur(images, sigma), expected, atol=1e-5, rtol=0)


def test_blur_reaches_where_a_3x3_kernel_would_not():
    image = torch.zeros(1, 1, 31, 31)
    image[0, 0, 15, 15] = 1
    out = gaussian_blur(image, 2.0)[0, 0]
    assert out.sum() == pytest.approx(1, abs=1e-5)
    assert out[15, 20] > 0.001
    offset = torch.arange(31.0) - 15
    assert (out.sum(0) * offset**2).sum().sqrt() == pytest.approx(2.0, abs=0.05)


def test_floats_and_8_bits_agree():
    images = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=rng())
    for squeeze in (grayscale, lambda x: fewer_bits(x, 2), lambda x: fewer_bits(x, 8)):
        exact = squeeze(images / 255) * 255
        assert (exact - squeeze(images).float()).abs().max() < 0.51
    assert fewer_bits(images / 255, 2).unique().numel() == 4


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda x: jpeg(x, 0), r"quality must lie in \[1, 95\], as Pillow's does, got 0"),
        (lambda x: jpeg(x, 96), "got 96"),
        (lambda x: jpeg(x[:, :2], 10), "1 or 3 channels, got 2"),
        (lambda x: fewer_bits(x, 9), r"bits must lie in \[1, 8\], got 9"),
        (lambda x: gaussian_blur(x / 255, 0.0), "sigma must be a number of pixels above 0, got 0"),
    ],
)
def test_bad_numbers(call, told):
    with pytest.raises(ValueError, match=told):
        call(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
