"""Ask detectors whether a training set is poisoned: `detect`.

Each score is a record of the store, so that asking again costs nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cells.compute import device_name
from ..cells.config import checked_seeds
from ..cells.determinism import limited_by_poison, reproducibility
from ..cells.refusals import check_distinct
from ..common.errors import UserError
from ..common.provenance import provenance, versions
from ..common.spec import normalise, printable, split_specs
from ..data import Dataset
from ..data.foreign import Reading
from ..data.foreign.interpret import ContentKind, Rounding, Scale
from ..data.load import as_dataset
from ..data.poison import Poison, check_fits, n_changed, tensors_sha256
from ..data.split import Split
from ..execute.devices import usable_devices
from ..execute.progress import step_display
from ..learn.threads import one_thread
from ..methods.registry import methods
from ..methods.run import Run, ShowProgress
from ..store.store import Store, key_of, seed_of
from ..victims.detectors import (
    CHEAP,
    Detector,
    build_detector,
    check_detectable,
    detector_spec,
    divided,
)
from .import_poison import read_usable
from .single import craft


class Question(NamedTuple):
    """The suspect set, and where scores are computed and kept."""

    name: str
    poison: Poison
    dataset: Dataset
    device: str
    store: Store
    quiet: bool


def detect(
    poison: Poison | Path | str,
    dataset: Dataset | str,
    detectors: str | Iterable[str] = CHEAP,
    *,
    seeds: str | Sequence[int] = (0,),
    poison_seed: int = 0,
    protocol: str = "quick",
    kind: ContentKind = "auto",
    scale: Scale = "auto",
    rounding: Rounding = "round",
    key: str | None = None,
    device: str = "auto",
    store: Store | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return what detectors say about a training set: is it poisoned?

    The suspect set is what the poison holds. If it covers only some of the training images, the
    clean ones are left out.

    Args:
        poison: an attack such as `lsp`, `none` for the clean data, a released file or folder, or a
            `Poison`. A text with a dot or a slash before any bracket is a path.
        dataset: the clean data set, or its name.
        detectors: specs, as a list or separated by commas, such as `linear,two_layer[epochs=10]`.
        seeds: a list or a text such as `0,1,2` or `0-4`; each divides the images differently and
            starts from other weights.
        poison_seed: seed of the attack.
        protocol: the protocol whose surrogate network is the attack's default.
        kind: as for `import_poison`, like `scale`, `rounding` and `key`; for a file.
        scale: the value of white in the file.
        rounding: how fractional levels of the file become 8-bit.
        key: the name of the array, if the file has several.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        store: where poisons and scores are kept; by default `$UEBENCH_HOME` or the platform's cache
            folder.
        quiet: whether to hide progress.

    Returns:
        `suspect`, `dataset`, `images`, `images_changed`, `classes` of the data set, and
        `detectors`, a list with one entry per detector: means over the seeds (`score`,
        `train_score`, `chance`, `seconds`), `score_sd`, `threshold`, `threshold_source`, the
        verdict `poisoned` on the mean score, the share of seeds with that verdict (`flagged_share`;
        on clean data also `false_positive_rate`) and the `records`.

    Raises:
        UserError: a name, option or file is bad, or the set is too small or has one class.
        MethodError: the attack raised an exception or exceeded its budget.
    """
    asked, chosen = built_detectors(detectors), checked_seeds(seeds)
    device, store, loaded = usable_devices(device)[0], store or Store(), as_dataset(dataset)
    reading = Reading(kind, scale, rounding, key)
    how: dict[str, Any] = {"device": device, "store": store, "quiet": quiet}
    how |= {"seed": poison_seed, "protocol": protocol}
    name, suspect = _suspect(poison, loaded, reading, how)
    question = Question(name, suspect, loaded, device, store, quiet)
    with one_thread(device):
        return answer(question, asked, chosen)


def _suspect(
    poison: Poison | Path | str, dataset: Dataset, reading: Reading, how: dict[str, Any]
) -> tuple[str, Poison]:
    """Return the name and the images of a suspect set; an attack is crafted with `how`.

    Raises:
        PoisonError: it does not fit the data set, or its file cannot be used.
    """
    if isinstance(poison, Poison):
        check_fits(poison, dataset.train, dataset.name)
        return "a poison from Python", poison
    if _is_path(poison):
        return printable(Path(poison).name), read_usable(poison, dataset, reading)[0]
    if poison == "none":
        train = dataset.train
        return "none", Poison(train.images, train.labels, torch.arange(len(train)))
    return str(poison), craft(str(poison), dataset, **how)


def built_detectors(specs: str | Iterable[str]) -> list[Detector]:
    """Return the detectors that specs, as a list or separated by commas, describe.

    Raises:
        UserError: a name or an option is bad, a detector is named twice, or there is none.
    """
    specs = split_specs(specs) if isinstance(specs, str) else list(specs)
    detectors = [build_detector(spec) for spec in specs]
    check_distinct("detectors", specs, detectors)
    if not detectors:
        raise UserError("detectors names none; leave it out, or name at least one")
    return detectors


def _is_path(poison: Path | str) -> bool:
    """Return whether a file is meant, and not an attack.

    An attack's name has neither a dot nor a slash. A file or folder may have the name of an attack,
    which then needs a `./` before it.
    """
    if isinstance(poison, Path):
        return True
    name = poison.partition("[")[0]
    if any(mark in name for mark in "./\\"):
        return True
    return normalise(name) not in methods("attack") and Path(poison).exists()


def answer(
    question: Question, detectors: Sequence[Detector], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the answer of all detectors, computing the scores that the store lacks."""
    train = question.dataset.train
    data = Split(question.poison.images, question.poison.labels, train.class_names)
    check_detectable(data)
    clean = _aligned(train, question.poison.index)
    changed = n_changed(clean.images, data.images)
    is_clean = not changed and torch.equal(clean.labels, data.labels)
    sha256 = tensors_sha256(question.poison)
    data, clean = data.to(question.device), clean.to(question.device)
    answers = []
    for detector in detectors:
        records = []
        for seed in seeds:
            title = f"{detector_spec(detector)}, seed {seed}"
            with step_display(title, question.quiet) as show:
                records.append(_record(question, detector, seed, data, clean, sha256, show))
        answers.append(_summary(detector, records, is_clean))
    return {
        "suspect": question.name,
        "dataset": question.dataset.name,
        "images": len(data),
        "images_changed": changed,
        "classes": data.n_classes,
        "detectors": answers,
    }


def _aligned(train: Split, index: Tensor) -> Split:
    """Return the clean image of each image of a poison; they are not copied if all are meant."""
    return train if torch.equal(index, torch.arange(len(train))) else train.subset(index)


def _record(
    question: Question,
    detector: Detector,
    seed: int,
    data: Split,
    clean: Split,
    sha256: str,
    show: ShowProgress,
) -> dict[str, Any]:
    """Return a detector's record for one seed, from the store if it is there."""
    recipe = {
        "what": "detection",
        "detector": detector_spec(detector).partition("[")[0],
        "version": detector.version,
        "options": detector.recipe(data.shape),
        "dataset": question.dataset.fingerprint,
        "poison": sha256,
        "seed": seed,
    }
    target = ("detection", key_of(recipe))
    run = Run(
        shape=data.shape,
        n_classes=data.n_classes,
        seed=seed_of("detect", seed),
        device=question.device,
        store=question.store,
        progress=show,
        leads_to=target,
    )

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        start = time.perf_counter()
        suspect = divided(data, clean, run)
        scores = detector.score(suspect, run)
        return {}, {
            **_provenance(question, detector, recipe),
            "score": scores.held_out,
            "train_score": scores.train,
            "chance": scores.chance,
            "poisoned": detector.flags(scores.held_out, scores.chance),
            "n_train": len(suspect.fitted),
            "n_held_out": len(suspect.held_out),
            "seconds": time.perf_counter() - start,
        }

    record = question.store.get_or_make(*target, make)[1]
    run.forget_checkpoints()
    # The store names whose images were asked about first, which may have been another suspect.
    return {name: value for name, value in record.items() if name != "suspect"}


def _provenance(question: Question, detector: Detector, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says besides the measurement."""
    device, seed = question.device, recipe["seed"]
    return {
        "detector": detector_spec(detector),
        "suspect": question.name,
        "seed": seed,
        "threshold": detector.threshold,
        "device": device_name(device),
        "recipe": recipe,
        "versions": versions(),
        "provenance": provenance(
            device,
            seeds={"detector": seed},
            data=recipe["dataset"],
            poison=recipe["poison"],
        ),
        "determinism": limited_by_poison(
            reproducibility(device), question.poison.meta.get("determinism")
        ),
    }


def _summary(detector: Detector, records: list[dict[str, Any]], is_clean: bool) -> dict[str, Any]:
    """Return means over the seeds and the verdict on them."""

    def mean(name: str) -> float:
        return statistics.fmean(record[name] for record in records)

    flagged = statistics.fmean(detector.flags(r["score"], r["chance"]) for r in records)
    return {
        "detector": detector_spec(detector),
        "title": detector.title,
        "score": mean("score"),
        "score_sd": statistics.stdev(r["score"] for r in records) if len(records) > 1 else None,
        "train_score": mean("train_score"),
        "chance": mean("chance"),
        "threshold": detector.threshold,
        "threshold_source": detector.source,
        "poisoned": detector.flags(mean("score"), mean("chance")),
        "flagged_share": flagged,
        **({"false_positive_rate": flagged} if is_clean else {}),
        "seconds": mean("seconds"),
        "records": records,
    }
