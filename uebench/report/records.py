"""What a results folder keeps beside the numbers: whole records of its cells, and `run.json`.

`records.json` makes a folder self-sufficient: curves, confusion matrices and times of each finished
cell by key, a line a cell. A curve is kept by column, numbers with six significant digits; what
`run.json` has (recipes, poisons, versions of the run) is not repeated. Both files may come from a
stranger: what is read is checked, and folders of older versions lack some or all of it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError
from ..common.json_file import RUN, AbsentFileError, read_object, read_run_json
from ..common.text import one_line, write_text

FORMAT = 1
ELSEWHERE = ("recipe",)
"""Parts of a store's record that `run.json` has."""

Series = list[float | None]


def _same_length(curve: dict[str, Series]) -> dict[str, Series]:
    """Return a curve whose columns have one value an epoch each."""
    if len({len(column) for column in curve.values()}) > 1:
        raise UserError("the columns of a curve must be of one length")
    if curve and None in curve.get("epoch", [None]):
        raise UserError("a curve needs its epochs")
    return curve


def _square(matrix: list[list[int]]) -> list[list[int]]:
    """Return a confusion matrix that is one."""
    if any(len(row) != len(matrix) for row in matrix):
        raise UserError("a confusion matrix must be square")
    return matrix


class CellRecord(BaseModel):
    """What was measured while one target model was trained; what is missing is None or empty."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    curve: Annotated[dict[str, Series], AfterValidator(_same_length)] = {}
    """By column: epoch, loss, lr, and accuracies; None where nothing was looked at."""
    confusion: Annotated[
        list[list[Annotated[int, Field(ge=0)]]], Field(max_length=2000), AfterValidator(_square)
    ] = []
    """Test images [k, k]: row true class, column predicted class."""
    prepare_seconds: float | None = None
    images_per_second: float | None = None
    augment_share: float | None = None
    versions: dict[str, str] = {}


class DatasetFacts(BaseModel):
    """What is known of a data set."""

    class_names: list[str] = []
    fingerprint: str = ""
    shape: list[int] = []


class MethodFacts(BaseModel):
    """How a method is called in tables, and where it comes from."""

    title: str = ""
    source: str = ""


class RunFacts(BaseModel):
    """What `run.json` tells of a run."""

    model_config = ConfigDict(frozen=True)

    command: list[str] = []
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    seconds: float | None = None
    recipes: dict[str, dict[str, Any]] = {}
    """Everything that made a cell's number, by the cell's key."""
    poisons: dict[str, dict[str, Any]] = {}
    """What was measured on each poison, by its key in the store."""
    failures: dict[str, dict[str, Any]] = {}
    datasets: dict[str, DatasetFacts] = {}
    methods: dict[str, MethodFacts] = {}


R = TypeVar("R", bound=BaseModel)


def write_records(path: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the store's records of cells by key, whole or not at all."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(_compact(record), separators=(',', ':'))}"
        for key, record in records.items()
    ]
    body = ",\n".join(lines)
    write_text(path, f'{{"format": {FORMAT}, "records": {{\n{body}\n}}}}\n')


def read_records(path: Path) -> dict[str, CellRecord]:
    """Return the records by key; none where there is no such file.

    Raises:
        ValueError: it is not what a run writes.
    """
    try:
        read = read_object(path)
    except AbsentFileError:
        return {}
    if read.get("format") != FORMAT or not isinstance(read.get("records"), dict):
        raise UserError(
            f"{path} is not of format {FORMAT}, which is the one that this version reads; "
            "run the command of run.json again, or remove the file"
        )
    return {key: _checked(CellRecord, each, path, key) for key, each in read["records"].items()}


def read_run(folder: Path, needed: tuple[str, ...] = ()) -> RunFacts:
    """Return what a folder's `run.json` tells; nothing where there is none and none is needed.

    Raises:
        ValueError: it is not what a run writes, or lacks a name that is needed.
    """
    try:
        told = read_run_json(folder, needed)
    except AbsentFileError:
        if needed:
            raise
        told = {}
    return _checked(RunFacts, told, folder / RUN, "")


def _checked(kind: type[R], value: Any, path: Path, key: str) -> R:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (*([key[:12]] if key else []), *first["loc"]))
        raise UserError(
            f"{path}: {one_line(place) or 'the whole'} is not what a run writes "
            f"({one_line(first['msg'])}); run again with the same --out, or remove the file"
        ) from None


def _compact(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its curve by column and its numbers short."""
    kept = {key: value for key, value in record.items() if key not in ELSEWHERE}
    rows = kept.get("curve") or []
    names = dict.fromkeys(name for row in rows for name in row)
    kept["curve"] = {name: [row.get(name) for row in rows] for name in names}
    short: dict[str, Any] = _short(kept)
    return short


def _short(value: Any) -> Any:
    """Return a value with floats of six significant digits, and None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_short(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
