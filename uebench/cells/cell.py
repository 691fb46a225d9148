"""A cell, which is one trained target model, and its keys in the store.

A key is the hash of everything that changes the cell's numbers, including the versions of its
methods, and of nothing else: not of paths, workers or the device. Recipes and keys are computed
once for each object, since every step from planning to the page uses them, for up to 100,000 cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, cast

from ..common.spec import Spec, format_spec
from ..data.poison import CLEAN_BALL, Budget, Norm
from ..learn.protocol import MEASURES, Protocol
from ..methods.base import Defense, Method
from ..methods.faults import blamed
from ..methods.imported import ImportedPoison
from ..methods.mixture import mixed
from ..methods.registry import build
from ..methods.source import source_of
from ..methods.victim import Victim
from ..models import network_recipe
from ..store.store import key_of
from ..victims.supervised import Supervised
from .failure import Failure
from .poison_ref import DatasetRef as DatasetRef
from .poison_ref import PoisonRef as PoisonRef
from .poison_ref import Share as Share
from .poison_ref import dataset_ref as dataset_ref

TRAINER_VERSION = 2
"""Increase this when the trainer's numbers change. It makes every stored cell stale."""

LATER_FIELDS = {
    "alternate": False,
    "compile": False,
    "recovery": False,
    "robust": False,
    "train_curve": False,
    "optimizer": "sgd",
    "head_lr": 1e-5,
    "bias_lr": 0.05,
    "rest_momentum": 0.85,
    "label_smoothing": 0,
    "crop_fill": "zero",
}
"""Protocol fields that were added later, with the values that change no number. At these values
they are left out of the recipe, so that the keys of older cells stay what they were."""


SUPERVISED = Supervised()
"""The victim of cells that name none; recipes leave it out, as they did before others came."""


@dataclass(frozen=True)
class Cell:
    """One trained target model: dataset x ratio x attack x defense x arch x protocol x seed."""

    poison: PoisonRef
    ratio: float
    classes: tuple[int, ...]
    """Labels of the classes that are poisoned; empty means all classes."""
    defense: Defense
    arch: str
    protocol: Protocol
    precision: Literal["fp32", "bf16"]
    seed: int
    attack_options: str = ""
    """The attack's options as the user gave them, for tables; the recipe has resolved values."""
    defense_options: str = ""
    """The defense's options as the user gave them, for tables."""
    victim: Victim = SUPERVISED
    """Who trains the target model."""
    victim_options: str = ""
    """The victim's options as the user gave them, for tables."""
    usual_epochs: int | None = None
    """The epochs of the protocol before the defense's `times_epochs`, which tables name."""
    fault: Failure | None = None
    """Why this cell cannot be computed, if one of its methods failed while the matrix was planned.
    The methods of such a cell are as the user asked for them, with nothing resolved."""

    def recipe(self) -> dict[str, Any]:
        """Return everything that changes the cell's numbers.

        All callers share one dictionary, so do not change it.

        Raises:
            MethodError: the `recipe` of one of its methods raises an exception.
        """
        return self._recipe

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        if self.fault is not None:
            return self._faulty_recipe()
        protocol = self.protocol.model_dump(exclude={"name", "arch", "surrogate", "precision"})
        if self.victim.reads is not None:
            entering = {*self.victim.reads, *MEASURES}
            protocol = {key: protocol[key] for key in protocol if key in entering}
        if "alternate" in protocol:
            protocol["alternate"] &= protocol["flip"]
        for name, neutral in LATER_FIELDS.items():
            if protocol.get(name) == neutral:
                del protocol[name]
        with blamed(self.defense, "recipe"):
            options = {**self.defense.recipe()}
        options.pop("times_epochs", None)  # the protocol's epochs say it
        clean = self.poison.is_clean
        return {
            "what": "cell",
            "trainer": TRAINER_VERSION,
            "poison": {"dataset": self.poison.dataset.fingerprint}
            if clean
            else self.poison.recipe(),
            "ratio": 0.0 if clean else self.ratio,
            "classes": [] if clean else list(self.classes),
            "defense": self.defense.info.name,
            "version": self.defense.version,
            "options": options,
            **network_recipe(self.arch, self.poison.dataset.shape),
            "protocol": protocol,
            "precision": self.precision,
            "seed": self.seed,
            **source_of(self.defense),
            **self._victim_recipe(),
            **self._ratio_seed(),
        }

    def _victim_recipe(self) -> dict[str, Any]:
        """Return what the recipe holds of the victim; nothing of supervised training."""
        if self.victim == SUPERVISED:
            return {}
        with blamed(self.victim, "recipe"):
            options = self.victim.recipe()
        return {
            "victim": self.victim.info.name,
            "victim_version": self.victim.version,
            "victim_options": options,
            **{f"victim_{name}": value for name, value in source_of(self.victim).items()},
        }

    def _faulty_recipe(self) -> dict[str, Any]:
        """Return a recipe for a cell that cannot be computed, without calling its methods.

        It gives the cell a key of its own in tables and run.json; nothing is stored under that key.
        """
        return {
            "what": "fault",
            "poison": {"dataset": self.poison.dataset.fingerprint, "seed": self.poison.seed},
            "ratio": self.ratio,
            "classes": list(self.classes),
            "methods": [[type(m).__module__, m.info.name, repr(m)] for m in self.methods],
            "arch": self.arch,
            "epochs": self.protocol.epochs,
            "seed": self.seed,
        }

    def _ratio_seed(self) -> dict[str, int]:
        """Return the seed that draws the poisoned share, if the poison's recipe does not hold it.

        The recipe of an imported poison is its content, which no seed changes.
        """
        draws = isinstance(self.poison.attack, ImportedPoison) and 0 < self.ratio < 1
        return {"ratio_seed": self.poison.seed} if draws else {}

    @cached_property
    def key(self) -> str:
        """The cell's key in the store."""
        return key_of(self._recipe)

    @cached_property
    def recipe_key(self) -> str:
        """The key without the seeds. Tables average the cells that share it."""
        return seedless_key(self._recipe)

    def ball(self) -> tuple[Norm, float]:
        """Return the norm and radius of the ball in which robust accuracy is measured."""
        return self.defense.ball() or self._half_budget()

    def _half_budget(self) -> tuple[Norm, float]:
        norm, eps = self._budget.ball
        return norm, eps / 2

    @property
    def _budget(self) -> Budget:
        """The poison's budget; on clean data, the one that stands in for it."""
        if self.poison.is_clean:
            return Budget(*CLEAN_BALL)
        return self.poison.attack.budget(self.poison.dataset.shape)

    def ball_note(self) -> dict[str, str]:
        """Return a note for the record where half of the budget is only that of clean data.

        This concerns cells that use a radius (adversarial training, robust accuracy) and whose
        poison is bounded in pixels or not at all.
        """
        tied = self.defense.ball() is not None or self.protocol.robust
        norm, radius = self.ball()
        in_pixels = self._budget.norm in ("linf", "l2")
        if not tied or in_pixels or self.ball() != self._half_budget():
            return {}
        half = f"{255 * radius:g}/255" if norm == "linf" else f"{radius:g}"
        bound = "has no single bound" if self.poison.parts else "has no bound"
        bound = bound if self._budget.norm == "none" else "counts pixels"
        note = f"{half} in {norm}, as on clean data: the poison's budget {bound}"
        return {"half_budget": note}

    def describe(self) -> str:
        """Return a short description for progress lines and messages."""
        victim = "" if self.victim == SUPERVISED else f", {self.victim_spec}"
        return f"{self.attack_spec} x {self.defense_spec}{victim}, seed {self.seed}"

    @property
    def attack_spec(self) -> str:
        """The attack as a user would type it, such as `em[eps=16/255]`."""
        return format_spec(self.poison.attack.info.name, self.attack_options)

    @property
    def defense_spec(self) -> str:
        """The defense as a user would type it."""
        return format_spec(self.defense.info.name, self.defense_options)

    @property
    def victim_spec(self) -> str:
        """The victim as a user would type it."""
        return format_spec(self.victim.info.name, self.victim_options)

    @property
    def methods(self) -> list[Method]:
        """The cell's attack, its defense and, unless it is supervised, its victim."""
        methods: list[Method] = [self.poison.attack, self.defense]
        return methods if self.victim == SUPERVISED else [*methods, self.victim]

    @property
    def all_methods(self) -> list[Method]:
        """All methods whose code takes part: also the attacks of a mixture."""
        return [*self.methods, *mixed(self.poison.attack)[1:]]

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which another process can build the same cell."""
        return {
            "dataset": asdict(self.poison.dataset),
            "attack": [self.poison.attack.info.name, self.poison.attack.options()],
            "poison_seed": self.poison.seed,
            "crafted_on": self.poison.crafted_on,
            "ratio": self.ratio,
            "classes": list(self.classes),
            "defense": [self.defense.info.name, self.defense.options()],
            "arch": self.arch,
            "protocol": self.protocol.model_dump(),
            "precision": self.precision,
            "seed": self.seed,
            "victim": [self.victim.info.name, self.victim.options()],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Cell:
        """Return the cell that `to_json` describes."""
        shape = cast(tuple[int, int, int], tuple(data["dataset"]["shape"]))
        names = tuple(data["dataset"]["class_names"])
        dataset = DatasetRef(**{**data["dataset"], "shape": shape, "class_names": names})
        attack = build("attack", Spec(*data["attack"]))
        share = data["crafted_on"]
        crafted_on = None if share is None else Share(share[0], tuple(share[1]))
        return Cell(
            PoisonRef(dataset, attack, data["poison_seed"], data["precision"], crafted_on),
            data["ratio"],
            tuple(data["classes"]),
            build("defense", Spec(*data["defense"])),
            data["arch"],
            Protocol.model_validate(data["protocol"]),
            data["precision"],
            data["seed"],
            victim=build("victim", Spec(*data["victim"])),
        )


def seedless_key(recipe: Mapping[str, Any]) -> str:
    """Return the hash of a cell's recipe without its seeds."""
    rest = {k: v for k, v in recipe.items() if k not in ("seed", "ratio_seed")}
    rest["poison"] = {k: v for k, v in rest["poison"].items() if k != "seed"}
    return key_of(rest)
