"""Refuse a matrix that is too large or repeats itself, and empty poisons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from ..common.errors import UserError
from ..common.spec import normalise
from ..data.dataset import Dataset
from .cell import PoisonRef, Share
from .config import Config, parts, spec_name

MOST_CELLS = 100_000
"""Largest number of cells in one matrix."""


def check_n_cells(config: Config) -> None:
    """Refuse a matrix with too many cells before they are built."""
    n = sum(
        math.prod(
            (
                *(len(part.dataset), max(1, len(part.arch))),
                *(len(part.attacks), len(part.defenses), len(part.victims)),
                *(len(part.seeds), len(part.poison_seeds), len(part.ratio)),
            )
        )
        for part in parts(config)
    )
    if n > MOST_CELLS:
        raise UserError(
            f"this matrix has {n:,} cells, and the limit is {MOST_CELLS:,}; split it into several "
            "configurations"
        )


def check_distinct(what: str, specs: Sequence[str], resolved: Sequence[object]) -> None:
    """Refuse a list in which two specs mean the same, such as em and em[eps=8/255].

    Their rows or columns would be one measurement that looks like two that agree.

    Raises:
        UserError: two of the resolved values are equal.
    """
    for i, value in enumerate(resolved):
        if value in resolved[:i]:
            raise UserError(
                f"the {what} {specs[resolved.index(value)]} and {specs[i]} are the same here, so "
                "that one measurement would look like two; leave one of them out"
            )


def may_repeat(specs: list[str]) -> bool:
    """Return whether two specs may be the same method: only those of one name can.

    Imported poisons have names of their own and may still be the same images.
    """
    families = [normalise(spec_name(spec)).partition(":")[0] for spec in specs]
    return len(set(families)) < len(families)


def check_shares(config: Config, labels: tuple[int, ...], dataset: Dataset) -> None:
    """Refuse a poisoned share that rounds to no image, since its rows would be clean training.

    A ratio of 0 asks for just that, as the first point of a curve.

    Raises:
        UserError: for one of the ratios and poison seeds no image is poisoned.
    """
    if all(spec_name(spec) == "none" for spec in config.attacks):
        return
    n = int(Share(1.0, labels).chosen(dataset.train.labels, "", 0).sum())
    of_classes = f" of class {', '.join(config.classes)}" if labels else ""
    for ratio, seed in itertools.product(config.ratio, config.poison_seeds):
        chosen = Share(ratio, labels).chosen(dataset.train.labels, dataset.fingerprint, seed)
        if ratio and not chosen.any():
            raise UserError(
                f"ratio {ratio:g} poisons no image: {dataset.name} has {n:,} training "
                f"images{of_classes}, and poison seed {seed} draws none of them; give a larger "
                "ratio, or 0 for clean training"
            )


def check_mixtures(
    poisons: Sequence[PoisonRef | object],
    config: Config,
    labels: tuple[int, ...],
    dataset: Dataset,
) -> None:
    """Refuse a mixture of which some attack would poison no image.

    Raises:
        UserError: that is so for one of the ratios and poison seeds.
    """
    mixtures = [poison for poison in poisons if isinstance(poison, PoisonRef) and poison.parts]
    for mixture, seed in itertools.product(mixtures, config.poison_seeds):
        owners = replace(mixture, seed=seed).owners(dataset.train.labels)
        for ratio in filter(None, config.ratio):
            chosen = Share(ratio, labels).chosen(dataset.train.labels, dataset.fingerprint, seed)
            present = owners[chosen].unique().tolist()
            for number, part in enumerate(mixture.parts):
                if number not in present:
                    raise UserError(
                        f"{part.attack.info.name} poisons no image of the mixture with ratio "
                        f"{ratio:g}, poison seed {seed} and these classes; give it a larger share"
                    )
