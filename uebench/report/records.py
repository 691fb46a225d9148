"""The other files of a results folder: `records.json`, the cells' whole records, and `run.json`.

`records.json` makes a folder self-sufficient: one line per finished cell with its curve, confusion
matrix and times, by key. Curves are stored by column, numbers with six significant digits and large
matrices in their sparse form; the contents of `run.json` (recipes, poisons, versions of the run)
are not repeated. Both files may come from a stranger, so they are checked when read; folders of
older versions lack some or all of it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema

from ..common.errors import UserError
from ..common.json_file import RUN, AbsentFileError, read_object, read_run_json
from ..common.text import one_line, plain_text, write_text
from .confusion import STORED_SCHEMAS, ConfusionMatrix

RECORDS_FORMAT = 1
ELSEWHERE = ("recipe", "reused")
"""Parts of the store's records that are in `run.json` already."""

# Strict, so that the readers accept what the JSON schemas accept: "0.5" is not a number.
_AS_WRITTEN = ConfigDict(frozen=True, strict=True, use_attribute_docstrings=True)

Series = list[float | None]
Accuracy = Annotated[float, Field(ge=0, le=1)] | None
Amount = Annotated[float, Field(ge=0)] | None
Count = Annotated[int, Field(ge=0)] | None


def _same_length(curve: dict[str, Series]) -> dict[str, Series]:
    """Return a curve if its columns have one value per epoch each."""
    if len({len(column) for column in curve.values()}) > 1:
        raise UserError("the columns of a curve must be of one length")
    if curve and None in curve.get("epoch", [None]):
        raise UserError("a curve needs its epochs")
    return curve


class CellRecord(BaseModel):
    """What was measured while one target model was trained; missing values are None or empty."""

    model_config = _AS_WRITTEN | ConfigDict(extra="allow", allow_inf_nan=False)

    test_acc: Accuracy = None
    """Accuracy on the test images after the last epoch."""
    test_acc_best: Accuracy = None
    """Accuracy on the test images after the best epoch, which is chosen by this very number."""
    best_epoch: Count = None
    train_acc: Accuracy = None
    """Accuracy on the training images, as the model was given them, after the last epoch."""
    n_train: Count = None
    n_test: Count = None
    train_seconds: Amount = None
    craft_seconds: Amount = None
    peak_memory_mb: Amount = None
    curve: Annotated[dict[str, Series], AfterValidator(_same_length)] = {}
    """By column: epoch, loss, lr, and accuracies; None at epochs without an evaluation."""
    confusion: Annotated[
        ConfusionMatrix,
        PlainValidator(ConfusionMatrix.read),
        WithJsonSchema({"anyOf": STORED_SCHEMAS}),
    ] = Field(default_factory=lambda: ConfusionMatrix.read([]))
    """Numbers of test images [k, k]: the row is the true class, the column the predicted one."""
    prepare_seconds: float | None = None
    images_per_second: float | None = None
    augment_share: float | None = None
    versions: dict[str, str] = {}
    sha256: SkipJsonSchema[str] = ""
    """Hash of the record as it stands in the file; not a part of the record itself."""
    half_budget: str = ""
    """What half of the poison's budget means for adversarial training, where it is no radius."""


class RecordsFile(BaseModel):
    """The contents of `records.json`: what was measured while each target model was trained."""

    model_config = _AS_WRITTEN

    format: Literal[1]
    records: dict[str, CellRecord]
    """By the cell's key."""


class DatasetFacts(BaseModel):
    """What `run.json` records about a data set."""

    model_config = _AS_WRITTEN

    class_names: list[str] = []
    fingerprint: str = ""
    shape: list[int] = []


class MethodFacts(BaseModel):
    """A method's title in tables, the paper or page it comes from, and where its code came from."""

    model_config = _AS_WRITTEN

    title: str = ""
    source: str = ""
    origin: Annotated[str, AfterValidator(plain_text)] = ""
    """`file NAME`, `entry point NAME of PACKAGE VERSION` or `session`; empty for the suite's own,
    and in older results."""


class RunFacts(BaseModel):
    """The contents of `run.json`: how the results were computed, and on what."""

    model_config = _AS_WRITTEN

    command: list[Annotated[str, AfterValidator(plain_text)]] = []
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    seconds: float | None = None
    recipes: dict[str, dict[str, Any]] = {}
    """Everything that determines a cell's number, by the cell's key."""
    poisons: dict[str, dict[str, Any]] = {}
    """The recipe and the measurements of each poison, by its key in the store."""
    other_poisons: list[dict[str, Any]] = []
    """Poisons that have the recipe of one in `poisons`, but were crafted elsewhere, where reused
    cells were trained on them. Each is as in `poisons`, with its `key`."""
    reused: dict[str, dict[str, Any]] = {}
    """Where a cell's record was copied from, by the cell's key; cells computed by the run itself
    are left out."""
    failures: dict[str, dict[str, Any]] = {}
    datasets: dict[str, DatasetFacts] = {}
    methods: dict[str, MethodFacts] = {}


R = TypeVar("R", bound=BaseModel)


def write_records(path: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the cells' records from the store, by key; the file is replaced whole or not at all."""
    lines = [f"{json.dumps(key)}: {_text(_compact(each))}" for key, each in records.items()]
    body = ",\n".join(lines)
    write_text(path, f'{{"format": {RECORDS_FORMAT}, "records": {{\n{body}\n}}}}\n')


def read_records(path: Path) -> dict[str, CellRecord]:
    """Return the records by key, or none if there is no such file.

    Raises:
        UserError: The file is not one that a run writes.
    """
    try:
        read = read_object(path)
    except AbsentFileError:
        return {}
    if read.get("format") != RECORDS_FORMAT or not isinstance(read.get("records"), dict):
        raise UserError(
            f"{path} is not of format {RECORDS_FORMAT}, which is the one that this version reads; "
            "run the command of run.json again, or remove the file"
        )
    return {key: _record(each, path, key) for key, each in read["records"].items()}


def as_read(records: Mapping[str, Mapping[str, Any]]) -> dict[str, CellRecord]:
    """Return records from the store, by key, as `read_records` returns them once written."""
    return {key: _record(_compact(each), Path("the store"), key) for key, each in records.items()}


def origin_in_words(origin: Mapping[str, Any]) -> str:
    """Return where a record was copied from, as cells.csv and tables say it; empty for none."""
    if not origin:
        return ""
    commit = str(origin.get("commit") or "")[:10]
    facts = (commit and f"commit {commit}", origin.get("machine"), origin.get("date"))
    inside = ", ".join(one_line(str(fact)) for fact in facts if fact)
    return one_line(str(origin.get("folder", ""))) + (f" ({inside})" if inside else "")


def folder_of(origin: str) -> str:
    """Return the folder that a text of `origin_in_words` names, without what is known of it."""
    return one_line(origin.partition(" (commit ")[0])


def record_sha256(record: Mapping[str, Any]) -> str:
    """Return the hash that a record from the store has in `records.json`."""
    return _sha256(_compact(record))


def read_run(folder: Path, needed: tuple[str, ...] = ()) -> RunFacts:
    """Return the contents of a folder's `run.json`, empty ones if the file is missing.

    Raises:
        UserError: The file is not one that a run writes, or lacks one of the `needed` names.
    """
    try:
        contents = read_run_json(folder, needed)
    except AbsentFileError:
        if needed:
            raise
        contents = {}
    return _checked(RunFacts, contents, folder / RUN, "")


def _record(compact: Any, path: Path, key: str) -> CellRecord:
    record = _checked(CellRecord, compact, path, key)
    return record.model_copy(update={"sha256": _sha256(compact)})


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


def _text(compact: Mapping[str, Any]) -> str:
    return json.dumps(compact, separators=(",", ":"))


def _sha256(compact: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(compact).encode()).hexdigest()


def _compact(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its curve by column, its numbers rounded and its matrix packed."""
    compact = {key: value for key, value in record.items() if key not in ELSEWHERE}
    rows = compact.get("curve") or []
    names = dict.fromkeys(name for row in rows for name in row)
    compact["curve"] = {name: [row.get(name) for row in rows] for name in names}
    if "confusion" in compact:  # a store may hold nested lists of older versions
        compact["confusion"] = ConfusionMatrix.read(compact["confusion"]).stored()
    short: dict[str, Any] = _short(compact)
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
