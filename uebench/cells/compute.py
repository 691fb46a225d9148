"""Compute a cell: read its data set, read or craft its poison, and train its target model."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..common.errors import MissingError
from ..common.provenance import provenance, versions
from ..data.dataset import Dataset, stored_dataset
from ..data.poison import Poison, measure, n_changed, poisoned, tensors_sha256
from ..data.split import Split
from ..methods.checked import prepared_by, trained_by
from ..methods.faults import blamed_for_its_code
from ..methods.imported import ImportedPoison
from ..methods.purified import PurifiedSet, read_purified
from ..methods.run import Run, ShowProgress
from ..methods.victim import Target
from ..report.confusion import ConfusionMatrix
from ..store.store import Store, key_of, seed_of
from ..victims.recovery import recovery_record
from ..victims.robust import robust_record
from .cell import Cell, DatasetRef, PoisonRef, Share
from .determinism import limited_by_poison, reproducibility


def fetch_dataset(store: Store, ref: DatasetRef) -> Dataset:
    """Return a data set from the store.

    Raises:
        MissingError: it is missing or corrupted; a run stores its data sets when it starts.
    """
    dataset = stored_dataset(store, ref.name, ref.fingerprint)
    if dataset is None:
        raise MissingError(f"data set {ref.name} is missing from the store; run the command again")
    return dataset


def fetch_poison(
    store: Store,
    ref: PoisonRef,
    train: Split,
    device: torch.device | str = "cpu",
    progress: ShowProgress | None = None,
) -> Poison:
    """Return a poison from the store, after crafting and storing it if it is missing.

    Raises:
        MissingError: it was imported, and is no longer in the store.
        MethodError: the attack raised an exception, or broke a rule of attacks.
    """
    if ref.is_clean:
        return Poison(train.images, train.labels, torch.arange(len(train)), {"sha256": ""})

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        if isinstance(ref.attack, ImportedPoison):
            raise MissingError(f"{ref.attack.info.name} is gone from the store; import it again")
        run = Run(
            shape=train.shape,
            n_classes=train.n_classes,
            seed=ref.rng_seed,
            device=device,
            precision=ref.precision,
            shared_seed=ref.seed,
            store=store,
            progress=progress,
            leads_to=("poison", ref.key),
            source=ref.recipe().get("source"),
        )
        runs.append(run)
        return _crafted(ref, train, run, device)

    if ref.parts:
        owners = ref.owners(train.labels)
        parts = [fetch_poison(store, part, train, device, progress) for part in ref.parts]
        return _poison_of(
            *store.get_or_make("poison", ref.key, lambda: _mixed(ref, parts, owners, train, device))
        )
    runs: list[Run] = []
    tensors, record = store.get_or_make("poison", ref.key, make)
    for run in runs:
        run.forget_checkpoints()
    return _poison_of(tensors, record)


def _poison_of(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Poison:
    return Poison(tensors["images"], tensors["labels"], tensors["index"], dict(record))


def _mixed(
    ref: PoisonRef,
    parts: Sequence[Poison],
    owners: Tensor,
    train: Split,
    device: torch.device | str,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put the poisons of a mixture together; return its tensors and the record to store with them.

    Raises:
        MethodError: the images exceed the budget that the parts have in common.
    """
    start = time.perf_counter()
    data, covered, summary = train, torch.zeros(len(train), dtype=torch.bool), []
    for number, (part, poison) in enumerate(zip(ref.parts, parts, strict=True)):
        own = owners == number
        data = poisoned(data, poison, own)
        own &= torch.isin(torch.arange(len(train)), poison.index)  # fewer where crafted on a subset
        covered |= own
        budget = part.attack.budget(train.shape)._asdict()
        facts = {"images": int(own.sum()), "poison": part.key, "sha256": poison.meta["sha256"]}
        summary.append({"attack": str(part.attack), "budget": budget, **facts})
    index = covered.nonzero()[:, 0]
    mixed = Poison(data.images[index], train.labels[index], index)
    measured = measure(train.images, mixed.images, index)
    ref.attack.budget(train.shape).check(measured, train.shape, str(ref.attack))
    seconds = time.perf_counter() - start + sum(p.meta.get("craft_seconds", 0.0) for p in parts)
    record = {**measured.record(), "parts": summary, **_record_of(ref, mixed, seconds, device)}
    for poison in parts:
        record["determinism"] = limited_by_poison(
            record["determinism"], poison.meta.get("determinism")
        )
    return {"images": mixed.images, "labels": mixed.labels, "index": index}, record


def _crafted(
    ref: PoisonRef, train: Split, run: Run, device: torch.device | str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Craft a poison; return its tensors and the record to store with them."""
    start = time.perf_counter()
    rows = None
    if ref.crafted_on is not None:
        mask = ref.crafted_on.chosen(train.labels, ref.dataset.fingerprint, ref.seed)
        rows = mask.nonzero().squeeze(1)
    data = train if rows is None else train.subset(rows)
    with blamed_for_its_code(ref.attack):
        poison = ref.attack.craft(data.to(device), run)
    if rows is not None:
        poison = replace(poison, index=rows)
    tensors = {"images": poison.images, "labels": poison.labels, "index": poison.index}
    seconds = time.perf_counter() - start
    return tensors, {**poison.meta, **_record_of(ref, poison, seconds, device)}


def _record_of(
    ref: PoisonRef, poison: Poison, seconds: float, device: torch.device | str
) -> dict[str, Any]:
    """Return what is recorded of a new poison in addition to its measurements."""
    return {
        "recipe": ref.recipe(),
        "spec": str(ref.attack),
        "budget": ref.attack.budget(ref.dataset.shape)._asdict(),
        "sha256": tensors_sha256(poison),
        "craft_seconds": seconds,
        "peak_memory_mb": peak_memory_mb(device),
        "device": device_name(device),
        "versions": versions(),
        "provenance": provenance(
            device,
            precision=ref.precision,
            seeds={"poison": ref.seed},
            data=ref.dataset.fingerprint,
        ),
        "determinism": reproducibility(device),
    }


def poisoned_split(train: Split, poison: Poison, cell: Cell) -> Split:
    """Return the training set with the cell's share of images, or of some classes, poisoned.

    Images that the poison does not cover stay clean, and all labels are those of the clean set.
    """
    share = Share(cell.ratio, cell.classes)
    fingerprint = cell.poison.dataset.fingerprint
    return poisoned(train, poison, share.chosen(train.labels, fingerprint, cell.poison.seed))


def compute(
    cell: Cell,
    store: Store,
    device: torch.device | str,
    progress: ShowProgress | None = None,
    keep_model: bool = False,
) -> dict[str, Any]:
    """Compute a cell, store its record, and return it; with `keep_model`, store its weights too.

    Raises:
        MethodError: one of its methods raised an exception, or broke a rule of methods.
    """
    dataset = fetch_dataset(store, cell.poison.dataset)
    poison = fetch_poison(store, cell.poison, dataset.train, device, progress)
    data = poisoned_split(dataset.train, poison, cell)
    run = training_run(cell, device, store, progress)
    weights: dict[str, Tensor] = {}
    trained = train_cell(cell, data, dataset, run, store, weights if keep_model else None)
    record = {
        **trained,
        "confusion": ConfusionMatrix.read(trained["confusion"]).stored(),
        "n_poisoned": n_changed(dataset.train.images, data.images),
        "peak_memory_mb": peak_memory_mb(device),
        "device": device_name(device),
        "poison_sha256": poison.meta["sha256"],
        "craft_seconds": poison.meta.get("craft_seconds", 0.0),
        "recipe": cell.recipe(),
        "versions": versions(),
        "provenance": provenance(
            device,
            precision=cell.precision,
            seeds={"training": cell.seed, "poison": cell.poison.seed},
            data=cell.poison.dataset.fingerprint,
            poison=poison.meta["sha256"],
        ),
        "determinism": limited_by_poison(reproducibility(device), poison.meta.get("determinism")),
    }
    if keep_model:
        # the record of an earlier training of the cell stays, so the model has its own
        store.write("model", cell.key, record, weights)
    store.write("cell", cell.key, record)
    run.forget_checkpoints()
    return record


def training_run(
    cell: Cell,
    device: torch.device | str,
    store: Store | None = None,
    progress: ShowProgress | None = None,
) -> Run:
    """Return the `Run` of a cell's training; without a store it keeps no checkpoints."""
    return Run(
        shape=cell.poison.dataset.shape,
        n_classes=cell.poison.dataset.n_classes,
        seed=seed_of("train", cell.seed),
        device=device,
        epochs=cell.protocol.epochs,
        precision=cell.precision,
        store=store,
        progress=progress,
        leads_to=("cell", cell.key) if store is not None else None,
        source=_own_code(cell.recipe()) if store is not None else None,
    )


def _own_code(recipe: Mapping[str, Any]) -> str | None:
    """Return a hash of the code of a cell's own methods; None if all are the suite's."""
    codes = [recipe[name] for name in ("source", "victim_source") if name in recipe]
    if len(codes) > 1:
        return key_of({"codes": codes})
    return codes[0] if codes else None  # what was kept for one of them keeps its key


def train_cell(
    cell: Cell,
    data: Split,
    dataset: Dataset,
    run: Run,
    store: Store | None = None,
    weights: dict[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Train and evaluate a cell's model; return its numbers and the notes of its methods.

    Args:
        cell: what to train.
        data: the training set, with the cell's poison applied.
        dataset: the clean data set, on whose test images the model is judged.
        run: the device, the randomness and the progress of this training.
        store: where to cache the training set that a defense prepared; by default nowhere.
        weights: a dictionary that gets the weights of the trained model, on the CPU.

    Raises:
        MethodError: the defense, or a victim from elsewhere, raised an exception.
    """
    start = time.perf_counter()
    test = dataset.test.to(run.device)
    with blamed_for_its_code(cell.defense):
        data = _prepared(cell, store, data, run).to(run.device)
        prepare_seconds = time.perf_counter() - start
        target = Target(cell.arch, cell.protocol, cell.defense, test, dataset.train)
        if cell.victim.info.origin == "built-in":
            trained = trained_by(cell.victim, data, target, run)
        else:
            with blamed_for_its_code(cell.victim):
                trained = trained_by(cell.victim, data, target, run)
    if weights is not None:
        # clones, since tensors that share memory cannot be written
        weights |= {k: v.cpu().contiguous().clone() for k, v in trained.model.state_dict().items()}
    on_request: dict[str, Any] = {}
    state = run.rng.get_state()
    if cell.protocol.robust:
        on_request |= robust_record(trained.model, test, *cell.ball(), run)
    if cell.protocol.recovery:
        run.rng.set_state(state)  # what it draws does not depend on what else is measured
        on_request |= recovery_record(trained.model, dataset.train.to(run.device), test, run)
    return {
        **run.notes,
        **trained.record,
        **on_request,
        **cell.ball_note(),
        "prepare_seconds": prepare_seconds,
    }


def _prepared(cell: Cell, store: Store | None, data: Split, run: Run) -> Split:
    """Return the defense's preprocessed training set, cached if `keep_prepared` is set."""
    if store is not None and isinstance(cell.defense, PurifiedSet):
        purified = read_purified(cell.defense, store, cell.poison.key)
        run.note(purified=purified.meta)
        return poisoned(data, purified)
    if store is None or not cell.defense.keep_prepared:
        return prepared_by(cell.defense, data.to(run.device), run)
    recipe = cell.recipe()
    parts = ["poison", "ratio", "classes", "ratio_seed", "defense", "version", "options"]
    parts += ["source", "precision"] if "source" in recipe else []
    key = key_of({"what": "prepared", **{part: recipe[part] for part in parts if part in recipe}})

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        prepared = prepared_by(cell.defense, data.to(run.device), run)
        tensors = {"images": prepared.images.cpu(), "labels": prepared.labels.cpu()}
        return tensors, {"spec": str(cell.defense)}

    tensors, _ = store.get_or_make("prepared", key, make)
    return replace(data, images=tensors["images"], labels=tensors["labels"])


def peak_memory_mb(device: torch.device | str) -> float:
    """Return the peak memory in MB of 2**20 bytes: of the GPU, or of this process on a CPU.

    A process that computes several cells reports the largest so far.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def device_name(device: torch.device | str) -> str:
    """Return `cpu`, or the GPU's name."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.device(device).type)
