"""What the augmentations of UEraser look like on clean and poisoned images (the paper's Figure 5).

A row is one image, clean or poisoned; a column is one part of the augmentation, always applied,
and the last ones are draws of the whole. A column's random draw is the same in all rows, so that
what differs between rows is the poison.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..augment import STRENGTHS, Policy, channel_shuffle, plasma_brightness, plasma_contrast
from ..augment import trivial_augment as trivial
from ..common.errors import UserError
from ..data import Dataset, load_dataset
from ..report import Results
from ..report.groups import MethodSpec
from ..report.plots import new_canvas, plain_label, save_canvas, slug, style
from ..report.series import method_title
from ..store.store import Store, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

IMAGES = 2
"""Images shown, each of another class."""
WHOLE = 3
"""Draws of the whole augmentation."""
SEED = 26
"""Chosen such that no column draws the identity."""
SIDE = 0.85
"""Inches of an image."""
log = logging.getLogger(__name__)

Augment = Callable[[Float[Tensor, "b c h w"], torch.Generator], Float[Tensor, "b c h w"]]


@dataclass(frozen=True)
class Row:
    """One image, clean or poisoned."""

    label: str
    image: UInt8[Tensor, "c h w"]


def draw_examples(
    results: Results,
    folder: Path,
    data_dir: Path | str | None = None,
    download: bool = False,
    store: Store | None = None,
) -> list[Path]:
    """Draw a picture for each data set of a run, with the run's poisons that the store has.

    Raises:
        KeyError, ValueError: the run or its data set is unknown, or is not there.
    """
    specs = results.run.config.get("dataset")
    if not isinstance(specs, list) or not specs:
        raise UserError(
            f"{results.folder} has no run.json that names its data set, whose images the examples "
            "show; run its command again with the same --out"
        )
    store = store or Store()
    datasets = [load_dataset(str(spec), data_dir, download) for spec in specs]
    for dataset in datasets:
        known = results.run.datasets.get(dataset.name)
        if known and known.fingerprint not in ("", dataset.fingerprint):
            raise UserError(
                f"{dataset.name} is not the data set of these results: its images have the "
                f"fingerprint {dataset.fingerprint[:12]}, theirs {known.fingerprint[:12]}"
            )
    paths = []
    with style():
        for dataset in datasets:
            canvas = _canvas(example_rows(results, dataset, store))
            paths += save_canvas(canvas, folder, f"examples-{slug(dataset.name)}")
    return paths


def example_rows(results: Results, dataset: Dataset, store: Store) -> list[Row]:
    """Return for some images the clean one and what each of the run's poisons made of it."""
    labels = dataset.train.labels
    poisons = _poisons(results, dataset, store)
    covered = torch.ones(len(labels), dtype=torch.bool)
    for _, _, index in poisons:
        here = torch.zeros_like(covered)
        here[index] = True
        covered &= here
    rows = []
    for label in range(dataset.n_classes):
        found = (covered & (labels == label)).nonzero().flatten()
        if not len(found):
            continue
        place = found[0]
        rows.append(Row(f"clean\n{dataset.class_names[label]}", dataset.train.images[place]))
        for title, images, index in poisons:
            position = (index == place).nonzero().flatten()[0]
            rows.append(Row(title, images[position]))
        if len(rows) == IMAGES * (1 + len(poisons)):
            break
    if not rows:
        raise UserError("no training image is covered by every poison of these results")
    return rows


def augmentations() -> list[tuple[str, Augment]]:
    """Return the parts of the augmentation as the paper sets them, then draws of the whole."""
    numbers = STRENGTHS["paper"]
    return [
        ("as it is", lambda x, rng: x),
        (
            "plasma\nbrightness",
            lambda x, rng: plasma_brightness(x, rng, 1.0, numbers.roughness, numbers.intensity),
        ),
        ("plasma\ncontrast", lambda x, rng: plasma_contrast(x, rng, 1.0, numbers.roughness)),
        ("channel\nshuffle", lambda x, rng: channel_shuffle(x, rng, 1.0)),
        ("Trivial-\nAugment", lambda x, rng: trivial(x, rng)),
        *((f"whole,\ndraw {i + 1}", Policy("p+c+t")) for i in range(WHOLE)),
    ]


def augmented(image: UInt8[Tensor, "c h w"], column: int, augment: Augment) -> Any:
    """Return one augmented image as [h, w, c] in [0, 1]; the draw depends on the column alone."""
    rng = torch.Generator().manual_seed(seed_of("examples", column, SEED))
    out = augment(image[None].float() / 255, rng)[0].clamp(0, 1).permute(1, 2, 0)
    return out.expand(-1, -1, 3).numpy() if out.shape[2] == 1 else out.numpy()


def _poisons(
    results: Results, dataset: Dataset, store: Store
) -> list[tuple[str, UInt8[Tensor, "n c h w"], Tensor]]:
    """Return title, images and index of the run's poisons of a data set, one an attack."""
    found: dict[str, tuple[str, Any, Tensor]] = {}
    rows = results.cells[results.cells["poison_sha256"] != ""].to_dict("records")
    attacks = {
        str(row["poison_sha256"]): MethodSpec(str(row["attack"]), str(row["attack_options"]))
        for row in rows
    }
    for key, told in results.run.poisons.items():
        method = attacks.get(str(told.get("sha256")))
        recipe = told.get("recipe")
        mine = isinstance(recipe, dict) and recipe.get("dataset") == dataset.fingerprint
        if method is None or not mine:
            continue
        title = method_title(results, method)
        entry = store.read("poison", key) if store.has("poison", key) else None
        if entry is None:
            log.warning("%s is left out: the store %s has not its images", title, store.root)
        else:
            found.setdefault(title, (title, entry[0]["images"], entry[0]["index"]))
    return list(found.values())


def _canvas(rows: Sequence[Row]) -> Canvas:
    columns = augmentations()
    canvas = new_canvas(SIDE * len(columns) + 1.0, SIDE * len(rows) + 0.5)
    grid = canvas.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for j, (name, augment) in enumerate(columns):
            axes = grid[i][j]
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(False)
            axes.imshow(augmented(row.image, j, augment), interpolation="nearest")
            if i == 0:
                axes.set_title(name)
        label = plain_label(row.label)
        grid[i][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7.5)
    return canvas
