"""What detectors said about the poisons of a run: `detection.csv`, and tables of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError
from ..common.text import one_line
from .cells import read_rows
from .groups import MethodSpec
from .layout import Layout, Shown, TableRow
from .words import CLEAN, Label, Titles, method_label, percent

DETECTION = "detection.csv"
"""The file in a results folder."""


class Detection(BaseModel):
    """A row of the file: one detector's answer on one poison, as means over its seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)
    dataset: str
    attack: str
    attack_options: str
    poison_seed: int
    poison_sha256: str
    detector: str
    score: float = Field(ge=0, le=1)
    score_sd: float | None = Field(ge=0, le=1)
    chance: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    poisoned: bool
    n_seeds: int = Field(ge=1)
    flagged_share: float = Field(ge=0, le=1)
    seconds: float = Field(ge=0)


def write_detection(rows: Sequence[Detection], folder: Path) -> None:
    """Write the file into a results folder, with scores in [0, 1]."""
    frame = pd.DataFrame([row.model_dump() for row in rows], columns=[*Detection.model_fields])
    frame.to_csv(folder / DETECTION, index=False, lineterminator="\n")


def read_detection(folder: Path) -> list[Detection]:
    """Return the rows of a results folder's file, none if it has no such file.

    Raises:
        UserError: the file is not one that a run wrote.
    """
    path = folder / DETECTION
    if not path.is_file():
        return []
    header, rows, lines = read_rows(path)
    detections = []
    for row, line in zip(rows, lines, strict=True):
        values: dict[str, Any] = dict(zip(header, map(one_line, row), strict=True))
        values["score_sd"] = values.get("score_sd") or None
        try:
            detections.append(Detection.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"{path}, line {line}: {'.'.join(map(str, first['loc']))}: {first['msg']}; run the "
                "command of run.json again with --detect"
            ) from None
    return detections


def detection_layouts(rows: Sequence[Detection], titles: Titles | None = None) -> list[Layout]:
    """Return a table for each data set: poisons in rows, detectors in columns."""
    return [
        _layout(dataset, [row for row in rows if row.dataset == dataset], titles or {})
        for dataset in dict.fromkeys(row.dataset for row in rows)
    ]


def _layout(dataset: str, rows: Sequence[Detection], titles: Titles) -> Layout:
    detectors = list(dict.fromkeys(row.detector for row in rows))
    poisons = list(dict.fromkeys((r.attack, r.attack_options, r.poison_seed) for r in rows))
    several = len({seed for _, _, seed in poisons}) > 1
    by_place = {(r.attack, r.attack_options, r.poison_seed, r.detector): r for r in rows}
    table_rows = []
    for attack, options, seed in sorted(poisons, key=lambda poison: poison[0] != "none"):
        spec = MethodSpec(attack, options)
        label = method_label(spec, titles, CLEAN)
        if several and not spec.is_clean:
            label = Label(f"{label}, seed {seed}")
        cells = tuple(_shown(by_place.get((attack, options, seed, each))) for each in detectors)
        table_rows.append(TableRow(label, cells, "clean" if spec.is_clean else "poison"))
    return Layout(
        caption=f"Detection on {one_line(dataset)}: correct answers on held-out images (%)",
        corner="attack",
        columns=tuple(Label(detector) for detector in detectors),
        rows=tuple(table_rows),
        note=_note(rows),
    )


def _shown(row: Detection | None) -> Shown:
    if row is None:
        return Shown("—")
    spread = "" if row.score_sd is None else percent(row.score_sd)
    return Shown(percent(row.score), spread, "poisoned" if row.poisoned else "")


def _note(rows: Sequence[Detection]) -> str:
    thresholds = {row.detector: row.threshold for row in rows}
    bounds = ", ".join(sorted({percent(value) for value in thresholds.values()}))
    n_seeds = max(row.n_seeds for row in rows)
    counted = f"means over {n_seeds} seeds" if n_seeds > 1 else "one seed each"
    clean = [row for row in rows if row.attack == "none"]
    wrong = [row.detector for row in clean if row.poisoned]
    sentences = [
        f"A set counts as poisoned if the score exceeds {bounds} % and what guessing reaches",
        f"Scores are {counted}",
    ]
    if clean:
        false = ", ".join(wrong) or "none"
        sentences.append(f"Detectors that call the clean data poisoned: {false}")
    return ". ".join(sentences) + "."
