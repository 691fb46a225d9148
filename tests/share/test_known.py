"""Cells of other folders are reused with their origin, and a wrong folder is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import uebench
from tests.share.conftest import OPTIONS, Change, changed, elsewhere, missed
from uebench.cli import main
from uebench.common.errors import ConflictError, UserError
from uebench.report import read_cells
from uebench.report.records import read_records
from uebench.share.bundle import publish
from uebench.share.known import agreeing_cells, results_folders
from uebench.share.validate import validate
from uebench.store.store import Store
from uebench.suite.verify import sampled


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def problems(folder: Path) -> list[str]:
    return [problem for finding in validate(folder) for problem in finding.problems]


def test_only_cells_that_no_folder_has_are_computed(folders: Path, tmp_path: Path) -> None:
    bundle = publish(folders / "seed0", tmp_path / "bundles" / "seed0", "MIT").parent
    out = tmp_path / "out"
    frame = uebench.run("none,lsp", "standard,iss", reuse=bundle, out=out, **OPTIONS)
    theirs, ours = read_cells(folders / "seed0"), read_cells(out)
    reused = ours[ours["origin"] != ""]
    assert list(ours["defense"][ours["origin"] == ""]) == ["iss", "iss"]
    own = [name for name in ours.columns if name not in ("origin", "record_sha256")]
    left, right = theirs[own].reset_index(drop=True), reused[own].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    origin = next(iter(reused["origin"]))
    assert origin.startswith(f"{bundle / 'seed0'} (commit ")
    run = json.loads((out / "run.json").read_text())
    published = read_records(bundle / "seed0/records.json")
    for key in reused["key"]:
        assert run["reused"][key]["record_sha256"] == published[key].sha256
        assert run["reused"][key]["date"]
        assert run["reused"][key]["machine"]
    assert set(run["reused"]) == set(reused["key"])
    sentence = f"2 of 4 models were taken from {origin}"
    for name in ("leaderboard.md", "leaderboard.tex", "index.html"):
        assert sentence.split(" (commit")[0][:40] in (out / name).read_text()
    assert origin in (out / "leaderboard.csv").read_text()
    assert problems(out) == []
    pictures = {path.name for path in (folders / "seed0" / "pictures").iterdir()}
    assert {path.name for path in (out / "pictures").iterdir()} == pictures != set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(tmp_path / "empty"))
        uebench.run("none,lsp", "standard", reuse=bundle, out=tmp_path / "new", **OPTIONS)
    assert {path.name for path in (tmp_path / "new" / "pictures").iterdir()} == pictures
    assert list(frame["origin"]) == list(ours["origin"])
    later = uebench.run("none,lsp", "standard", **OPTIONS)
    assert list(later["origin"]) == [origin, origin], "the store remembers where a record came from"


def test_a_dry_run_counts_reused_cells_and_writes_nothing(folders: Path) -> None:
    matrix = [
        "--attacks",
        "none,lsp",
        "--defenses",
        "standard,iss",
        "--dataset",
        OPTIONS["dataset"],
    ]
    training = ["--arch", OPTIONS["arch"], "--epochs", "1", "--set", "protocol.batch_size=16"]
    reuse = ["--reuse", str(folders / "seed0"), "--reuse", str(folders / "lr")]
    result = call("run", *matrix, *training, *reuse, "--device", "cpu", "--dry-run")
    assert result.exit_code == 0, result.output
    counted = " ".join(result.stdout.split())
    assert f"2 of 4 cells are reused: 2 from {folders / 'seed0'}" in counted
    assert "4 cells, 2 to do" in counted
    assert result.stdout.count(" reused ") >= 2
    assert not any((Store().base / "cell").glob("*"))


def test_a_poison_that_is_crafted_again_must_have_the_recorded_hash(
    folders: Path, tmp_path: Path
) -> None:
    other = "ab" * 32

    def record(entry: dict[str, Any]) -> None:
        entry["poison_sha256"] = entry["provenance"]["poison"] = other

    def run(content: dict[str, Any]) -> None:
        (poison,) = content["poisons"].values()
        poison["sha256"] = other

    source = changed(folders / "seed0", tmp_path / "elsewhere", record, run)
    out = tmp_path / "out"
    uebench.run("none,lsp", "standard,iss", reuse=[source], out=out, **OPTIONS)
    table = (out / "leaderboard.md").read_text()
    assert "| LSP (2 poisons) |" in table
    assert "The models on LSP were trained on 2 poisons of one recipe and seed" in table
    assert "LSP (2 poisons)" in (out / "index.html").read_text()
    content = json.loads((out / "run.json").read_text())
    (own,), (theirs,) = content["poisons"].values(), content["other_poisons"]
    assert theirs["sha256"] == other != own["sha256"]
    assert problems(out) == []


def newer(content: dict[str, Any]) -> None:
    content["versions"]["uebench"] = "99.0"


def other_recipe(content: dict[str, Any]) -> None:
    next(iter(content["recipes"].values()))["protocol"]["lr"] = 0.5


def too_accurate(record: dict[str, Any]) -> None:
    record["test_acc"] = record["test_acc_best"] = record["curve"]["test_acc"][-1] = 0.05


@pytest.mark.parametrize(
    ("record", "run", "file", "reason"),
    [
        (None, newer, "run.json", "written by uebench 99.0, which is newer than this one"),
        (None, other_recipe, "run.json", "is not the hash of its recipe"),
        (too_accurate, None, "records.json", "its confusion matrix gives another accuracy"),
    ],
)
def test_a_doctored_folder_is_refused_by_name(
    folders: Path,
    tmp_path: Path,
    record: Change | None,
    run: Change | None,
    file: str,
    reason: str,
) -> None:
    source = changed(folders / "seed0", tmp_path / "doctored", record, run)
    for verb in (["run", "--reuse"], ["table", str(folders / "seed1")]):
        result = call(*verb, str(source))
        assert result.exit_code == 2, result.output
        assert f"{source / file}" in result.stderr
        assert reason in result.stderr
    assert not any((Store().base / "cell").glob("*"))


def test_an_accuracy_of_cells_csv_alone_is_refused(folders: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(folders / "seed0", tmp_path / "doctored"))
    frame = read_cells(source)
    frame.loc[1, ["test_acc", "test_acc_best"]] = 0.95
    frame.to_csv(source / "cells.csv", index=False)
    with pytest.raises(UserError, match=r"lsp under standard, seed 0: its .* is 0.95, but"):
        agreeing_cells([source])


def test_a_path_without_results_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="and no folder in it has one"):
            results_folders([path])


def test_a_configuration_may_name_folders(tmp_path: Path) -> None:
    for value in ("absent", "[absent]"):
        (tmp_path / "mine.yaml").write_text(f"attacks: lsp\nreuse: {value}\n")
        result = call("run", str(tmp_path / "mine.yaml"), "--dry-run")
        assert result.exit_code == 2
        assert "absent has no cells.csv" in result.stderr


def test_records_of_one_key_must_agree_on_one_machine_type(folders: Path, tmp_path: Path) -> None:
    worse = changed(folders / "seed0", tmp_path / "worse", missed(1))
    with pytest.raises(ConflictError, match="1 conflict") as conflict:
        agreeing_cells([folders / "seed0", worse])
    text = str(conflict.value)
    for part in (str(folders / "seed0"), str(worse), "lsp x standard", "test_acc"):
        assert part in text
    result = call("table", str(folders / "seed0"), str(worse))
    assert result.exit_code == 1
    assert "lsp x standard" in result.stderr


def test_records_of_other_machine_types_must_agree_nearly(folders: Path, tmp_path: Path) -> None:
    near, far = missed(1), missed(3)

    def nearly(record: dict[str, Any]) -> None:
        near(record)
        elsewhere(record)

    def hardly(record: dict[str, Any]) -> None:
        far(record)
        elsewhere(record)

    def origins(content: dict[str, Any]) -> None:
        key = next(k for k, r in content["recipes"].items() if "what" in r["poison"])
        (origin,) = content["origins"]
        moved = json.loads(json.dumps(origin))
        moved["machine"]["cpu"], moved["cells"] = "another CPU", [key]
        origin["cells"].remove(key)
        content["origins"].append(moved)

    first = folders / "seed0"
    agreeing_cells([first, changed(first, tmp_path / "near", nearly, origins)])
    with pytest.raises(ConflictError, match="other machine: test_acc"):
        agreeing_cells([first, changed(first, tmp_path / "far", hardly, origins)])


def test_the_store_must_agree_with_the_folder(folders: Path, tmp_path: Path) -> None:
    worse = changed(folders / "seed0", tmp_path / "worse", missed(1))
    uebench.run("lsp", "standard", reuse=[worse], **OPTIONS)
    with pytest.raises(ConflictError, match="lsp x standard"):
        uebench.run("lsp", "standard", reuse=[folders / "seed0"], **OPTIONS)


def test_a_changed_origin_is_found(folders: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(folders / "seed0", tmp_path / "copy"))
    frame = read_cells(source)
    frame.loc[0, "origin"] = "somewhere"
    frame.to_csv(source / "cells.csv", index=False)
    assert any("its origin is 'somewhere'" in problem for problem in problems(source))


def test_reused_cells_can_be_recomputed_first() -> None:
    rows = [{"origin": "a" if n % 5 == 0 else "", "n": n} for n in range(40)]
    first = sampled(rows, 10, 0, reused_first=True)
    assert sum(row["origin"] == "a" for row in first) == 8
    assert first == sampled(rows, 10, 0, reused_first=True) != sampled(rows, 10, 1, True)


def test_a_published_command_can_be_pasted_into_a_shell(folders: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results"
    shutil.copytree(folders / "seed0", copy)
    run = json.loads((copy / "run.json").read_text())
    run["command"] = ["uebench", "run", "--attacks", "em[rounds=5]", "--out", "my results"]
    (copy / "run.json").write_text(json.dumps(run))
    readme = publish(copy, tmp_path / "bundle", "MIT") / "README.md"
    assert "uebench run --attacks 'em[rounds=5]' --out 'my results'" in readme.read_text()
    assert problems(tmp_path / "bundle") == []
