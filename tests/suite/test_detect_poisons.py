"""`uebench run --detect`: a table of attacks and detectors with the results."""

import csv
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import uebench
from uebench.cells.cell import PoisonRef
from uebench.cells.compute import fetch_poison
from uebench.cli import main
from uebench.common.errors import MethodError, UserError
from uebench.data.poison import Poison
from uebench.report import read_results
from uebench.report.detection import Detection, detection_layouts, read_detection
from uebench.store.store import Store
from uebench.suite import detect_poisons

DATA = "synthetic[n_train=300,n_test=20,n_classes=2,size=16]"
FAST = ("--dataset", DATA, "--epochs", "1", "--defenses", "standard")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.slow
def test_every_poison_and_the_clean_data_get_a_row_and_every_detector_a_column(
    tmp_path: Path,
) -> None:
    out = tmp_path / "results"
    command = ("run", *FAST, "--attacks", "none,ops,random_class[eps=4/255]", "--seeds", "0,1")
    detectors = "noise,edge_pixels"
    ran = call(*command, "--detect", "--detectors", detectors, "--out", str(out))
    assert ran.exit_code == 0, ran.output
    rows = read_detection(out)
    assert [(row.attack, row.attack_options, row.detector) for row in rows] == [
        (attack, options, detector)
        for attack, options in (("none", ""), ("ops", ""), ("random_class", "eps=4/255"))
        for detector in detectors.split(",")
    ]
    # the answers are those of `uebench detect`
    for row in rows:
        spec = f"{row.attack}[{row.attack_options}]" if row.attack_options else row.attack
        answer = uebench.detect(spec, DATA, row.detector, seeds=[0, 1])["detectors"][0]
        assert row.score == pytest.approx(answer["score"], abs=1e-12)
        assert row.poisoned == answer["poisoned"]
        assert row.n_seeds == 2
    verdicts = {(row.attack, row.detector): row.poisoned for row in rows}
    assert verdicts["random_class", "noise"]
    assert not verdicts["none", "noise"]
    text = " ".join(ran.stdout.split())
    assert "Detection on synthetic" in text
    assert "poisoned" in text
    page = (out / "index.html").read_text()
    assert 'id="detection"' in page
    assert "edge_pixels" in page
    assert call("report", str(out)).exit_code == 0
    assert 'id="detection"' in (out / "index.html").read_text()
    assert call("validate", str(out)).exit_code == 0
    assert call("publish", str(out), str(tmp_path / "bundle"), "--licence", "MIT").exit_code == 0
    assert read_detection(tmp_path / "bundle") == rows
    assert "detection.csv" in (tmp_path / "bundle" / "README.md").read_text()
    assert call("validate", str(tmp_path / "bundle")).exit_code == 0
    both = ("merge", str(tmp_path / "bundle"), str(out), "--out", str(tmp_path / "both"))
    assert call(*both).exit_code == 0
    assert read_detection(tmp_path / "both") == rows, "an answer of both folders is kept once"
    assert 'id="detection"' in (tmp_path / "both" / "index.html").read_text()


def test_the_poisons_of_reused_cells_are_crafted_for_the_detectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("run", *FAST, "--attacks", "none,ops", "--arch", "resnet9[width=2]")
    first = call(*command, "--out", str(tmp_path / "first"))
    assert first.exit_code == 0, first.output
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "elsewhere"))
    detect = ("--detect", "--detectors", "edge_pixels", "--out", str(tmp_path / "second"))
    second = call(*command, "--reuse", str(tmp_path / "first"), *detect)
    assert second.exit_code == 0, second.output
    assert [row.attack for row in read_detection(tmp_path / "second")] == ["none", "ops"]


def test_a_reused_poison_that_cannot_be_crafted_again_is_named_and_the_results_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = ("run", *FAST, "--attacks", "none,ops", "--arch", "resnet9[width=2]")
    assert call(*command, "--out", str(tmp_path / "first")).exit_code == 0
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "elsewhere"))

    def broken(store: Store, ref: PoisonRef, *rest: Any) -> Poison:
        if ref.is_clean:
            return fetch_poison(store, ref, *rest)
        raise MethodError("no pixel left")

    monkeypatch.setattr(detect_poisons, "fetch_poison", broken)
    detect = ("--detect", "--detectors", "edge_pixels", "--out", str(tmp_path / "second"))
    second = call(*command, "--reuse", str(tmp_path / "first"), *detect)
    assert second.exit_code == 0, second.output
    assert "detectors are not asked about ops: no pixel left" in caplog.text
    assert [row.attack for row in read_detection(tmp_path / "second")] == ["none"]


def test_without_the_flag_there_is_no_table(tmp_path: Path) -> None:
    out = tmp_path / "results"
    command = ("run", *FAST, "--attacks", "ops", "--out", str(out))
    assert call(*command, "--detect", "--detectors", "noise").exit_code == 0
    assert (out / "detection.csv").exists()
    ran = call(*command)
    assert ran.exit_code == 0
    assert "Detection" not in ran.stdout
    assert not (out / "detection.csv").exists()
    assert 'id="detection"' not in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--detectors", "noise"], "--detectors belongs to --detect"),
        (["--detect", "--detectors", "nois"], "did you mean noise"),
        (["--detect", "--detectors", ","], "detectors names none"),
        (
            ["--detect", "--dataset", "synthetic[n_train=20,n_test=20,n_classes=2,size=16]"],
            "20",
        ),
        (["--detect", "--craft-on", "subset", "--ratio", "0.1"], "ops is crafted on a share"),
        (["--detect", "--craft-on", "subset", "--classes", "0"], "at least 2 classes"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_bad_requests_are_refused_before_anything_is_computed(
    flags: list[str], message: str, dry: bool, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    more = [*flags, "--dry-run"] if dry else flags
    result = call("run", *FAST, "--attacks", "ops", "--out", str(out), *more)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not out.exists()
    assert not (Store().base / "cell").exists()


def test_a_file_that_no_run_wrote_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "results"
    assert call("run", *FAST, "--attacks", "none", "--out", str(out)).exit_code == 0
    names = list(Detection.model_fields)
    with (out / "detection.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, ["x"] * len(names)])
    with pytest.raises(UserError, match=r"detection.csv, line 2: poison_seed: .*--detect"):
        read_results(out)


def row(attack: str, detector: str, score: float, **fields: object) -> Detection:
    values: dict[str, object] = {
        "dataset": "d",
        "attack": attack,
        "attack_options": "",
        "poison_seed": 0,
        "poison_sha256": "",
        "detector": detector,
        "score": score,
        "score_sd": None,
        "chance": 0.1,
        "threshold": 0.7,
        "poisoned": score > 0.7,
        "n_seeds": 1,
        "flagged_share": 1.0,
        "seconds": 1.0,
    }
    return Detection.model_validate(values | fields)


def test_false_positives_and_missing_answers_are_named() -> None:
    rows = [row("lsp", "linear", 0.9), row("none", "linear", 0.8), row("none", "noise", 0.2)]
    (table,) = detection_layouts(rows)
    assert [str(each.label) for each in table.rows] == ["clean", "lsp"]
    assert [str(cell) for cell in table.rows[0].cells] == ["80.0 (poisoned)", "20.0"]
    assert [str(cell) for cell in table.rows[1].cells] == ["90.0 (poisoned)", "—"]
    assert "call the clean data poisoned: linear" in table.note
    assert "70.0 %" in table.note


def test_several_poison_seeds_have_rows_of_their_own() -> None:
    rows = [row("lsp", "noise", 0.9, poison_seed=seed) for seed in (0, 1)]
    (table,) = detection_layouts(rows)
    assert [str(each.label) for each in table.rows] == ["lsp, seed 0", "lsp, seed 1"]
