"""A poison and the data set that it is made from: what a cell refers to, by recipe and by key.

The key of a poison is the hash of its recipe, as that of a cell is; see `cell.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..data import Dataset
from ..methods.base import Attack
from ..methods.faults import blamed
from ..methods.imported import ImportedPoison, imported_recipe
from ..methods.mixture import MixedPoison
from ..methods.source import source_of
from ..models import is_network, network_recipe
from ..store.store import key_of, seed_of

CRAFTER_VERSION = 3
"""Increase this when the seeding, quantisation or audit of all poisons changes."""


@dataclass(frozen=True)
class DatasetRef:
    """A data set identified by its content, with all that a worker needs to load it."""

    name: str
    fingerprint: str
    n_classes: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The name without options."""
        return self.name.partition("[")[0]


def dataset_ref(dataset: Dataset) -> DatasetRef:
    """Return the reference that identifies a loaded data set by its content."""
    return DatasetRef(
        dataset.name, dataset.fingerprint, dataset.n_classes, dataset.shape, dataset.class_names
    )


class Share(NamedTuple):
    """Which training images are poisoned.

    They are a fraction of all images, drawn at random; with `classes`, those of the drawn images
    that belong to these classes.
    """

    ratio: float = 1.0
    classes: tuple[int, ...] = ()
    """Labels of the poisoned classes; empty means all classes."""

    def chosen(self, labels: Tensor, fingerprint: str, seed: int) -> Tensor:
        """Return a mask, bool [n], of the images that are poisoned.

        The draw depends on the data set and the poison seed alone, not on the attack, the defense
        or the training seed, and a larger share contains every smaller one. So curves over the
        ratio compare nested training sets.
        """
        chosen = torch.ones(len(labels), dtype=torch.bool)
        if self.classes:
            chosen &= torch.isin(labels.cpu(), torch.tensor(self.classes))
        if self.ratio < 1:
            rng = torch.Generator().manual_seed(seed_of("ratio", fingerprint, seed))
            order = torch.randperm(len(labels), generator=rng)
            chosen[order[round(self.ratio * len(labels)) :]] = False
        return chosen


@dataclass(frozen=True)
class PoisonRef:
    """A poison identified by its recipe: the resolved attack, its seed and the data set."""

    dataset: DatasetRef
    attack: Attack
    seed: int
    precision: Literal["fp32", "bf16"]
    crafted_on: Share | None = None
    """The images that the attack is given. None means all images; a share of the result is then
    used."""

    @property
    def rng_seed(self) -> int:
        """The seed of the attack's random generator.

        It does not depend on the options, so that two budgets of one attack start from the same
        network or the same kernels, and differ by the budget alone.
        """
        return seed_of("poison", self.attack.info.name, self.dataset.fingerprint, self.seed)

    @property
    def is_clean(self) -> bool:
        """Whether this is the clean data set, with no perturbation."""
        return self.attack.info.name == "none"

    @cached_property
    def parts(self) -> tuple[PoisonRef, ...]:
        """The poisons of a mixture, each as its attack makes it alone; empty for other attacks."""
        if not isinstance(self.attack, MixedPoison):
            return ()
        return tuple(replace(self, attack=part.attack) for part in self.attack.parts)

    def recipe(self) -> dict[str, Any]:
        """Return everything that changes the poison; for an imported one, its content alone.

        All callers share one dictionary, so do not change it.

        Raises:
            MethodError: the attack's `recipe` raises an exception.
        """
        return self._recipe

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        if isinstance(self.attack, ImportedPoison):
            return imported_recipe(self.dataset.fingerprint, self.attack.sha256)
        if isinstance(self.attack, MixedPoison):
            return self._recipe_of(self.attack)
        with blamed(self.attack, "recipe"):
            options = dict(self.attack.recipe())
        network: dict[str, Any] = {}
        if is_network(str(options.get("surrogate"))):
            network = network_recipe(options["surrogate"], self.dataset.shape)
            options["surrogate"] = network["arch"]
        return {
            "what": "poison",
            "crafter": CRAFTER_VERSION,
            "dataset": self.dataset.fingerprint,
            "attack": self.attack.info.name,
            "version": self.attack.version,
            "options": options,
            "seed": self.seed,
            "precision": self.precision,
            **({"surrogate_form": network["form"]} if "form" in network else {}),
            **({"crafted_on": list(self.crafted_on)} if self.crafted_on else {}),
            **source_of(self.attack),
        }

    def _recipe_of(self, mixture: MixedPoison) -> dict[str, Any]:
        """Return the recipe of a mixture: that of each part, without what all of them share."""
        shared = {
            "what": "poison",
            "crafter": CRAFTER_VERSION,
            "dataset": self.dataset.fingerprint,
            "seed": self.seed,
            "precision": self.precision,
            **({"crafted_on": list(self.crafted_on)} if self.crafted_on else {}),
        }
        options: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {}
        for (attack, share), ref in zip(mixture.parts, self.parts, strict=True):
            name = attack.info.name
            rest = {k: v for k, v in ref.recipe().items() if k not in (*shared, "attack")}
            options |= {name: share}
            options |= {f"{name}.{k}": v for k, v in rest.pop("options", {}).items()}
            parts[name] = rest
        return {
            **shared,
            "attack": mixture.info.name,
            "version": mixture.version,
            "options": options,
            "parts": parts,
        }

    def owners(self, labels: Tensor) -> Tensor:
        """Return which part of a mixture poisons each image, int64 [n]; -1 where none does.

        It depends on the data set, the seed and the shares, but not on the options of the attacks.

        Raises:
            UserError: a part's share rounds to no image.
        """
        assert isinstance(self.attack, MixedPoison)
        return self.attack.owners(labels, seed_of("mix", self.dataset.fingerprint, self.seed))

    @cached_property
    def key(self) -> str:
        """The poison's key in the store."""
        return key_of(self._recipe)
