"""A results folder, read for reports: its cells, records, poisons and pictures.

Only `cells.csv` is required. A folder of an older version has no records and no pictures; `gaps`
lists what is missing in sentences for the reader of a report.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image, UnidentifiedImageError

from ..common.errors import UserError
from ..common.json_file import RUN
from ..common.text import CAPTION, distinct_titles, one_line
from .cells import read_cells
from .confusion import ConfusionMatrix
from .detection import DETECTION, Detection, read_detection
from .groups import CellRow
from .records import CellRecord, RunFacts, read_records, read_run
from .words import Titles

RESULT_FILES = (
    "cells.csv",
    RUN,
    "leaderboard.csv",
    "leaderboard.tex",
    "leaderboard.md",
    "table.csv",
    "table.tex",
    "table.md",
    "records.json",
    DETECTION,
    "index.html",
)
"""The files that a run writes, some of them only if there is something to write."""
PICTURES_FOLDER = "pictures"
_WRITTEN = re.compile(
    rf"({'|'.join(map(re.escape, RESULT_FILES))})"
    # what a killed run left inside, of this version and of older ones
    rf"|\.({'|'.join(map(re.escape, RESULT_FILES))})\.(.+\.)?(tmp|part(\.\w+)?)"
    rf"|{PICTURES_FOLDER}/(.+-[0-9a-f]{{8}}\.png|\..+\.part(\.\w+)?)"
)
LARGEST_PICTURE = 2**20
"""In bytes; a larger file is not a picture that a run wrote."""
NO_RECORD = CellRecord()


class Picture(NamedTuple):
    """A poison's picture: the bytes of a PNG, and the contents of its caption."""

    png: bytes
    width: int
    height: int
    classes: tuple[str, ...] = ()
    factor: float | None = None
    why: str = ""


def picture_name(attack: str, key: str) -> str:
    """Return the file name of a poison's picture: the attack and the first digits of the key."""
    letters = re.sub(r"[^A-Za-z0-9]+", "-", attack).strip("-")
    return f"{letters}-{key[:8]}.png"


def is_result(name: str) -> bool:
    """Return whether a run writes a file of this path in its folder; others are the user's."""
    return _WRITTEN.fullmatch(name) is not None


@dataclass(frozen=True, eq=False)
class Results:
    """The contents of a results folder."""

    folder: Path
    cells: pd.DataFrame
    run: RunFacts = field(default_factory=RunFacts)
    records: Mapping[str, CellRecord] = field(default_factory=dict)
    """By the cell's key."""
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    """By the first eight digits of the poison's key."""
    titles: Titles = field(default_factory=dict)
    detection: Sequence[Detection] = ()

    def record(self, key: str) -> CellRecord:
        """Return a cell's record, an empty one if the folder has none."""
        return self.records.get(key, NO_RECORD)

    def first_confusion(self, runs: Iterable[CellRow]) -> ConfusionMatrix:
        """Return the confusion matrix of the first finished run that has one, else an empty one."""
        matrices = (self.record(run["key"]).confusion for run in runs if run["status"] == "ok")
        return next(filter(None, matrices), NO_RECORD.confusion)

    def options(self, key: str, kind: str) -> Mapping[str, Any]:
        """Return the resolved options of a cell's attack or defense; none if unknown."""
        recipe = self.run.recipes.get(key, {})
        place = recipe.get("poison", {}) if kind == "attack" else recipe
        options = place.get("options", {}) if isinstance(place, dict) else {}
        return options if isinstance(options, dict) else {}

    @cached_property
    def poisons(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """The poisons' keys and measurements by their sha256, which cells.csv has."""
        others = [(str(poison.get("key", "")), poison) for poison in self.run.other_poisons]
        return {
            str(poison["sha256"]): (key, poison)
            for key, poison in (*self.run.poisons.items(), *others)
            if poison.get("sha256")
        }

    @cached_property
    def cells_with_chance(self) -> pd.DataFrame:
        """The cells, with the chance of those of older versions, which did not write it.

        It follows from their confusion matrices.
        """
        chances = {key: record.confusion.chance for key, record in self.records.items()}
        from_records = self.cells["key"].map(chances).astype("float64")
        return self.cells.assign(chance=self.cells["chance"].fillna(from_records))

    def class_names(self, dataset: str, k: int) -> list[str]:
        """Return the names of `k` classes; numbers where they are unknown."""
        known = self.run.datasets.get(dataset)
        names = known.class_names if known else []
        return names if len(names) == k else [str(i) for i in range(k)]

    @cached_property
    def gaps(self) -> list[str]:
        """One sentence for each thing that the folder lacks, and how to get it."""
        finished = self.cells[self.cells["status"] == "ok"]
        lacking = [key for key in finished["key"] if key not in self.records]
        sentences = []
        if not self.run.command and not self.run.recipes:
            sentences.append("There is no run.json: commands, versions and options are unknown.")
        if lacking:
            sentences.append(
                f"{len(lacking)} of {len(finished)} trained models have no entry in records.json: "
                "their curves and confusion matrices are missing."
            )
        poisons = [key for key in self.run.poisons if key[:8] not in self.pictures]
        if poisons:
            sentences.append(f"{len(poisons)} of {len(self.run.poisons)} poisons have no picture.")
        if sentences:
            sentences.append(
                "To add what is missing, run the command of run.json again with the same --out, on "
                "the machine with the store; nothing is computed twice."
            )
        return sentences


def read_results(path: Path | str, titles: Titles | None = None) -> Results:
    """Return the contents of a results folder; `titles` name what the folder has no titles for.

    Raises:
        NoCellsError: there is no such folder, or no cells.csv in it.
        ValueError: a file in it is not what a run writes.
    """
    folder = Path(path)
    if folder.name == "cells.csv" and folder.is_file():
        folder = folder.parent
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is not a directory; give the folder that `uebench run --out` wrote"
        )
    cells = read_cells(folder)
    if not len(cells):
        raise UserError(f"{folder / 'cells.csv'} has no rows; run some cells first")
    run = read_run(folder)
    known = {name: facts.title for name, facts in run.methods.items() if facts.title}
    return Results(
        folder,
        cells,
        run,
        read_records(folder / "records.json"),
        _pictures(folder / PICTURES_FOLDER, run),
        {**(titles or {}), **distinct_titles(known)},
        read_detection(folder),
    )


def _pictures(folder: Path, run: RunFacts) -> dict[str, Picture]:
    """Return the pictures of the run's poisons; files that are not PNGs are ignored."""
    pictures = {}
    for key in run.poisons:
        for path in sorted(folder.glob(f"*-{key[:8]}.png")) if key[:8].isalnum() else ():
            picture = _picture(path)
            if picture is not None:
                pictures[key[:8]] = picture
    return pictures


def _picture(path: Path) -> Picture | None:
    try:
        if path.stat().st_size > LARGEST_PICTURE:
            return None
        with Image.open(path, formats=["PNG"]) as image:
            width, height = image.size
            caption = str(image.info.get(CAPTION, ""))
        png = path.read_bytes()
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None
    try:
        facts = json.loads(caption)
        classes = tuple(one_line(str(name)) for name in facts["classes"])
        return Picture(png, width, height, classes, float(facts["factor"]), one_line(facts["why"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Picture(png, width, height)
