"""The published JSON schemas say what the readers of records.json and run.json accept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.report.story import write_story
from uebench.report.records import read_records, read_run, write_records
from uebench.report.schema import FOLDER, schema_texts

FOLDERS = sorted(p.parent for p in (Path(__file__).parents[2] / "results").glob("*/cells.csv"))
KEY = "ab"
RECORD: dict[str, Any] = {"test_acc": 0.5, "n_test": 8, "confusion": [[3, 1], [3, 1]]}


def validator(file: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / f"{file}.schema.json").read_text()))


def test_shipped_schemas_are_those_of_the_models() -> None:
    shipped = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert shipped == schema_texts(), "run `python -m uebench.report.schema`"
    for name in shipped:
        Draft202012Validator.check_schema(json.loads(shipped[name]))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_results_conform_to_the_schemas(folder: Path) -> None:
    for file in ("run", "records"):
        validator(file).validate(json.loads((folder / f"{file}.json").read_text()))


def test_what_a_run_writes_conforms_to_the_schemas(tmp_path: Path) -> None:
    folder = write_story(tmp_path)
    sparse = {"data": [3, 1], "indices": [0, 1], "indptr": [0, 2, 2]}
    write_records(tmp_path / "large.json", {KEY: {"confusion": sparse}, "cd": {}})
    for file, path in (("run", folder / "run.json"), ("records", folder / "records.json")):
        validator(file).validate(json.loads(path.read_text()))
    validator("records").validate(json.loads((tmp_path / "large.json").read_text()))


def in_record(**values: Any) -> dict[str, Any]:
    return {"format": 1, "records": {KEY: RECORD | values}}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("records", {"format": 2, "records": {}}),
        ("records", {"format": 1}),
        ("records", {"format": 1, "records": {KEY: 3}}),
        ("records", in_record(test_acc=1.5)),
        ("records", in_record(test_acc_best="0.5")),
        ("records", in_record(n_test=8.5)),
        ("records", in_record(train_seconds=-1)),
        ("records", in_record(confusion=[[-1]])),
        ("records", in_record(confusion={"data": [1], "indices": [0]})),
        ("records", in_record(curve={"epoch": ["1"]})),
        ("run", {"recipes": []}),
        ("run", {"datasets": {"x": {"class_names": [3]}}}),
        ("run", {"command": "uebench run"}),
    ],
)
def test_schema_and_reader_refuse_the_same_files(
    file: str, content: dict[str, Any], tmp_path: Path
) -> None:
    readers: dict[str, Callable[[], object]] = {
        "records": lambda: read_records(tmp_path / "records.json"),
        "run": lambda: read_run(tmp_path),
    }
    path = tmp_path / f"{file}.json"
    path.write_text(json.dumps(in_record() if file == "records" else {}))
    readers[file]()
    assert validator(file).is_valid(json.loads(path.read_text()))
    path.write_text(json.dumps(content))
    assert not validator(file).is_valid(content)
    with pytest.raises(ValueError, match=rf"{file}\.json"):
        readers[file]()
