"""records.json and run.json: what is kept is read back, and what is no such file is refused."""

from pathlib import Path

import pytest

from tests.report.story import write_story
from uebench.report import read_results
from uebench.report.records import read_records, read_run, write_records

RECORD = {
    "curve": [
        {"epoch": 1, "loss": 2.3456789, "lr": 0.1},
        {"epoch": 2, "loss": float("nan"), "lr": 0.2, "test_acc": 1 / 3},
    ],
    "confusion": [[3, 1], [0, 4]],
    "images_per_second": 1234.56789,
    "versions": {"torch": "2.15"},
    "recipe": {"what": "cell"},
    "em_rounds": 7,
}


def test_a_record_is_written_compactly_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    write_records(path, {"ab": RECORD, "cd": {}})
    read = read_records(path)
    assert read["ab"].curve == {
        "epoch": [1, 2],
        "loss": [2.34568, None],
        "lr": [0.1, 0.2],
        "test_acc": [None, 0.333333],
    }
    assert read["ab"].confusion.dense().tolist() == [[3, 1], [0, 4]]
    assert read["ab"].model_dump()["em_rounds"] == 7, "what a method notes is kept too"
    assert "recipe" not in read["ab"].model_dump(), "run.json has it"
    assert read["cd"].curve == {}
    assert len(path.read_text().splitlines()) == 4, "a line a cell, for version control"
    assert read_records(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"format": 2, "records": {}}', "is not of format 1"),
        ('{"format": 1, "records": []}', "is not of format 1"),
        ('{"format": 1, "records": {"ab": 3}}', "ab is not what a run writes"),
        ('{"format": 1, "records": {"ab": {"curve": {"epoch": [1], "loss": []}}}}', "one length"),
        ('{"format": 1, "records": {"ab": {"curve": {"loss": [1]}}}}', "needs its epochs"),
        ('{"format": 1, "records": {"ab": {"confusion": [[1, 2]]}}}', "square"),
        ('{"format": 1, "records": {"ab": {"confusion": [[-1]]}}}', "ab.confusion.0.0"),
        ('{"format": 1, "records": {"ab": {"curve": {"epoch": [1], "loss": [NaN]}}}}', "loss"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_files_that_no_run_wrote_are_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"records\.json") as caught:
        read_records(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_run_json_may_lack_fields_but_not_have_wrong_types(tmp_path: Path) -> None:
    assert read_run(tmp_path).command == []
    (tmp_path / "run.json").write_text('{"poisons": {"ab": 3}}')
    with pytest.raises(ValueError, match=r"poisons\.ab is not what a run writes"):
        read_run(tmp_path)


def test_files_that_are_not_pictures_are_ignored(tmp_path: Path) -> None:
    folder = write_story(tmp_path)
    whole = read_results(folder).pictures
    assert all(picture.classes[0] == "cat" for picture in whole.values())
    first, second = sorted((folder / "pictures").iterdir())[:2]
    first.write_bytes(b"no picture")
    second.unlink()
    assert len(read_results(folder).pictures) == len(whole) - 2


@pytest.mark.parametrize("made", ["nothing", "file", "empty"])
def test_a_folder_without_results_is_refused(made: str, tmp_path: Path) -> None:
    path = tmp_path / "results"
    told = {"nothing": "no cells at", "file": "is not a directory", "empty": "has no rows"}[made]
    if made == "file":
        path.write_text("")
    if made == "empty":
        write_story(path)
        lines = (path / "cells.csv").read_text().splitlines(keepends=True)
        (path / "cells.csv").write_text(lines[0])
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        read_results(path)
