"""A contact sheet of a poison: clean, perturbation and poisoned, for a few images of a few classes.

The perturbation is drawn around grey, amplified so that the budget fills the range; one factor for
the whole sheet, which its title says.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .data import Dataset
from .poison import Poison

CLASSES = 4
"""Most classes shown."""
EACH = 3
"""Images shown of a class, so that one sees whether they share a perturbation."""
TILE = 96
"""Pixels that a side is brought to, at least, by repeating pixels."""
GAP = 4
LINE = 16
MARGIN = 10
COLUMNS = ("clean", "perturbation", "poisoned")
Pixels = NDArray[np.uint8]


def contact_sheet(poison: Poison, dataset: Dataset, title: str) -> Image.Image:
    """Return the sheet: a row an image, and three columns for each class.

    The factor comes from the poison's linf budget where one is recorded, else from the largest
    change that is shown.
    """
    chosen = chosen_images(poison, dataset)
    shown = torch.tensor([i for group in chosen.values() for i in group])
    clean = dataset.train.images[poison.index[shown]]
    change = poison.images[shown].int() - clean.int()
    most, why = _full_range(poison, change)
    factor = 127 / most
    amplified = (127.5 + change * factor).round().clamp(0, 255).to(torch.uint8)
    tiles = [[_tile(x) for x in part] for part in (clean, amplified, poison.images[shown])]
    height, width = tiles[0][0].shape[:2]
    block = len(COLUMNS) * (width + GAP) - GAP
    rows = max(len(group) for group in chosen.values())
    font = ImageFont.load_default()
    told = f"perturbation x{factor:.3g} around grey: {why}"
    text_width = int(max(font.getlength(_ascii(text)) for text in (title[:160], told))) + 1
    size = (
        2 * MARGIN + max(text_width, len(chosen) * (block + 3 * GAP) - 3 * GAP),
        2 * MARGIN + 4 * LINE + rows * (height + GAP),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str) -> None:
        draw.text((x, y), _ascii(text), fill="black", font=font)

    write(MARGIN, MARGIN, title[:160])
    write(MARGIN, MARGIN + LINE, told)
    position = 0
    for column, (label, group) in enumerate(chosen.items()):
        left = MARGIN + column * (block + 3 * GAP)
        write(left, MARGIN + 2 * LINE, f"class {label}: {dataset.class_names[label][:30]}")
        for part, name in enumerate(COLUMNS):
            x = left + part * (width + GAP)
            write(x, MARGIN + 3 * LINE, name)
            for row in range(len(group)):
                y = MARGIN + 4 * LINE + row * (height + GAP)
                sheet.paste(Image.fromarray(tiles[part][position + row]), (x, y))
        position += len(group)
    return sheet


def chosen_images(poison: Poison, dataset: Dataset) -> dict[int, list[int]]:
    """Return positions in the poison by class: the first ones of the first classes it covers.

    Classes with at least two images go first; classes are those of the clean set.
    """
    labels = dataset.train.labels[poison.index]
    groups = {
        label: (labels == label).nonzero().flatten()[:EACH].tolist()
        for label in range(dataset.n_classes)
    }
    full = sorted((k for k in groups if groups[k]), key=lambda k: (len(groups[k]) < 2, k))
    return {label: groups[label] for label in sorted(full[:CLASSES])}


def _full_range(poison: Poison, change: torch.Tensor) -> tuple[float, str]:
    """Return the change in levels that fills the range, at least 1, and what it is."""
    match poison.meta.get("budget"):
        case {"norm": "linf", "eps": float(eps)} if 0 < eps <= 1:
            levels = max(1.0, 255 * eps)
            return levels, f"its linf budget of {levels:.4g} levels fills the range"
    levels = max(1.0, float(change.abs().max()))
    return levels, f"the largest change shown, {levels:.4g} levels, fills the range"


def _ascii(text: str) -> str:
    """Return text that every default font has."""
    return text.encode("ascii", "replace").decode()


def _tile(image: torch.Tensor) -> Pixels:
    """Return an image as RGB [h, w, 3], each pixel repeated so often that a side has TILE."""
    pixels: Pixels = image.permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    times = max(1, TILE // max(pixels.shape[:2]))
    return np.ascontiguousarray(pixels.repeat(times, axis=0).repeat(times, axis=1))
