"""COIN and RSK+FF, the defenses against class-wise convolutions."""

import math

import pytest
import torch
from scipy.fft import dctn, idctn

from tests.conftest import make_run, quick_accuracy, random_dataset
from uebench import Facts, Protocol, UserError, craft
from uebench.augment.affine import affine_matrix, warp_pixels
from uebench.data import Dataset, load_dataset
from uebench.defenses.coin import displaced
from uebench.defenses.rsk_ff import low_passed, sharpened
from uebench.methods.registry import build_defense
from uebench.victims.supervised import train_model


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def constant(value: float, like: torch.Tensor) -> torch.Tensor:
    return torch.full((len(like), *like.shape[2:]), float(value))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (-2, 3), (7, -9)])
def test_coin_is_exact_at_whole_pixels_and_wraps_around(down: int, right: int) -> None:
    images = torch.rand(3, 3, 6, 7)
    moved = displaced(images, constant(down, images), constant(right, images))
    assert torch.equal(moved, images.roll((-down, -right), (2, 3)))


def test_coin_is_bilinear_in_between() -> None:
    images = torch.rand(2, 1, 5, 5)
    moved = displaced(images, constant(0.25, images), constant(-0.5, images))
    below, left = images.roll(-1, 2), images.roll(1, 3)
    corner = below.roll(1, 3)
    expected = 0.75 * (images + left) / 2 + 0.25 * (below + corner) / 2
    assert torch.allclose(moved, expected, atol=1e-6)


def test_coin_displaces_each_pixel_alone_by_at_most_its_reach_in_all_channels_alike() -> None:
    # a ramp tells how far a pixel was displaced
    ramp = torch.arange(64.0).expand(8, 2, 64, 64) / 255
    run = make_run(random_dataset([2, 2], (64, 64)))
    moved = build_defense("coin[reach=2]").method.after_crop(ramp, run)
    shift = ((moved - ramp)[:, :, :, 8:-8] * 255).round()
    assert torch.equal(shift[:, 0], shift[:, 1])
    assert shift.min() == -2
    assert shift.max() == 2
    levels = moved * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4), "rounded to 8 bits"
    assert shift.std() == pytest.approx(2 / math.sqrt(3), rel=0.1), "uniform"
    neighbours = torch.corrcoef(torch.stack((shift[..., 1:].flatten(), shift[..., :-1].flatten())))
    assert neighbours[0, 1].abs() < 0.05


@pytest.mark.parametrize("shape", [(30, 30), (13, 22)])
@pytest.mark.parametrize("keep", [0.3, 0.5, 1.0])
def test_the_filter_is_scipys_cosine_transform(shape: tuple[int, int], keep: float) -> None:
    images = 0.4 + 0.2 * torch.rand(2, 3, *shape, generator=rng())
    kept = dctn(images.double().numpy(), axes=(2, 3), norm="ortho")
    kept[:, :, math.floor(keep * shape[0]) :] = 0
    kept[:, :, :, math.floor(keep * shape[1]) :] = 0
    expected = torch.from_numpy(idctn(kept, axes=(2, 3), norm="ortho")).clamp(0, 1)
    assert torch.allclose(low_passed(images, keep).double(), expected, atol=1e-5)


def test_the_kernel_has_its_mean_and_spread_and_differs_between_images() -> None:
    # one bright pixel on grey shows the kernel, unclipped
    images = torch.full((4000, 1, 5, 5), 0.5)
    images[:, :, 2, 2] += 0.1
    out = (sharpened(images, 2.5, rng()) - 0.5) / 0.1
    flat = sharpened(torch.full((4000, 1, 3, 3), 0.5), 2.5, rng()).flatten() / 0.5
    total = flat[:, None, None] - 1  # how much brighter the kernel makes everything
    kernel = out[:, 0] - total * 0.5 / 0.1
    assert kernel[:, 1, 1].mean() == pytest.approx(2.5, abs=0.02)
    assert kernel[:, 1, 1].std() == pytest.approx(0.1, rel=0.1)
    side = kernel[:, 0, 1]
    assert side.mean() == pytest.approx(-1.5 / 4, abs=0.02)
    assert side.std() == pytest.approx(math.hypot(0.1, 0.1 / 4), rel=0.1)
    assert kernel[:, 0, 0].abs().max() < 1e-4, "corners are 0"


def test_images_lose_two_pixels_and_the_crop_makes_up_for_them(tiny: Dataset) -> None:
    defense = build_defense("rsk_ff").resolve(Facts("test", 2, tiny.shape, 2, "resnet8"))
    run = make_run(tiny, epochs=1)
    c, h, w = tiny.shape
    assert defense.before_crop(tiny.train.images, run).shape[1:] == (c, h - 2, w - 2)
    protocol = defense.adjust(Protocol(epochs=1, batch_size=20, crop_padding=0))
    assert protocol.crop_padding == 1
    record = train_model(tiny.train, tiny.test, "resnet9[width=2]", protocol, defense, run).record
    assert record["n_train"] == len(tiny.train)


def test_only_cifar100_is_rotated() -> None:
    for name, rotation in (("cifar10", 0.0), ("cifar100", 15.0)):
        defense = build_defense("rsk_ff").resolve(Facts(name, 10, (3, 32, 32), 2, "resnet8"))
        assert defense.options()["rotation"] == rotation


def test_the_rotation_follows_the_crop_and_turns_about_the_middle_of_the_window(
    tiny: Dataset,
) -> None:
    facts = Facts("test", 2, tiny.shape, 2, "resnet8")
    turned = build_defense("rsk_ff[rotation=20]").resolve(facts)
    straight = build_defense("rsk_ff").resolve(facts)
    images = tiny.train.images
    before = turned.before_crop(images, make_run(tiny))
    assert torch.equal(before, straight.before_crop(images, make_run(tiny)))
    pixels = tiny.train.pixels()
    assert straight.after_crop(pixels, make_run(tiny)) is pixels
    moved = turned.after_crop(pixels, make_run(tiny))
    angle = (torch.rand(len(pixels), generator=make_run(tiny).rng) * 2 - 1) * math.radians(20)
    matrix = affine_matrix(angle, torch.zeros_like(angle), torch.ones_like(angle))
    assert torch.equal(moved, warp_pixels(pixels, matrix))
    # results of the order that it had at first are not reused, and all others are
    assert turned.recipe() == {**turned.options(), "rotated": "after the crop"}
    assert straight.recipe() == straight.options()


def test_images_that_leave_no_frequency_are_refused() -> None:
    with pytest.raises(UserError, match="at least 6 px a side, these have 5"):
        build_defense("rsk_ff").resolve(Facts("test", 2, (3, 5, 9), 2, "resnet8"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_they_bring_back_accuracy_under_cuda() -> None:
    data = load_dataset("synthetic[n_train=3000,n_test=1000]")
    poison = craft("cuda", data, protocol="quick")

    # One run gave 0.181, 0.383 and 0.724; clean images give 0.833 with COIN.
    assert quick_accuracy(poison, "standard", data) < 0.25
    assert quick_accuracy(poison, "coin", data) > 0.32
    assert quick_accuracy(poison, "rsk_ff", data) > 0.6
