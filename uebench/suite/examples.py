"""Draw the augmentations of UEraser on clean and poisoned images (the paper's Figure 5).

Each row is one image, clean or poisoned. Each column applies one part of the augmentation, and the
last ones apply the whole. The random draw of a column is the same in all rows, so that rows differ
by the poison alone.
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
from ..report.canvas import new_canvas, plain_label, save_canvas, slug, style
from ..report.groups import MethodSpec
from ..report.series import method_title
from ..store.store import Store, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_N_IMAGES = 2
"""Number of images, each from a different class."""
N_WHOLE_DRAWS = 3
"""Number of columns that apply the whole augmentation."""
_SEED = 26
"""A seed with which no column draws the identity."""
_SIDE_INCHES = 0.85
"""Width and height of an image."""
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
    formats: Sequence[str] = ("pdf", "png"),
) -> list[Path]:
    """Draw a picture for each data set of a run, with those of its poisons that are in the store.

    Raises:
        UserError: the results do not name their data set, or it cannot be loaded or has changed.
    """
    specs = results.run.config.get("dataset")
    if not isinstance(specs, list) or not specs:
        raise UserError(
            f"{results.folder} has no run.json that names its data set, from which the examples "
            "are drawn; give the folder of the results, or, if it has none, run its command again "
            "with the same --out"
        )
    store = Store()
    datasets = [load_dataset(str(spec), data_dir, download) for spec in specs]
    for dataset in datasets:
        known = results.run.datasets.get(dataset.name)
        if known and known.fingerprint not in ("", dataset.fingerprint):
            raise UserError(
                f"{dataset.name} is not the data set of these results: its images have the "
                f"fingerprint {dataset.fingerprint[:12]}, but the results were computed on "
                f"{known.fingerprint[:12]}; give the original data set with --data-dir"
            )
    paths = []
    with style():
        for dataset in datasets:
            canvas = _canvas(example_rows(results, dataset, store))
            paths += save_canvas(canvas, folder, f"examples-{slug(dataset.name)}", formats)
    return paths


def example_rows(results: Results, dataset: Dataset, store: Store) -> list[Row]:
    """Return a few images, each clean and then poisoned by each of the run's poisons."""
    labels = dataset.train.labels
    poisons = _poisons(results, dataset, store)
    covered = torch.ones(len(labels), dtype=torch.bool)
    for _, _, index in poisons:
        covered &= torch.isin(torch.arange(len(labels)), index)
    rows = []
    for label in range(dataset.n_classes):
        candidates = (covered & (labels == label)).nonzero().flatten()
        if not len(candidates):
            continue
        place = candidates[0]
        rows.append(Row(f"clean\n{dataset.class_names[label]}", dataset.train.images[place]))
        for title, images, index in poisons:
            position = (index == place).nonzero().flatten()[0]
            rows.append(Row(title, images[position]))
        if len(rows) == _N_IMAGES * (1 + len(poisons)):
            break
    if not rows:
        raise UserError("no training image is covered by every poison of these results")
    return rows


def augmentations() -> list[tuple[str, Augment]]:
    """Return the parts of the augmentation with the paper's strengths, then draws of the whole."""
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
        *((f"whole,\ndraw {i + 1}", Policy("p+c+t")) for i in range(N_WHOLE_DRAWS)),
    ]


def augmented(image: UInt8[Tensor, "c h w"], column: int, augment: Augment) -> Any:
    """Return one augmented image as [h, w, c] in [0, 1]; the draw depends on the column alone."""
    rng = torch.Generator().manual_seed(seed_of("examples", column, _SEED))
    out = augment(image[None].float() / 255, rng)[0].clamp(0, 1).permute(1, 2, 0)
    return out.expand(-1, -1, 3).numpy() if out.shape[2] == 1 else out.numpy()


def _poisons(
    results: Results, dataset: Dataset, store: Store
) -> list[tuple[str, UInt8[Tensor, "n c h w"], Tensor]]:
    """Return title, images and index of the run's poisons of a data set, one per attack."""
    poisons: dict[str, tuple[str, Any, Tensor]] = {}
    rows = results.cells[results.cells["poison_sha256"] != ""].to_dict("records")
    attacks = {
        str(row["poison_sha256"]): MethodSpec(str(row["attack"]), str(row["attack_options"]))
        for row in rows
    }
    for key, record in results.run.poisons.items():
        method = attacks.get(str(record.get("sha256")))
        recipe = record.get("recipe")
        of_dataset = isinstance(recipe, dict) and recipe.get("dataset") == dataset.fingerprint
        if method is None or not of_dataset:
            continue
        title = method_title(results, method)
        entry = store.read("poison", key)
        if entry is None:
            log.warning("%s is left out: its images are not in the store %s", title, store.root)
        else:
            poisons.setdefault(title, (title, entry[0]["images"], entry[0]["index"]))
    return list(poisons.values())


def _canvas(rows: Sequence[Row]) -> Canvas:
    columns = augmentations()
    canvas = new_canvas(_SIDE_INCHES * len(columns) + 1.0, _SIDE_INCHES * len(rows) + 0.5)
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
