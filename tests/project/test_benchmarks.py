"""Every benchmark runs in its smallest form; `gpu.py` runs on a stand-in for a GPU."""

import csv
import json
import runpy
import sys
from pathlib import Path

import pytest

from uebench.execute import devices
from uebench.testing import gpu_stand_in

ROOT = Path(__file__).parents[2]
DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
BOTH_LINEAR = ["--arch", "linear", "--theirs", "linear"]
SMALL = ["--arch", "resnet8[width=2]", "--rounds", "1"]


@pytest.fixture(autouse=True)
def _import_from_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    path = str(ROOT / "benchmarks" / script)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    runpy.run_path(path, run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("augment.py", ["--batch", "4", "--rounds", "1"], ["kornia", "uebench", "crop_flip"]),
        ("attacks.py", ["--images", "40", *SMALL], ["AR noise", "LSP noise", "EM", "plain way"]),
        (
            "table_cell.py",
            ["--images", "10", "--rounds", "1", "--protocol", "quick", *BOTH_LINEAR],
            ["theirs: linear", "ours: linear", "the hardest of 5", "93.4 printed", "times faster"],
        ),
        (
            "cell_profile.py",
            ["--images", "10", "--rounds", "1", "--arch", "linear", "--defenses", "standard,at"],
            ["at: ", "of the product's", "convolutions and products", "flushed to zero", "NCHW"],
        ),
        ("defenses.py", ["--batch", "4", "--epochs", "1", *SMALL], ["K = 5", "PGD-7", "JPEG"]),
    ],
)
def test_public_code_and_ours_are_timed(
    script: str,
    arguments: list[str],
    rows: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, script, *arguments)
    output = capsys.readouterr().out
    assert [row for row in rows if row not in output] == []


def test_agreement_of_two_results_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "agreement.py", str(ROOT / "results" / "cifar10-small-protocols"))
    output = capsys.readouterr().out
    sprint, paper = (
        f"cifar10-small-protocols, {name} epochs)" for name in ("sprint (16", "paper (60")
    )
    assert f"{paper} and {sprint}: 0.88 over 18 cells" in output, "as results/README.md has it"


@pytest.mark.slow
def test_gpu_script_measures_a_stand_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import uebench.suite.run  # noqa: F401 its modules take the true function, the script ours

    with gpu_stand_in() as device:
        monkeypatch.setattr(devices, "usable_devices", lambda _: [device])
        parts = ["--parts", "correct,speed", "--batch", "4", "--out", "made"]
        run(monkeypatch, "gpu.py", *parts, *SMALL)
    output = capsys.readouterr().out
    assert output.count(" ok\n") >= 15
    assert "PGD-7" in output
    figures = json.loads(Path("made/gpu.json").read_text())
    assert set(figures) == {"about", "correct", "speed"}
    assert set(figures["correct"].values()) == {0.0}, "the stand-in computes what the CPU computes"


def test_gpu_script_fills_part_of_table_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    what = ["--attacks", "none,lsp", "--defenses", "standard", "--protocol", "quick"]
    where = ["--device", "cpu", "--dataset", DATA, "--out", "made", "--jobs", "1"]
    run(monkeypatch, "gpu.py", "--parts", "machine,table", *what, *where, *SMALL)
    assert "| LSP |" in capsys.readouterr().out
    assert json.loads(Path("made/gpu.json").read_text())["table"] == {"cells": 2, "ok": 2}


def test_the_drivers_overhead_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "overheads.py", "--cells", "20", "--seeds", "1")
    output = capsys.readouterr().out
    assert "a tick with 20 waiting cells" in output
    assert "cell recipes: 4\npoison recipes: 2\ncell reads: 4\n" in output


def test_what_crafting_costs_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["p5", "tue", "hypo"]
    sizes = ["--searched", "20", "--cheap", "20"]
    run(monkeypatch, "craft_costs.py", "--dataset", DATA, *sizes, "--csv", "costs.csv", *names)
    rows = list(csv.DictReader(Path("costs.csv").read_text().splitlines()))
    assert [(row["attack"], row["passes"]) for row in rows] == [
        ("p5", "0"),
        ("tue", "0"),
        ("hypo", "250"),
    ]
    assert all(float(row["seconds"]) > 0 for row in rows)
