"""Draw a poison: clean image, perturbation and poisoned image, for a few images of a few classes.

The perturbation is drawn around grey and amplified by one factor for the whole picture, so that the
budget fills the range. A contact sheet has its captions painted on it. A strip is small and bare;
its caption is stored as a PNG text, so that a page can typeset it.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from ..common.drafts import replaced_file
from ..common.text import CAPTION
from .split import Split

CLASSES = 4
"""Largest number of classes that are shown."""
EACH = 3
"""Images shown per class; several show whether they share a perturbation."""
TILE = 96
"""Size of a tile in pixels; smaller images are enlarged to about this by repeating pixels."""
GAP = 4
LINE = 18
LETTERS = 13
"""Size of the letters; at 10 the spaces between words close up."""
MARGIN = 10
BLOCKS = ("clean", "perturbation", "poisoned")
SAMPLED_CLASSES = 10
"""Largest number of classes of which samples are shown."""
STRIP_EACH = 2
"""Images shown per class in a strip."""
STRIP_TILE = 64
"""Size of a tile of a strip in pixels."""
STRIP_CROP = 96
"""Side in pixels of the centre of a larger image that a strip shows."""
Pixels = NDArray[np.uint8]


class PoisonLike(Protocol):
    """What is drawn and written of a `Poison`, which imports this module to draw itself."""

    @property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """The poisoned images."""

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Their classes."""

    @property
    def index(self) -> Int[Tensor, " n"]:
        """Their positions in the clean training set."""

    @property
    def meta(self) -> dict[str, Any]:
        """The record of the poison."""


class DatasetLike(Protocol):
    """What is drawn of a `Dataset`, which imports this module to draw itself."""

    @property
    def train(self) -> Split:
        """The clean training set."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, in order of the labels."""

    @property
    def n_classes(self) -> int:
        """Number of classes."""


@dataclass(frozen=True)
class Strip:
    """A bare picture of a poison: rows clean, perturbation, poisoned; one column per image."""

    pixels: Pixels
    classes: list[str]
    """The class of each column."""
    factor: float
    """What the perturbation was multiplied by."""
    why: str
    """What change the amplified range stands for, in words."""


def contact_sheet(poison: PoisonLike, dataset: DatasetLike, title: str) -> Image.Image:
    """Return the sheet: three columns for each class, and one row per image.

    The factor comes from the poison's linf budget if one is recorded, otherwise from the largest
    change shown.
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


def samples(split: Split) -> Image.Image:
    """Return the first images of the first classes, one column per class with its name above."""
    columns = {
        label: positions[:EACH].tolist()
        for label in range(split.n_classes)
        if len(positions := (split.labels == label).nonzero().flatten().cpu())
    }
    sampled = dict(list(columns.items())[:SAMPLED_CLASSES])
    tiles = {k: [_tile(split.images[i].cpu(), STRIP_TILE) for i in sampled[k]] for k in sampled}
    font = ImageFont.load_default(LETTERS)
    height, width = next(iter(tiles.values()))[0].shape[:2]
    names = {k: textwrap.wrap(_ascii(split.class_names[k]), width // 7)[:2] for k in sampled}
    head = LINE * max(1, *map(len, names.values()))
    rows = max(map(len, tiles.values()))
    size = (len(sampled) * (width + GAP) - GAP, head + rows * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(sampled):
        x = column * (width + GAP)
        draw.text((x, 0), "\n".join(names[label]), fill="black", font=font)
        for row, tile in enumerate(tiles[label]):
            sheet.paste(Image.fromarray(tile), (x, head + row * (height + GAP)))
    return sheet


def strip(poison: PoisonLike, dataset: DatasetLike) -> Strip:
    """Return a few images of a few classes as a bare picture."""
    chosen = chosen_images(poison, dataset, STRIP_EACH)
    parts, factor, why = _three_parts(poison, dataset, chosen)
    rows = [
        np.concatenate([_framed(_tile(_centre(x), STRIP_TILE)) for x in part], axis=1)
        for part in parts
    ]
    classes = [dataset.class_names[label] for label, group in chosen.items() for _ in group]
    return Strip(np.concatenate(rows), classes, factor, why)


def write_strip(picture: Strip, path: Path) -> None:
    """Write a strip as PNG with its caption, atomically, and create missing folders."""
    caption = {k: v for k, v in asdict(picture).items() if k != "pixels"}
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CAPTION, json.dumps(caption))
    with replaced_file(path) as draft:
        Image.fromarray(picture.pixels).save(draft, format="PNG", optimize=True, pnginfo=text)


def chosen_images(
    poison: PoisonLike, dataset: DatasetLike, each: int = EACH
) -> dict[int, list[int]]:
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
    poison: PoisonLike, dataset: DatasetLike, chosen: dict[int, list[int]]
) -> tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], float, str]:
    """Return clean, amplified and poisoned images, the factor, and its reason in words."""
    positions = torch.tensor([i for group in chosen.values() for i in group])
    clean = dataset.train.images[poison.index[positions]]
    change = poison.images[positions].int() - clean.int()
    most, why = _full_range(poison, change)
    factor = 127 / most
    amplified = (127.5 + change * factor).round().clamp(0, 255).to(torch.uint8)
    return (clean, amplified, poison.images[positions]), factor, why


def _full_range(poison: PoisonLike, change: torch.Tensor) -> tuple[float, str]:
    """Return the change in levels, at least 1, that fills the range, and a text about it."""
    match poison.meta.get("budget"):
        case {"norm": "linf", "eps": float(eps)} if 0 < eps <= 1:
            levels = max(1.0, 255 * eps)
            return levels, f"its linf budget of {levels:.4g} levels fills the range"
    levels = max(1.0, float(change.abs().max()))
    return levels, f"the largest change shown, {levels:.4g} levels, fills the range"


def _ascii(text: str) -> str:
    """Return a text in which every character is in the default font."""
    return text.encode("ascii", "replace").decode()


def _centre(image: torch.Tensor) -> torch.Tensor:
    """Return the centre of an image with sides of at most STRIP_CROP pixels."""
    top, left = (max(0, (side - STRIP_CROP) // 2) for side in image.shape[1:])
    return image[:, top : top + STRIP_CROP, left : left + STRIP_CROP]


def _framed(tile: Pixels) -> Pixels:
    """Return a tile with a thin white frame, so that neighbouring images stay distinct."""
    return np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255)


def _tile(image: torch.Tensor, side: int = TILE) -> Pixels:
    """Return an image as RGB [h, w, 3], enlarged to about `side` px by repeating pixels."""
    pixels: Pixels = image.permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    times = max(1, side // max(pixels.shape[:2]))
    return np.ascontiguousarray(pixels.repeat(times, axis=0).repeat(times, axis=1))
