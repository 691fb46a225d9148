"""A cell: one trained target model. What it is, its keys, and how it is computed.

A key is the hash of everything that changes the cell's number, recipe versions too, and of nothing
else: not paths, workers or the device.
"""

from __future__ import annotations

import hashlib
import inspect
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from .api import Attack, Defense, Method, Run
from .data.dataset import Dataset
from .data.split import Split
from .imported import ImportedPoison, imported_recipe
from .poison import Norm, Poison, poisoned, tensors_sha256
from .protocol import Protocol
from .registry import find
from .robust import ball_of, robust_record
from .spec import format_spec
from .store import Store, key_of, seed_of
from .trainer import train_model

TRAINER_VERSION = 1
"""Raised when the trainer's numbers change, which makes every stored cell stale."""

CRAFTER_VERSION = 2
"""Raised when the way changes that all poisons are seeded, quantised or audited."""

LATER_FIELDS = {"compile": False, "robust": False}
"""Fields of the protocol that came later, with the values that change no number: at these they stay
out of the key, which is then what it was before."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class DatasetRef:
    """A data set by content: what a worker needs to fetch it from the store."""

    name: str
    fingerprint: str
    n_classes: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()


class Share(NamedTuple):
    """Which training images are poisoned: a share of all, and of some classes or of all."""

    ratio: float = 1.0
    classes: tuple[int, ...] = ()
    """Labels; empty: all."""

    def chosen(self, labels: Tensor, fingerprint: str, seed: int) -> Tensor:
        """Return bool [n]: the images that are poisoned.

        The share is a random draw from the data set and the poison seed; it does not depend on the
        attack, the defense or the training seed, and a larger share contains every smaller one.
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
    """A poison by recipe: the attack with everything resolved, its seed and the data set."""

    dataset: DatasetRef
    attack: Attack
    seed: int
    precision: Literal["fp32", "bf16"]
    crafted_on: Share | None = None
    """The images that the attack is given; none: all, of which the poisoned ones are selected."""

    @property
    def rng_seed(self) -> int:
        """What the attack's generator starts from.

        Options do not enter it: two budgets of one attack start from the same network, or kernels,
        and differ by the budget alone.
        """
        return seed_of("poison", self.attack.info.name, self.dataset.fingerprint, self.seed)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is perturbed."""
        return self.attack.info.name == "none"

    def recipe(self) -> dict[str, Any]:
        """Return everything that changes the poison; of an imported one, its content alone."""
        if isinstance(self.attack, ImportedPoison):
            return imported_recipe(self.dataset.fingerprint, self.attack.sha256)
        return {
            "what": "poison",
            "crafter": CRAFTER_VERSION,
            "dataset": self.dataset.fingerprint,
            "attack": self.attack.info.name,
            "version": self.attack.version,
            "options": self.attack.recipe(),
            "seed": self.seed,
            "precision": self.precision,
            **({"crafted_on": list(self.crafted_on)} if self.crafted_on else {}),
            **source_of(self.attack),
        }

    @property
    def key(self) -> str:
        """The poison's key in the store."""
        return key_of(self.recipe())


@dataclass(frozen=True)
class Cell:
    """One trained target model: dataset x ratio x attack x defense x arch x protocol x seed."""

    poison: PoisonRef
    ratio: float
    classes: tuple[int, ...]
    """Labels whose images are poisoned; empty: all."""
    defense: Defense
    arch: str
    protocol: Protocol
    precision: Literal["fp32", "bf16"]
    seed: int
    attack_options: str = ""
    """What was asked of the attack, as tables print it; what came of it is in the recipe."""
    defense_options: str = ""
    """What was asked of the defense, likewise."""

    def recipe(self) -> dict[str, Any]:
        """Return everything that changes the cell's number."""
        protocol = self.protocol.model_dump(exclude={"name", "arch", "surrogate", "precision"})
        for name, neutral in LATER_FIELDS.items():
            if protocol[name] == neutral:
                del protocol[name]
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
            "options": self.defense.recipe(),
            "arch": self.arch,
            "protocol": protocol,
            "precision": self.precision,
            "seed": self.seed,
            **source_of(self.defense),
            **self._ratio_seed(),
        }

    def _ratio_seed(self) -> dict[str, int]:
        """Return the seed that draws the share, where it is not in the poison's recipe."""
        draws = isinstance(self.poison.attack, ImportedPoison) and 0 < self.ratio < 1
        return {"ratio_seed": self.poison.seed} if draws else {}

    @property
    def key(self) -> str:
        """The cell's key in the store."""
        return key_of(self.recipe())

    def ball(self) -> tuple[Norm, float]:
        """Return norm and radius of the ball that robust accuracy is measured in."""
        if self.poison.is_clean:
            return ball_of(self.defense)
        return ball_of(self.defense, *self.poison.attack.budget(self.poison.dataset.shape))

    def describe(self) -> str:
        """Return the cell in a few words, for progress and messages."""
        attack = format_spec(self.poison.attack.info.name, self.attack_options)
        defense = format_spec(self.defense.info.name, self.defense_options)
        return f"{attack} x {defense}, seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which another process builds the same cell."""
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
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Cell:
        """Return the cell that `to_json` described."""
        shape = cast(tuple[int, int, int], tuple(data["dataset"]["shape"]))
        names = tuple(data["dataset"]["class_names"])
        dataset = DatasetRef(**{**data["dataset"], "shape": shape, "class_names": names})
        attack = cast(Attack, _method("attack", *data["attack"]))
        part = data["crafted_on"]
        crafted_on = None if part is None else Share(part[0], tuple(part[1]))
        return Cell(
            PoisonRef(dataset, attack, data["poison_seed"], data["precision"], crafted_on),
            data["ratio"],
            tuple(data["classes"]),
            cast(Defense, _method("defense", *data["defense"])),
            data["arch"],
            Protocol.model_validate(data["protocol"]),
            data["precision"],
            data["seed"],
        )


def source_of(method: Method) -> dict[str, str]:
    """Return the hash of a plug-in's source; a method of the suite has its version for that.

    A plug-in is edited and run again under one name and version, and two authors may take the
    same name.
    """
    if method.info.origin in ("built-in", "imported"):
        return {}
    cls = type(method)
    try:
        module = inspect.getmodule(cls) if method.info.origin != "session" else None
        text = inspect.getsource(module or cls)
    except (OSError, TypeError):  # typed into an interpreter that keeps no source
        return {"source": f"{cls.__module__}.{cls.__qualname__}"}
    return {"source": hashlib.sha256(text.encode()).hexdigest()}


def _method(kind: Literal["attack", "defense"], name: str, options: dict[str, Any]) -> Any:
    """Return a method with all its options given."""
    return find(kind, name).model_validate(options)


def keep_dataset(store: Store, dataset: Dataset) -> None:
    """Put a data set into the store, where the workers find it."""
    if store.read("dataset", dataset.fingerprint) is None:
        tensors = {
            "train_images": dataset.train.images,
            "train_labels": dataset.train.labels,
            "test_images": dataset.test.images,
            "test_labels": dataset.test.labels,
        }
        record = {"name": dataset.name, "class_names": list(dataset.class_names)}
        store.write("dataset", dataset.fingerprint, record, tensors)


def fetch_dataset(store: Store, ref: DatasetRef) -> Dataset:
    """Return a data set from the store.

    Raises:
        LookupError: it is not there, or was spoiled; the run that planned it puts it back.
    """
    found = store.read("dataset", ref.fingerprint)
    if found is None:
        raise LookupError(f"data set {ref.name} is missing from the store; run the command again")
    tensors, record = found
    names = tuple(record["class_names"])
    return Dataset(
        ref.name,
        Split(tensors["train_images"], tensors["train_labels"], names),
        Split(tensors["test_images"], tensors["test_labels"], names),
        ref.fingerprint,
    )


def fetch_poison(
    store: Store,
    ref: PoisonRef,
    train: Split,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Poison:
    """Return a poison: from the store, or crafted and kept there.

    Raises:
        LookupError: it was imported, and the store has lost it.
    """
    if ref.is_clean:
        return Poison(train.images, train.labels, torch.arange(len(train)), {"sha256": ""})

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        if isinstance(ref.attack, ImportedPoison):
            raise LookupError(f"{ref.attack.info.name} is gone from the store; import it again")
        run = Run(
            shape=train.shape,
            n_classes=train.n_classes,
            seed=ref.rng_seed,
            device=device,
            precision=ref.precision,
            shared_seed=ref.seed,
            store=store,
            progress=progress,
        )
        start = time.perf_counter()
        if ref.crafted_on is None:
            poison = ref.attack.craft(train.to(device), run)
        else:
            mask = ref.crafted_on.chosen(train.labels, ref.dataset.fingerprint, ref.seed)
            rows = mask.nonzero().squeeze(1)
            poison = replace(ref.attack.craft(train.subset(rows).to(device), run), index=rows)
        tensors = {"images": poison.images, "labels": poison.labels, "index": poison.index}
        record = {
            **poison.meta,
            "recipe": ref.recipe(),
            "spec": str(ref.attack),
            "budget": ref.attack.budget(train.shape)._asdict(),
            "sha256": tensors_sha256(poison),
            "craft_seconds": time.perf_counter() - start,
            "peak_memory_mb": peak_memory_mb(device),
        }
        return tensors, record

    tensors, record = store.get_or_make("poison", ref.key, make)
    return Poison(tensors["images"], tensors["labels"], tensors["index"], record)


def poisoned_split(train: Split, poison: Poison, cell: Cell) -> Split:
    """Return the training set of which a share, or some classes, are poisoned.

    Images that the poison does not cover stay clean, and labels are those of the clean set.
    """
    share = Share(cell.ratio, cell.classes)
    fingerprint = cell.poison.dataset.fingerprint
    return poisoned(train, poison, share.chosen(train.labels, fingerprint, cell.poison.seed))


def compute(
    cell: Cell, store: Store, device: torch.device | str, progress: Progress | None = None
) -> dict[str, Any]:
    """Train a cell's model and keep its record in the store; return the record."""
    dataset = fetch_dataset(store, cell.poison.dataset)
    poison = fetch_poison(store, cell.poison, dataset.train, device, progress)
    data = poisoned_split(dataset.train, poison, cell)
    run = Run(
        shape=dataset.shape,
        n_classes=dataset.n_classes,
        seed=seed_of("train", cell.seed),
        device=device,
        epochs=cell.protocol.epochs,
        precision=cell.precision,
        store=store,
        progress=progress,
    )
    start = time.perf_counter()
    data = _prepared(cell, store, data, run).to(device)
    prepare_seconds = time.perf_counter() - start
    trained = train_model(
        data, dataset.test.to(device), cell.arch, cell.protocol, cell.defense, run
    )
    judged = {}
    if cell.protocol.robust:
        norm, radius = cell.ball()
        judged = robust_record(trained.model, dataset.test.to(device), norm, radius, run)
    record = {
        **run.notes,
        **trained.record,
        **judged,
        "prepare_seconds": prepare_seconds,
        "peak_memory_mb": peak_memory_mb(device),
        "device": device_name(device),
        "poison_sha256": poison.meta["sha256"],
        "craft_seconds": poison.meta.get("craft_seconds", 0.0),
        "recipe": cell.recipe(),
        "versions": versions(),
    }
    store.write("cell", cell.key, record)
    return record


def _prepared(cell: Cell, store: Store, data: Split, run: Run) -> Split:
    """Return what the defense makes of the training set; kept where it asks for that."""
    if not cell.defense.keep_prepared:
        return cell.defense.prepare(data.to(run.device), run)
    recipe = cell.recipe()
    parts = ("poison", "ratio", "classes", "defense", "version", "options")
    key = key_of({"what": "prepared", **{part: recipe[part] for part in parts}})

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        made = cell.defense.prepare(data.to(run.device), run)
        return {"images": made.images.cpu(), "labels": made.labels.cpu()}, {
            "spec": str(cell.defense)
        }

    tensors, _ = store.get_or_make("prepared", key, make)
    return replace(data, images=tensors["images"], labels=tensors["labels"])


def peak_memory_mb(device: torch.device | str) -> float:
    """Return the most memory that was in use, in MB: the GPU's there, else the process's."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def device_name(device: torch.device | str) -> str:
    """Return `cpu`, or the GPU's name."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.device(device).type)


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    from . import __version__

    return {
        "uebench": __version__,
        "torch": torch.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
