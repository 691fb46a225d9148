"""Quantising and measuring: budgets are judged on 8-bit images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import uebench
from tests.conftest import make_run, random_dataset
from uebench import Attack
from uebench.common.errors import MethodError
from uebench.data import Dataset
from uebench.data.poison import Budget, measure, quantise
from uebench.methods.registry import attack


@given(st.integers(0, 255), st.floats(-1, 1))
def test_quantising_rounds_and_clips(level: int, delta: float) -> None:
    images = torch.full((1, 1, 2, 2), level, dtype=torch.uint8)
    out = quantise(images, torch.full((1, 1, 2, 2), delta, dtype=torch.float32))
    exact = min(max(level + delta * 255, 0), 255)
    assert abs(out[0, 0, 0, 0].item() - exact) <= 0.5 + 1e-3


@given(st.integers(1, 255))
def test_a_budget_in_whole_levels_is_kept_by_rounding(levels: int) -> None:
    images = torch.full((1, 3, 4, 4), 128, dtype=torch.uint8)
    delta = torch.full((1, 3, 4, 4), levels / 255)
    measured = measure(images, quantise(images, delta))
    Budget("linf", levels / 255).check(measured, (3, 4, 4), "x")


def test_budgets_in_pixels_and_without_a_bound() -> None:
    clean = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images = clean.clone()
    images[0, :, 3, 3:5] = 255
    measured, shape = measure(clean, images), (3, 16, 16)
    Budget("l0", 2).check(measured, shape, "x")
    Budget("none", None).check(measured, shape, "x")
    with pytest.raises(ValueError, match=r"exceeds its l0 budget on 1 of 2 .* 2 pixels, allowed"):
        Budget("l0", 1).check(measured, shape, "x")
    assert Budget("l0", 1).allowed(shape) == 1
    assert Budget("none", None).allowed(shape) == math.inf


@pytest.mark.parametrize(
    ("budget", "ball"),
    [
        (Budget("linf", 16 / 255), ("linf", 16 / 255)),
        (Budget("l2", 1.3), ("l2", 1.3)),
        (Budget("l0", 3), ("linf", 8 / 255)),
        (Budget("none", None), ("linf", 8 / 255)),
    ],
)
def test_defenses_are_tied_to_a_ball(budget: Budget, ball: tuple[str, float]) -> None:
    assert budget.ball == ball


def test_norms_by_hand() -> None:
    clean = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images = clean.clone()
    images[1, 0, 8, 8] = 3
    images[1, 1, 8, 8] = 4
    measured = measure(clean, images)
    assert measured.linf.tolist() == [0, 4]
    assert measured.l0.tolist() == [0, 1]
    assert measured.l2[1].item() == pytest.approx(5 / 255)
    assert measured.psnr[1].item() == pytest.approx(-10 * math.log10(25 / 255**2 / 768), abs=1e-4)
    assert math.isinf(measured.psnr[0])
    assert measured.ssim[0].item() == pytest.approx(1)
    assert measured.ssim[1] < 1
    assert measured.record()["psnr_mean"] == pytest.approx(measured.psnr[1].item(), abs=1e-5)


def test_the_share_of_changed_images_counts_one_changed_pixel() -> None:
    clean = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    images = clean.clone()
    images[1, 2, 5, 5] = 1
    record = measure(clean, images).record()
    assert record["changed_share"] == 0.25
    assert (record["l0_mean"], record["l0_max"]) == (0.25, 1)


def test_similarity_is_that_of_its_definition() -> None:
    """Wang et al. 2004, by hand: one 11 x 11 window, a white point in a black image."""
    clean = torch.zeros(1, 1, 11, 11, dtype=torch.uint8)
    images = clean.clone()
    images[0, 0, 5, 5] = 255
    weight = 1 / sum(math.exp(-(i**2) / (2 * 1.5**2)) for i in range(-5, 6)) ** 2
    c1, c2 = 1e-4, 9e-4
    expected = c1 * c2 / ((weight**2 + c1) * (weight - weight**2 + c2))
    assert measure(clean, images).ssim.item() == pytest.approx(expected, rel=1e-3)
    grey, white = (torch.full((1, 1, 11, 11), level, dtype=torch.uint8) for level in (51, 255))
    assert measure(white, grey).ssim.item() == pytest.approx((2 * 0.2 + c1) / (1.04 + c1), rel=1e-3)


@pytest.mark.parametrize("side", [4, 9, 11, 40])
def test_similarity_falls_with_noise(side: int) -> None:
    rng = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (4, 3, side, side), generator=rng, dtype=torch.uint8)
    near = quantise(clean, 0.02 * torch.randn(clean.shape, generator=rng))
    far = quantise(clean, 0.2 * torch.randn(clean.shape, generator=rng))
    assert 1 > measure(clean, near).ssim.mean() > measure(clean, far).ssim.mean()


class Loud(Attack):
    """Adds more than it may, or nonsense."""

    what: str = "loud"
    """What is wrong with it."""

    def perturb(self, data, run):  # type: ignore[no-untyped-def]
        """Return a bad perturbation."""
        delta = torch.full(data.images.shape, 9 / 255)
        if self.what == "nan":
            delta[0, 0, 0, 0] = float("nan")
        return delta[:-1] if self.what == "short" else delta


@pytest.mark.parametrize(
    ("what", "told"),
    [("loud", "exceeds its linf budget on"), ("nan", "NaN"), ("short", "perturb returned")],
)
def test_crafting_refuses_what_breaks_the_contract(what: str, told: str) -> None:
    attack("loud", title="Loud", source="a test")(Loud)
    dataset = random_dataset([4, 4])
    with pytest.raises(ValueError, match=told):
        Loud(what=what).craft(dataset.train, make_run(dataset))


class Exporting(Attack):
    """Publishes images in another form."""

    def perturb(self, data, run):  # type: ignore[no-untyped-def]
        """Return nothing but zeros."""
        return torch.zeros(data.images.shape)

    def export(self, data, delta):  # type: ignore[no-untyped-def]
        """Return floats in [0, 1]."""
        return data.images / 255


def test_images_that_an_attack_exports_are_8_bit() -> None:
    attack("exporting", title="Exporting", source="a test")(Exporting)
    dataset = random_dataset([4, 4])
    with pytest.raises(
        MethodError, match=r"attack exporting: export returned float32 \[8, 3, 16, 16\]"
    ):
        Exporting().craft(dataset.train, make_run(dataset))


class Noting(Exporting):
    """Notes a number that numpy computed."""

    value: str = "numpy"
    """What kind of number."""

    def perturb(self, data, run):  # type: ignore[no-untyped-def]
        """Note it before the search would begin."""
        values = {"numpy": np.float32(0.5), "torch": torch.tensor(0.5), "nan": math.nan}
        run.note(share=values[self.value], each=[np.int64(3)])
        return torch.zeros(data.images.shape)

    def export(self, data, delta):  # type: ignore[no-untyped-def]
        """Return the images as they are."""
        return data.images


def test_notes_hold_numbers_of_numpy_and_torch(tiny: Dataset) -> None:
    attack("noting", title="Noting", source="a test")(Noting)
    for value in ("numpy", "torch"):
        meta = uebench.craft(f"noting[value={value}]", tiny).meta
        assert (meta["share"], meta["each"]) == (0.5, [3])
    with pytest.raises(MethodError, match=r"noting failed in perturb: .*test_poison.py, line"):
        uebench.craft("noting[value=nan]", tiny)
