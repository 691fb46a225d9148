import functools
import math

import pytest
import torch
from kornia.augmentation import RandomPlasmaBrightness, RandomPlasmaContrast
from kornia.contrib import diamond_square

from uebench.augment import plasma_brightness, plasma_contrast, plasma_maps
from uebench.augment.diamond_square import grow


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# What `diamond_square((1, 1, h, w), roughness, random_fn)` of kornia 0.6.10 returned (torch 2.15,
# CPU) where `random_fn` reads the draws of `made_up_draws` at the nodes that it is asked for.
LEGACY_MAPS = {
    (5, 5, 0.5): [
        [0.057292, 0.412326, 0.442708, 0.434028, 0.203125],
        [0.514757, 0.190104, 0.411784, 0.604167, 0.444444],
        [0.401042, 0.479492, 0.182292, 0.478841, 0.692708],
        [0.651042, 0.3125, 0.551758, 0.726562, 0.580729],
        [0.161458, 0.668403, 0.692708, 0.690104, 0.307292],
    ],
    (5, 9, 0.5): [
        [0.057292, 0.412326, 0.442708, 0.415799, 0.203125, 0.71441, 0.380208, 0.49566, 0.015625],
        [0.514757, 0.190104, 0.404948, 0.549479, 0.269531, 0.398438, 0.602865, 0.257812, 0.474826],
        [0.401042, 0.478841, 0.182292, 0.409831, 0.255208, 0.228841, 0.161458, 0.576497, 0.442708],
        [0.649306, 0.307292, 0.538411, 0.666667, 0.389974, 0.515625, 0.236328, 0.375, 0.609375],
        [0.161458, 0.659722, 0.651042, 0.663194, 0.307292, 0.461806, 0.588542, 0.243056, 0.119792],
    ],
    (9, 4, 0.25): [
        [0.057292, 0.373047, 0.442708, 0.470052],
        [0.417318, 0.230469, 0.369873, 0.492188],
        [0.401042, 0.365479, 0.182292, 0.447998],
        [0.476562, 0.21875, 0.334229, 0.480469],
        [0.161458, 0.352051, 0.067708, 0.348633],
        [0.365885, 0.304688, 0.35083, 0.253906],
        [0.630208, 0.296143, 0.203125, 0.437256],
        [0.499349, 0.441406, 0.507568, 0.328125],
        [0.265625, 0.447266, 0.484375, 0.523438],
    ],
}
# Moments of 40,000 maps of 32x32 of kornia 0.6.10, roughness U(.1, .7), seed 0, float32 on a CPU:
# mean and standard deviation over all maps and pixels, lowest and highest mean of a position, and
# the mean at some positions (row, column).
LEGACY_MEAN, LEGACY_STD, LEGACY_LOWEST, LEGACY_HIGHEST = 0.4569, 0.1283, 0.1662, 0.7973
LEGACY_AT = {
    **{(0, 0): 0.166, (0, 1): 0.475, (0, 16): 0.499, (1, 1): 0.388, (8, 8): 0.400},
    **{(16, 16): 0.166, (16, 31): 0.519, (31, 31): 0.388, (31, 0): 0.476, (4, 20): 0.458},
}


def side(pixels):
    return 2 ** math.ceil(math.log2(max(pixels, 3) - 1)) + 1


def made_up_draws(h, w):
    rows, columns = torch.arange(side(h))[:, None], torch.arange(side(w))
    return ((37 * rows + 23 * columns + 11) % 64) / 64


def grown(draws, h, w, roughness, kornia):
    grid = draws[:, :, None].clone()
    grow(grid, torch.tensor([roughness]), kornia)
    return grid[:h, :w, 0]


@functools.cache
def moments(kornia):
    """Overall mean, standard deviation, mean per position, minimum and maximum of many maps."""
    rng = torch.Generator().manual_seed(0)
    n = 16_384
    maps = plasma_maps(n, 32, 32, 0.1 + 0.6 * torch.rand(n, generator=rng), rng, kornia)
    return maps.mean().item(), maps.std().item(), maps.mean(0), maps.min().item(), maps.max().item()


@pytest.mark.parametrize(
    ("h", "w"), [(32, 32), (17, 40), (40, 17), (33, 9), (3, 3), (1, 1), (5, 2), (2, 20), (224, 100)]
)
def test_maps_are_those_of_kornia_09_for_the_same_draws(h, w):
    draws = torch.rand(side(h), side(w))
    seen = []

    def at_the_nodes(shape, device=None, dtype=None):
        if not seen:  # the corners, from which the two sides' first nodes are averaged
            spacing = min(draws.shape) - 1
            corners = draws[::spacing, ::spacing]
            corners = corners.T if draws.shape[0] >= draws.shape[1] else corners
            seen.append(corners)
            return corners.reshape(shape)
        spacing = (draws.shape[0] - 1) // (shape[-2] - 1)
        return draws[::spacing, ::spacing].reshape(shape)

    expected = diamond_square((1, 1, h, w), 0.6, random_fn=at_the_nodes)[0, 0]
    torch.testing.assert_close(grown(draws, h, w, 0.6, "0.9"), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", LEGACY_MAPS)
def test_maps_are_those_of_kornia_06_for_the_same_draws(case):
    h, w, roughness = case
    result = grown(made_up_draws(h, w), h, w, roughness, "0.6")
    torch.testing.assert_close(result, torch.tensor(LEGACY_MAPS[case]), atol=2e-6, rtol=0)


def test_moments_06():
    mean, std, at, low, high = moments("0.6")
    assert mean == pytest.approx(LEGACY_MEAN, abs=0.002)
    assert std == pytest.approx(LEGACY_STD, abs=0.002)
    assert at.min() == pytest.approx(LEGACY_LOWEST, abs=0.006)
    assert at.max() == pytest.approx(LEGACY_HIGHEST, abs=0.01)
    for (row, column), expected in LEGACY_AT.items():
        assert at[row, column] == pytest.approx(expected, abs=0.008)
    assert low >= 0
    assert 1.3 < high < 1.78


def test_moments_09():
    mean, std, at, low, high = moments("0.9")
    roughness = 0.1 + 0.6 * torch.rand(2048)
    peer = diamond_square((2048, 1, 32, 32), roughness)
    assert mean == pytest.approx(0.5, abs=0.002)
    assert std == pytest.approx(peer.std().item(), abs=0.003)
    assert (at - 0.5).abs().max() < 0.012
    assert low >= 0
    assert high <= 1


def test_maps_are_independent():
    maps = plasma_maps(4096, 8, 8, torch.full((4096,), 0.5), torch.Generator().manual_seed(1))
    centred = maps - maps.mean(0)
    assert (centred[::2] * centred[1::2]).mean().abs() < 0.01 * centred.var()


def test_rougher_maps_have_larger_steps():
    rough = torch.tensor([0.1, 0.7]).repeat_interleave(500)
    maps = plasma_maps(1000, 32, 32, rough, torch.Generator().manual_seed(2), "0.9")
    steps = maps.diff(dim=2).abs().mean((1, 2))
    assert steps[500:].mean() > 2 * steps[:500].mean()


def test_brightness_is_kornias_for_the_same_map():
    def ours(images):
        rng = torch.Generator().manual_seed(3)
        return plasma_brightness(images, rng, 1.0, (0.2, 0.2), (0.4, 0.4), "0.9")

    images = torch.rand(6, 3, 16, 16)
    # Half grey is never clipped at this intensity, so that it gives the maps away.
    maps = (ours(torch.full_like(images, 0.5)) - 0.5) / 0.8 + 0.5
    peer = RandomPlasmaBrightness(p=1.0)
    params = {"plasma": maps, "intensity": torch.full((6,), 0.4)}
    expected = peer.apply_transform(images, params, {})
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=0)


def test_contrast_is_kornias_for_the_same_map():
    def ours(images):
        return plasma_contrast(images, torch.Generator().manual_seed(4), 1.0, (0.2, 0.2), "0.9")

    images = torch.rand(6, 3, 16, 16)
    maps = (ours(torch.full_like(images, 0.6)) - 0.5) / 0.4
    expected = RandomPlasmaContrast(p=1.0).apply_transform(images, {"plasma": maps}, {})
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("operation", [plasma_brightness, plasma_contrast])
def test_only_a_share_p_changes_and_the_others_stay_in_place(operation):
    images = torch.rand(4000, 1, 4, 4)
    kept = images.clone()
    out = operation(images, torch.Generator().manual_seed(5), p=0.3)
    assert torch.equal(images, kept), "the input stays as it is"
    changed = (out != images).flatten(1).any(1)
    assert 0.27 < changed.float().mean() < 0.33
    assert torch.equal(operation(images, torch.Generator(), p=0.0), images)


def test_channels_have_maps_of_their_own_and_images_strengths_of_their_own():
    grey = torch.full((500, 3, 8, 8), 0.5)
    change = plasma_brightness(grey, torch.Generator().manual_seed(6), 1.0, kornia="0.9") - 0.5
    assert (change[:, 0] - change[:, 1]).abs().mean() > 0.02
    size = change.abs().mean((1, 2, 3))
    assert size.min() < 0.02
    assert size.max() > 0.15


@pytest.mark.parametrize("operation", [plasma_brightness, plasma_contrast])
def test_gradient_is_that_of_the_formula(operation):
    images = torch.rand(6, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(values):
        return operation(values, torch.Generator().manual_seed(7), p=0.5)

    assert torch.autograd.gradcheck(run, images, eps=1e-7, atol=1e-4)
