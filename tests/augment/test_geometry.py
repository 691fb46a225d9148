import pytest
import torch
import torch.nn.functional as F

from uebench.augment import crop_flip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def windows(image, padding):
    """All crops of one image, each as it is and mirrored."""
    _, h, w = image.shape
    padded = F.pad(image, (padding,) * 4)
    for y in range(2 * padding + 1):
        for x in range(2 * padding + 1):
            crop = padded[:, y : y + h, x : x + w]
            yield (y, x, False), crop
            yield (y, x, True), crop.flip(-1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_one_of_its_own_windows(dtype):
    images = torch.randint(1, 256, (24, 3, 8, 11)).to(dtype)
    moved = crop_flip(images, torch.Generator().manual_seed(1), padding=2)
    assert moved.dtype == dtype
    drawn = []
    for image, result in zip(images, moved, strict=True):
        drawn += [name for name, crop in windows(image, 2) if torch.equal(crop, result)]
    assert len(drawn) == 24, "every result is exactly one window of its own image"
    assert len(set(drawn)) > 12, "images draw different shifts and flips"


def test_all_shifts_and_flips_are_equally_likely():
    # One bright pixel in the middle tells the shift, a second beside it the flip.
    images = torch.zeros(30_000, 1, 5, 7)
    images[:, :, 2, 3] = 1
    images[:, :, 2, 4] = 0.5
    moved = crop_flip(images, torch.Generator().manual_seed(2), padding=1)
    place = (moved == 1).flatten(1).int().argmax(1)
    counts = place.unique(return_counts=True)[1]
    assert len(counts) == 9
    assert ((counts / 30_000 - 1 / 9).abs() < 0.01).all()
    columns = torch.arange(7.0)
    half = ((moved == 0.5).sum((1, 2)) * columns).sum(1)
    mirrored = half < ((moved == 1).sum((1, 2)) * columns).sum(1)
    assert abs(mirrored.float().mean() - 0.5) < 0.01


def test_without_flip_and_padding_nothing_changes():
    images = torch.rand(4, 3, 5, 6)
    assert torch.equal(crop_flip(images, torch.Generator(), padding=0, flip=False), images)


def test_what_is_to_be_flipped_can_be_said():
    images = torch.rand(4, 3, 5, 6)
    rng = torch.Generator().manual_seed(1)
    moved = crop_flip(images, rng, padding=0, flip=torch.tensor([True, False, False, True]))
    assert torch.equal(moved[1:3], images[1:3])
    assert torch.equal(moved[::3], images[::3].flip(3))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 3, 2), (2, 3, 224, 224), (0, 3, 4, 4)])
def test_any_shape(shape):
    assert crop_flip(torch.rand(shape), torch.Generator()).shape == shape


def test_gradient_goes_back_to_the_pixels_that_are_seen():
    images = torch.rand(3, 2, 6, 6, requires_grad=True)
    moved = crop_flip(images, torch.Generator().manual_seed(3), padding=2)
    moved.sum().backward()
    assert set(images.grad.unique().tolist()) <= {0.0, 1.0}
    assert images.grad.sum() == (moved != 0).sum()


def test_same_seed_same_result():
    images = torch.rand(16, 3, 8, 8)
    first, again, other = (crop_flip(images, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match="padding must be 0 or more pixels, got -1"):
        crop_flip(torch.rand(1, 3, 4, 4), torch.Generator(), padding=-1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_borders_can_be_filled_with_the_mirrored_image(dtype):
    images = torch.randint(0, 256, (24, 3, 8, 11)).to(dtype)
    moved = crop_flip(images, torch.Generator().manual_seed(1), padding=2, fill="reflect")
    assert moved.dtype == dtype
    padded = torch.nn.functional.pad(images.float(), (2,) * 4, "reflect").to(dtype)
    for image, result in zip(padded, moved, strict=True):
        crops = [image[:, y : y + 8, x : x + 11] for y in range(5) for x in range(5)]
        assert sum(torch.equal(c, result) or torch.equal(c.flip(2), result) for c in crops) == 1


def test_an_image_smaller_than_its_mirrored_border_is_refused():
    with pytest.raises(ValueError, match="2x6 px cannot be mirrored by 2 px"):
        crop_flip(torch.rand(1, 1, 2, 6), torch.Generator(), padding=2, fill="reflect")


@pytest.mark.parametrize(("size", "padding"), [((6, 9), 0), ((10, 13), 2), ((8, 5), 1)])
def test_windows_of_another_size_are_cut_from_the_padded_image(size, padding):
    images = torch.rand(40, 3, 8, 11)
    moved = crop_flip(images, torch.Generator().manual_seed(3), padding, size=size)
    assert moved.shape == (40, 3, *size)
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    drawn = set()
    for image, result in zip(padded, moved, strict=True):
        places = [
            (y, x, mirrored)
            for y in range(8 + 2 * padding - size[0] + 1)
            for x in range(11 + 2 * padding - size[1] + 1)
            for mirrored in (False, True)
            if torch.equal(
                image[:, y : y + size[0], x : x + size[1]], result.flip(2) if mirrored else result
            )
        ]
        assert len(places) == 1
        drawn.add(places[0])
    assert len(drawn) > 12


def test_a_window_larger_than_the_padded_image_is_refused():
    with pytest.raises(ValueError, match="hold no window of 12x12 px; raise crop_padding"):
        crop_flip(torch.rand(1, 1, 8, 8), torch.Generator(), padding=1, size=(12, 12))
