"""report and plot on what a run left, also where the store is gone."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from uebench.cli import main
from uebench.report import read_results
from uebench.store.store import Store

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder of a small run, and the store that it was computed in."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("out") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(home))
        result = call("run", "--attacks", "none,lsp,lsp[eps=0.5]", "--defenses", "standard,iss",
                      "--dataset", DATA, "--arch", "resnet9[width=2]", "--epochs", 2,
                      "--device", "cpu", "--jobs", 1, "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    return out, home


def test_a_run_leaves_all_that_its_report_needs(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(made[0], folder)
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "nothing"))
    page = (folder / "index.html").read_text()
    (folder / "index.html").unlink()
    result = call("report", folder)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder / 'index.html'}\n"
    assert (folder / "index.html").read_text() == page.replace(">made<", ">moved<").replace(
        ">made ·", ">moved ·"
    )
    assert "What this folder does not tell" not in page, "nothing is missing"
    assert page.count("data:image/png;base64") >= 2 + 6, "two poisons and one matrix per cell"
    assert not (tmp_path / "nothing").exists()
    read = read_results(folder)
    assert len(read.records) == 6
    assert all(len(record.curve["loss"]) == 2 for record in read.records.values())
    assert read.run.datasets[read.cells["dataset"][0]].class_names
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"lsp-[0-9a-f]{8}\.png", name) for name in names)


def test_records_are_those_of_the_store(made: tuple[Path, Path]) -> None:
    folder, home = made
    kept = json.loads((folder / "records.json").read_text())["records"]
    for key, record in kept.items():
        found = Store(home).read("cell", key)
        assert found is not None
        assert record["confusion"] == found[1]["confusion"]
        rows = found[1]["curve"]
        assert record["curve"]["test_acc"] == pytest.approx([row["test_acc"] for row in rows])


def test_a_report_is_written_to_the_given_folder(made: tuple[Path, Path], tmp_path: Path) -> None:
    result = call("report", made[0] / "cells.csv", "--out", tmp_path / "a" / "b")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a/b/index.html").is_file()
    (tmp_path / "file").write_text("")
    for arguments in (["report"], ["plot", "--kind", "curves"]):
        refused = call(*arguments, made[0], "--out", tmp_path / "file" / "x")
        assert refused.exit_code == 2
        assert "cannot be written" in " ".join(refused.stderr.split())


def test_damaged_records_are_reported_in_one_sentence(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "spoiled"
    shutil.copytree(made[0], folder)
    (folder / "records.json").write_text('{"format": 1, "records": {"k": {"confusion": [[1, 2]]}}}')
    result = call("report", folder, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "must be square" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_plots_are_drawn_and_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    result = call("plot", made[0], "--kind", "curves", "--out", tmp_path / "plots")
    assert result.exit_code == 0, result.output
    named = [Path(line) for line in result.stdout.splitlines()]
    assert named == sorted((tmp_path / "plots").iterdir())
    assert {path.suffix for path in named} == {".pdf", ".png"}
    refused = call("plot", made[0], "--kind", "ratio", "--out", tmp_path / "none")
    assert refused.exit_code == 2
    assert "only one poisoned share" in " ".join(refused.stderr.split())
    assert not (tmp_path / "none").exists()


def test_examples_show_the_poisons_that_the_store_has(
    made: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, home = made
    monkeypatch.setenv("UEBENCH_HOME", str(home))
    result = call("plot", folder, "--kind", "examples", "--out", tmp_path / "with")
    assert result.exit_code == 0, result.output
    assert not caplog.messages
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "nothing"))
    bare = call("plot", folder, "--kind", "examples", "--out", tmp_path / "without")
    assert bare.exit_code == 0, bare.output
    assert "LSP is left out" in caplog.text
    sizes = [(tmp_path / name).glob("*.png") for name in ("with", "without")]
    assert next(sizes[0]).stat().st_size > next(sizes[1]).stat().st_size
    told = json.loads((folder / "run.json").read_text())
    shutil.copytree(folder, tmp_path / "other")
    told["datasets"][DATA]["fingerprint"] = "0" * 64
    (tmp_path / "other/run.json").write_text(json.dumps(told))
    refused = call("plot", tmp_path / "other", "--kind", "examples")
    assert refused.exit_code == 2
    assert "is not the data set of these results" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    "command", ["plot {} --kind curves --out fig.pdf", "report {} --out page.html"]
)
def test_a_file_name_for_a_folder_is_refused(
    command: str, made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*command.format(made[0]).split())
    assert result.exit_code == 2
    assert "is the name of a file, and a folder is written" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_notes_in_a_pipe_are_not_broken_into_lines(made: tuple[Path, Path]) -> None:
    result = call("table", made[0])
    note = next(line for line in result.stdout.splitlines() if "protocol" in line)
    assert "Accuracy after the last epoch" in note
    assert note.endswith("."), "the whole note is one line"
    assert len(note) > 160
