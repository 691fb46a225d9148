"""The contact sheet shows clean, perturbation and poisoned as they are, and says its factor."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.conftest import random_dataset
from uebench.common.text import CAPTION
from uebench.data import Dataset
from uebench.data.pictures import (
    EACH,
    GAP,
    LINE,
    MARGIN,
    STRIP_CROP,
    STRIP_TILE,
    TILE,
    chosen_images,
    contact_sheet,
    strip,
    write_strip,
)
from uebench.data.poison import Poison


def poison_of(dataset: Dataset, levels: int, **meta: object) -> Poison:
    """Class 0 gets brighter by `levels`, every other class darker."""
    sign = torch.where(dataset.train.labels == 0, 1, -1).view(-1, 1, 1, 1)
    images = (dataset.train.images.int() + sign * levels).clamp(0, 255).to(torch.uint8)
    return Poison(images, dataset.train.labels, torch.arange(len(images)), dict(meta))


def tile(sheet: np.ndarray, column: int, row: int, side: int) -> np.ndarray:
    """Return the tile in a column (of three a class) and a row, one pixel a pixel."""
    size = TILE // side * side
    x = MARGIN + column // 3 * (3 * (size + GAP) + 2 * GAP) + column % 3 * (size + GAP)
    y = MARGIN + 4 * LINE + row * (size + GAP)
    part = sheet[y : y + size, x : x + size]
    step = TILE // side
    return part[::step, ::step]


def test_every_tile_is_what_its_column_says() -> None:
    dataset = random_dataset([5, 4, 3, 3, 3], (16, 16))
    poison = poison_of(dataset, 8, budget={"norm": "linf", "eps": 16 / 255})
    chosen = chosen_images(poison, dataset)
    assert list(chosen) == [0, 1, 2, 3]
    assert all(len(group) == EACH for group in chosen.values())
    sheet = np.asarray(contact_sheet(poison, dataset, "a title"))
    change = poison.images.int() - dataset.train.images.int()
    for position, (label, group) in enumerate(chosen.items()):
        assert (dataset.train.labels[group] == label).all()
        for row, i in enumerate(group):
            tiles = [tile(sheet, 3 * position + part, row, 16) for part in range(3)]
            assert np.array_equal(tiles[0], dataset.train.images[i].permute(1, 2, 0))
            assert np.array_equal(tiles[2], poison.images[i].permute(1, 2, 0))
            wanted = 127.5 + change[i].permute(1, 2, 0).numpy() * 127 / 16
            assert np.abs(tiles[1] - wanted).max() <= 0.51


def test_without_a_linf_budget_the_largest_change_fills_the_range() -> None:
    dataset = random_dataset([3, 3], (16, 16))
    for meta in ({}, {"budget": {"norm": "l2", "eps": 1.0}}):
        sheet = np.asarray(contact_sheet(poison_of(dataset, 5, **meta), dataset, "t"))
        shown = np.concatenate(
            [tile(sheet, c, row, 16).ravel() for c in (1, 4) for row in range(3)]
        )
        assert (shown.min(), shown.max()) == (0, 254)


def test_odd_poisons_are_drawn() -> None:
    grey = random_dataset([1, 2, 1], (100, 40), channels=1)
    part = Poison(grey.train.images[2:3], grey.train.labels[2:3], torch.tensor([2]))
    assert contact_sheet(part, grey, "nothing changed, one image").mode == "RGB"
    assert list(chosen_images(poison_of(grey, 1), grey)) == [0, 1, 2]
    names = (*(["a"] * 2), "Käse" * 100)
    named = Dataset("n", grey.train, grey.test, "x")
    object.__setattr__(named.train, "class_names", names)
    assert contact_sheet(poison_of(grey, 1), named, "ü" * 500).width > 0


def test_a_strip_shows_the_same_pixels_and_keeps_its_caption(tmp_path: Path) -> None:
    dataset = random_dataset([5, 4, 3, 3, 3], (16, 16))
    poison = poison_of(dataset, 8, budget={"norm": "linf", "eps": 16 / 255})
    made = strip(poison, dataset)
    assert made.classes == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert made.factor == 127 / 16
    side = STRIP_TILE + 2
    assert made.pixels.shape == (3 * side, 8 * side, 3)
    step = STRIP_TILE // 16
    first = (dataset.train.labels == 0).nonzero().flatten()[0]
    for row, wanted in ((0, dataset.train.images), (2, poison.images)):
        tile = made.pixels[row * side + 1 : (row + 1) * side - 1, 1 : side - 1]
        assert np.array_equal(tile[::step, ::step], wanted[first].permute(1, 2, 0))
    path = tmp_path / "made" / "strip.png"
    write_strip(made, path)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), made.pixels)
        assert json.loads(image.info[CAPTION])["classes"] == made.classes
    assert [p.name for p in path.parent.iterdir()] == ["strip.png"]


def test_a_strip_of_large_images_shows_their_centre() -> None:
    dataset = random_dataset([2, 2], (130, 200))
    made = strip(poison_of(dataset, 8), dataset)
    assert made.pixels.shape == (3 * (STRIP_CROP + 2), 4 * (STRIP_CROP + 2), 3)
    first = (dataset.train.labels == 0).nonzero().flatten()[0]
    centre = dataset.train.images[first][:, 17 : 17 + STRIP_CROP, 52 : 52 + STRIP_CROP]
    assert np.array_equal(
        made.pixels[1 : STRIP_CROP + 1, 1 : STRIP_CROP + 1], centre.permute(1, 2, 0)
    )
