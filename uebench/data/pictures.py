"""Pictures of a poison: clean, perturbation and poisoned, for a few images of a few classes.

The perturbation is drawn around grey, amplified so that the budget fills the range; one factor for
the whole picture. A contact sheet has its words painted on it; a strip is small, bare, and keeps
its words as a PNG text, for pages that set them in their own letters.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from ..common.text import CAPTION
from .dataset import Dataset
from .poison import Poison

CLASSES = 4
"""Most classes shown."""
EACH = 3
"""Images shown of a class, so that one sees whether they share a perturbation."""
TILE = 96
"""Pixels that a side is brought to, at least, by repeating pixels."""
GAP = 4
LINE = 18
LETTERS = 13
"""Size of the letters; at 10 the spaces between words close up."""
MARGIN = 10
BLOCKS = ("clean", "perturbation", "poisoned")
STRIP_EACH = 2
"""Images shown of a class in a strip."""
STRIP_TILE = 64
"""Pixels that a side has in a strip, at least, by repeating pixels."""
STRIP_CROP = 96
"""Pixels of a larger image's centre that a strip shows."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """A bare picture of a poison: rows clean, perturbation, poisoned; a column an image."""

    pixels: Pixels
    classes: list[str]
    """The class of each column."""
    factor: float
    """What the perturbation was multiplied by."""
    why: str
    """What fills the range."""


def contact_sheet(poison: Poison, dataset: Dataset, title: str) -> Image.Image:
    """Return the sheet: a row an image, and three columns for each class.

    The factor comes from the poison's linf budget where one is recorded, else from the largest
    change that is shown.
    """
    chosen = chosen_images(poison, dataset)
    parts, factor, why = _three_parts(poison, dataset, chosen)
    tiles = [[_tile(x) for x in part] for part in parts]
    height, width = tiles[0][0].shape[:2]
    block = len(BLOCKS) * (width + GAP) - GAP
    rows = max(len(group) for group in chosen.values())
    font = ImageFont.load_default(LETTERS)
    title = f"{title[:120]}, {len(chosen)} of {dataset.n_classes} classes"
    caption = f"perturbation x{factor:.3g} around grey: {why}"
    text_width = int(max(font.getlength(_ascii(text)) for text in (title, caption))) + 1
    size = (
        2 * MARGIN + max(text_width, len(chosen) * (block + 3 * GAP) - 3 * GAP),
        2 * MARGIN + 4 * LINE + rows * (height + GAP),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str) -> None:
        draw.text((x, y), _ascii(text), fill="black", font=font)

    write(MARGIN, MARGIN, title)
    write(MARGIN, MARGIN + LINE, caption)
    position = 0
    for column, (label, group) in enumerate(chosen.items()):
        left = MARGIN + column * (block + 3 * GAP)
        write(left, MARGIN + 2 * LINE, f"class {label}: {dataset.class_names[label][:30]}")
        for part, name in enumerate(BLOCKS):
            x = left + part * (width + GAP)
            write(x, MARGIN + 3 * LINE, name)
            for row in range(len(group)):
                y = MARGIN + 4 * LINE + row * (height + GAP)
                sheet.paste(Image.fromarray(tiles[part][position + row]), (x, y))
        position += len(group)
    return sheet


def strip(poison: Poison, dataset: Dataset) -> Strip:
    """Return a few images of a few classes as a bare picture."""
    chosen = chosen_images(poison, dataset, STRIP_EACH)
    parts, factor, why = _three_parts(poison, dataset, chosen)
    rows = [
        np.concatenate([_framed(_tile(_centre(x), STRIP_TILE)) for x in part], axis=1)
        for part in parts
    ]
    classes = [dataset.class_names[label] for label, group in chosen.items() for _ in group]
    return Strip(np.concatenate(rows), classes, factor, why)


def write_strip(made: Strip, path: Path) -> None:
    """Write a strip as PNG with its caption, whole or not at all, making missing folders."""
    caption = {k: v for k, v in asdict(made).items() if k != "pixels"}
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CAPTION, json.dumps(caption))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    Image.fromarray(made.pixels).save(draft, format="PNG", optimize=True, pnginfo=text)
    draft.replace(path)


def chosen_images(poison: Poison, dataset: Dataset, each: int = EACH) -> dict[int, list[int]]:
    """Return positions in the poison by class: the first ones of the first classes it covers.

    Classes with at least two images go first; classes are those of the clean set.
    """
    labels = dataset.train.labels[poison.index]
    groups = {
        label: (labels == label).nonzero().flatten()[:each].tolist()
        for label in range(dataset.n_classes)
    }
    full = sorted((k for k in groups if groups[k]), key=lambda k: (len(groups[k]) < 2, k))
    return {label: groups[label] for label in sorted(full[:CLASSES])}


def _three_parts(
    poison: Poison, dataset: Dataset, chosen: dict[int, list[int]]
) -> tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], float, str]:
    """Return clean, amplified and poisoned images, the factor, and what it is."""
    shown = torch.tensor([i for group in chosen.values() for i in group])
    clean = dataset.train.images[poison.index[shown]]
    change = poison.images[shown].int() - clean.int()
    most, why = _full_range(poison, change)
    factor = 127 / most
    amplified = (127.5 + change * factor).round().clamp(0, 255).to(torch.uint8)
    return (clean, amplified, poison.images[shown]), factor, why


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


def _centre(image: torch.Tensor) -> torch.Tensor:
    """Return the middle of an image, STRIP_CROP pixels a side; a smaller one is itself."""
    top, left = (max(0, (side - STRIP_CROP) // 2) for side in image.shape[1:])
    return image[:, top : top + STRIP_CROP, left : left + STRIP_CROP]


def _framed(tile: Pixels) -> Pixels:
    """Return a tile with a thin white frame, so that neighbouring images stay distinct."""
    return np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255)


def _tile(image: torch.Tensor, side: int = TILE) -> Pixels:
    """Return an image as RGB [h, w, 3], each pixel repeated so often that a side has `side`."""
    pixels: Pixels = image.permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    times = max(1, side // max(pixels.shape[:2]))
    return np.ascontiguousarray(pixels.repeat(times, axis=0).repeat(times, axis=1))
