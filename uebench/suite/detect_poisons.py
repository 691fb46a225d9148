"""Ask detectors about every poison of a run (`uebench run --detect`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ..cells.cell import PoisonRef
from ..cells.compute import fetch_poison
from ..cells.failure import Failure
from ..common.errors import MethodError, MissingError, UserError
from ..common.text import one_line
from ..data import Dataset
from ..learn.threads import one_thread
from ..report.detection import Detection
from ..victims.detectors import CHEAP, Detector, check_detectable
from .detect import Question, answer, built_detectors
from .matrix import Matrix

log = logging.getLogger(__name__)


def asked_detectors(detect: bool, specs: str | Sequence[str] | None) -> list[Detector]:
    """Return the detectors to ask about every poison; none without `detect`.

    Raises:
        UserError: a detector is unknown or has a bad option, or `detect` is missing.
    """
    if not detect:
        if specs is not None:
            raise UserError("--detectors belongs to --detect; add --detect, or leave it out")
        return []
    return built_detectors(CHEAP if specs is None else specs)


def check_all_detectable(matrix: Matrix) -> None:
    """Refuse data sets and poisons that no detector can judge, before anything is computed.

    Raises:
        UserError: one of them has too few images, or images of one class.
    """
    for dataset in matrix.datasets:
        train = dataset.train
        check_detectable(train)
        poisons = {c.poison.key: c.poison for c in matrix.cells if c.fault is None}
        for ref in poisons.values():
            if ref.crafted_on is None or ref.dataset.fingerprint != dataset.fingerprint:
                continue
            mask = ref.crafted_on.chosen(train.labels, dataset.fingerprint, ref.seed)
            try:
                check_detectable(train.subset(mask.nonzero().squeeze(1)))
            except UserError as error:
                raise UserError(
                    f"{ref.attack} is crafted on a share of the images alone: {error}; or leave "
                    "--detect or --craft-on out"
                ) from None


def detect_poisons(
    matrix: Matrix,
    failures: Mapping[str, Failure],
    detectors: Sequence[Detector],
    quiet: bool = True,
) -> list[Detection]:
    """Return what detectors say about the clean data and the poisons of a finished run.

    Each poison is judged as a whole, however small the share of it that cells are trained on.
    Each detector is fitted with the matrix's training seeds, and its scores are kept in the store.
    A poison that the store lacks, because the cells were reused, is crafted; one that cannot be
    crafted is left out, with a warning if no cell has failed for it.

    Args:
        matrix: the run.
        failures: what failed in it, by the key of the cell.
        detectors: who is asked.
        quiet: whether to hide progress.
    """
    failed = {cell.poison.key for cell in matrix.cells if cell.key in failures}
    rows = []
    for dataset in matrix.datasets:
        options = {
            cell.poison.key if not cell.poison.is_clean else "": (cell.poison, cell.attack_options)
            for cell in matrix.cells
            if cell.fault is None and cell.poison.dataset.fingerprint == dataset.fingerprint
        }
        for ref, attack_options in options.values():
            if ref.key in failed and not matrix.store.has("poison", ref.key):
                continue
            try:
                rows += _answers(matrix, dataset, ref, attack_options, detectors, quiet)
            except (MethodError, MissingError) as error:
                log.warning(
                    "detectors are not asked about %s: %s", ref.attack, one_line(str(error))
                )
    return rows


def _answers(
    matrix: Matrix,
    dataset: Dataset,
    ref: PoisonRef,
    attack_options: str,
    detectors: Sequence[Detector],
    quiet: bool,
) -> list[Detection]:
    device = matrix.devices[0]
    with one_thread(device):
        poison = fetch_poison(matrix.store, ref, dataset.train, device)
        question = Question(str(ref.attack), poison, dataset, device, matrix.store, quiet)
        answered = answer(question, detectors, matrix.config.seeds)
    return [
        Detection(
            dataset=dataset.name,
            attack=ref.attack.info.name,
            attack_options=attack_options,
            poison_seed=ref.seed,
            poison_sha256=poison.meta["sha256"],
            n_seeds=len(matrix.config.seeds),
            **{name: entry[name] for name in _OF_ANSWERS},
        )
        for entry in answered["detectors"]
    ]


_OF_ANSWERS = (
    *("detector", "score", "score_sd", "chance", "threshold", "poisoned", "flagged_share"),
    "seconds",
)
