"""The command line: verbs, exit statuses, and one sentence for every mistake."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from uebench.cells.cell import Cell
from uebench.cells.results import gather
from uebench.cli import main
from uebench.data import load_dataset
from uebench.learn.protocol import PROTOCOLS
from uebench.report import read_cells
from uebench.store.store import Store
from uebench.victims.detectors import DETECTORS

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
FAST = ["--dataset", DATA, "--arch", "resnet9[width=2]", "--epochs", "1", "--device", "cpu"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_from_attack_to_leaderboard(tmp_path: Path) -> None:
    command = ["run", "--attacks", "none,lsp", "--defenses", "standard,iss", *FAST]
    result = call(*command, "--out", "made", "--seeds", "0,1")
    assert result.exit_code == 0, result.output
    assert "LSP" in result.stdout
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert {
        "cells.csv",
        "leaderboard.csv",
        "leaderboard.tex",
        "leaderboard.md",
        "run.json",
        "records.json",
        "pictures",
        "index.html",
    } <= names
    cells = read_cells(tmp_path / "made")
    assert len(cells) == 8
    assert (cells["status"] == "ok").all()
    assert set(cells["seed"]) == {0, 1}
    told = json.loads((tmp_path / "made/run.json").read_text())
    assert told["config"]["attacks"] == ["none", "lsp"]
    (poison,) = told["poisons"].values()
    assert poison["l2_max"] < 1.5
    for form in ("text", "csv", "latex", "markdown", "json"):
        table = call("table", "made", "--format", form)
        assert table.exit_code == 0, table.output
        assert "lsp" in table.stdout.lower()


def test_the_default_folder_is_named_by_the_matrix(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"attacks: lsp\ndefenses: standard\ndataset: '{DATA}'\narch: 'resnet9[width=2]'\n"
        "protocol_options: {epochs: 1}\n"
    )
    assert call("run", "mine.yaml", "--device", "cpu").exit_code == 0
    assert call("run", "mine.yaml", "--device", "cpu", "--seeds", "1").exit_code == 0
    first, second = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert first == "mine"
    assert second.startswith("run-")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = call("run", "--attacks", "em[rounds=1],lsp", "--defenses", "at", *FAST, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "2 cells, 2 to do" in result.stdout
    assert "em[rounds=1]" in result.stdout, "methods as they were typed"
    assert not list(tmp_path.iterdir())
    assert not list(Path(os.environ["UEBENCH_HOME"]).rglob("*.json"))
    assert "leaves out" not in result.stdout


def test_a_dry_run_names_what_it_does_not_estimate() -> None:
    command = ["run", "--attacks", "gue[epochs=1],gue[epochs=2],tue,lsp", "--defenses", "standard"]
    result = call(*command, *FAST, "--dry-run")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stdout.splitlines() if "leaves out" in line]
    assert [line.split(" ")[0] for line in told] == ["gue:", "tue:"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("run --attacks emm", "did you mean em"),
        ("run --attacks EM", "did you mean em"),
        ("run --attacks ueraser", "ueraser is a defense, not an attack"),
        ("run --attacks= --defenses standard", "attacks names nothing; give at least one, or"),
        ("verify nowhere", "nowhere has no run.json; give the folder"),
        ("show resnet18", "resnet18 is a network, and `show` describes only attack, defense"),
        ("show table2", "table2 is a configuration, and `show` describes only"),
        ("show UEraser-Light", "'UEraser-Light' (did you mean ueraser_lite?); `uebench list`"),
        ("run --classes 99", "the numbers 0 to 9 stand for them"),
        ("run --defenses uerasor", "did you mean ueraser"),
        ("run --attacks em[eps=8]", "divide by 255"),
        ("run --attacks em[eps=8", "lacks its closing ]"),
        ("run --dataset synthetc", "did you mean synthetic"),
        ("run --dataset npz:none.npz", "no such file"),
        ("run --dataset folder:none", "no such folder"),
        ("run --dataset cifar10 --data-dir .", "add --download"),
        ("run --protocol slow", "unknown protocol"),
        ("run --seeds x", "seeds"),
        ("run --ratio 2", "ratio"),
        ("run --classes cat", "has no class 'cat'"),
        ("run --set em.roundz=1", "did you mean rounds"),
        ("run --set rounds", "NAME.OPTION=VALUE"),
        ("run --set protocol.epoch=2", "did you mean epochs"),
        ("run --device cuda", "this machine has cpu"),
        ("run --device tpu", "this machine has cpu"),
        ("run none.yaml", "no such file"),
        ("run nothing", "known: apbench_transfer"),
        ("run --jobs 0", "--jobs"),
        ("run --set protocol.name=x", "protocol: no field name; it has"),
        ("run --set protocol.lr=a", "protocol: lr must be a number in (0, 100], got a"),
        ("run --attacks em[surrogate=resnet7]", "did you mean resnet"),
        ("run --defenses ueraser[engine=kornia,draw=batch]", "engine='kornia' with kornia='0.6'"),
        ("audit file --dataset synthetic", "not a readable poison file"),
        ("run --executor pigeon", "unknown executor"),
        ("run --plugin none.py", "no such file"),
        ("run --attacks none --out file", "--out file is a file, not a folder; choose another"),
        ("run --attacks none --out file/below", "cannot be created"),
        ("run --attacks none --out foreign", "no run wrote"),
        ("show attack emm", "did you mean em"),
        ("show emm", "did you mean em"),
        ("show", "show needs a NAME"),
        ("show defense", "`uebench list defenses` prints the names"),
        ("show model em", "KIND must be attack, defense, victim, detector, dataset, protocol or"),
        ("craft emm --out x.npz", "did you mean em"),
        ("craft lsp --out file", "is there already"),
        ("audit none.npz --dataset synthetic", "no such file"),
        ("table none", "no cells"),
        ("report none", "no cells"),
        ("report file", "is not a directory"),
        ("plot none --kind ratio", "no cells"),
        ("plot none --kind pie", "'curves', 'ratio'"),
        ("plot none", "--kind"),
        ("list attack", "attacks"),
        ("run --defenses ueraser[repeats=0]", "repeats must be a whole number in [1, 100], got 0"),
        ("run --defenses augment[policy=q]", "letters must be p, c, and t or a"),
        ("run --defenses iss[quality=96]", "quality must be a whole number in [1, 95], got 96"),
        ("run --defenses at[radius=4]", "got 4; divide by 255, radius=4/255"),
        ("run --epochs -3", "epochs must be a whole number in [1, 10000], got -3"),
    ],
)
def test_bad_input_gets_a_sentence_and_exit_2_and_writes_nothing(
    arguments: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/cells.csv").write_text("mine\n")
    before = sorted(tmp_path.rglob("*"))
    result = call(*arguments.split())
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(Path(os.environ["UEBENCH_HOME"]).rglob("*.json"))


def test_a_store_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file\n")
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "file" / "store"))
    command = ["run", "--attacks", "none", "--defenses", "standard", *FAST]
    result = call(*command, "--out", "made")
    assert result.exit_code == 2, result.output
    assert "cannot write to the store" in result.stderr
    assert "set UEBENCH_HOME to a folder that can be written" in " ".join(result.stderr.split())
    assert "1 cell" not in result.stderr
    assert call(*command, "--dry-run").exit_code == 0


def test_flags_may_remove_what_a_configuration_sets(tmp_path: Path) -> None:
    result = call("run", "quick", "--attacks", "lsp", "--dry-run", *FAST)
    assert result.exit_code == 0, result.output
    assert call("run", "quick", "--attacks", "lsp", "--set", "em.steps=3").exit_code == 2


def test_two_data_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    small = DATA.replace("n_train=40", "n_train=30")
    for name, data in (("a", DATA), ("b", small)):
        (tmp_path / name).mkdir()
        loaded = load_dataset(data)
        np.savez(
            tmp_path / name / "data.npz",
            train_images=loaded.train.images.permute(0, 2, 3, 1).numpy(),
            train_labels=loaded.train.labels.numpy(),
            test_images=loaded.test.images.permute(0, 2, 3, 1).numpy(),
            test_labels=loaded.test.labels.numpy(),
        )
    result = call("run", "--dataset", "npz:a/data.npz", "--dataset", "npz:b/data.npz")
    assert result.exit_code == 2
    assert "two data sets are called data" in result.stderr


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("attacks: [em\ndefenses: at\n")
    result = call("run", "bad.yaml")
    assert result.exit_code == 2
    assert "is not YAML (line 2)" in result.stderr


def test_failed_cells_give_exit_1(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from uebench import Attack, attack\n"
        "@attack('bad', title='Bad', source='a test')\n"
        "class Bad(Attack):\n"
        "    def perturb(self, data, run):\n"
        "        return 1 / 0\n"
    )
    command = ["run", "--plugin", "bad.py", "--attacks", "bad,none", "--defenses", "standard"]
    result = call(*command, *FAST, "--out", "made")
    assert result.exit_code == 1, result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.stderr
    assert "failed" in result.stdout
    cells = read_cells(tmp_path / "made").set_index("attack")
    assert cells.loc["bad", "status"] == "failed"
    assert cells.loc["none", "status"] == "ok"
    assert (
        "ZeroDivisionError"
        in json.loads((tmp_path / "made/run.json").read_text())["failures"][
            cells.loc["bad", "key"]
        ]["traceback"]
    )


def test_cells_that_were_not_reached_are_reported_with_exit_1(tmp_path: Path) -> None:
    command = ["run", "--attacks", "none", "--defenses", "standard,iss", *FAST, "--out", "made"]
    result = call(*command, "--stop-after", "0.00001", "--json")
    assert result.exit_code == 1, result.output
    assert "2 of 2 cells were not reached in 1e-05 min (--stop-after)" in result.stderr
    assert "cells failed" not in result.stderr
    (board,) = json.loads(result.stdout)
    assert "skipped" in json.dumps(board)
    assert read_cells(tmp_path / "made")["status"].tolist() == ["skipped", "skipped"]
    assert call(*command).exit_code == 0
    assert read_cells(tmp_path / "made")["status"].tolist() == ["ok", "ok"]
    dry = call(*command, "--dry-run", "--stop-after", "5")
    assert "the run stops after 5 min (--stop-after)" in dry.stdout


def test_cells_removed_during_the_run_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uebench.suite import run as suite_run

    def robbed(cells: list[Cell], store: Store, failures: object) -> pd.DataFrame:
        return gather(cells, Store(tmp_path / "empty"))

    monkeypatch.setattr(suite_run, "gather", robbed)
    command = ["run", "--attacks", "none", "--defenses", "standard", *FAST, "--out", "made"]
    result = call(*command)
    assert result.exit_code == 1, result.output
    assert "1 of 1 cells are missing: their results disappeared from the store" in result.stderr


@pytest.mark.parametrize(
    "kind", ["attacks", "defenses", "detectors", "datasets", "models", "protocols", "configs"]
)
def test_lists(kind: str) -> None:
    text = call("list", kind)
    assert text.exit_code == 0
    rows = json.loads(call("list", kind, "--json").stdout)
    assert rows
    assert all(row["name"] in text.stdout for row in rows)


@pytest.mark.parametrize("what", ["attack em", "attack lsp", "defense ueraser", "protocol paper"])
def test_show_lists_the_accepted_values_of_options(what: str) -> None:
    text = call("show", *what.split())
    assert text.exit_code == 0
    found = json.loads(call("show", *what.split(), "--json").stdout)
    assert found["options"]
    for option in found["options"]:
        assert option["name"] in text.stdout
        assert option["accepts"]
        assert option["meaning"]


@pytest.mark.parametrize("what", ["attack em", "defense at", "protocol quick", "executor local"])
def test_show_needs_no_kind_for_a_unique_name(what: str) -> None:
    alone = call("show", what.split()[1])
    assert alone.exit_code == 0
    assert alone.stdout == call("show", *what.split()).stdout


def test_detectors_are_listed_and_shown() -> None:
    listed = call("list", "detectors").stdout
    for name in DETECTORS:
        assert name in listed
        assert call("show", name).exit_code == 0
    shown = call("show", "detector", "two_layer").stdout
    assert re.search(r"^width +3072 +a whole number in \[1, 65536\] +Hidden units", shown, re.M)
    assert call("show", "detector", "two_layers").exit_code == 2


def test_show_asks_for_the_kind_of_an_ambiguous_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "em", PROTOCOLS["quick"])
    result = call("show", "em")
    assert result.exit_code == 2
    assert "`uebench show attack em` or `uebench show protocol em`" in result.output
    assert call("show", "protocol", "em").exit_code == 0


@pytest.mark.parametrize("out", ["p.npz", "p.safetensors", "folder"])
def test_a_crafted_poison_passes_its_audit(out: str, tmp_path: Path) -> None:
    result = call("craft", "lsp", "--dataset", DATA, "--out", out, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    found = json.loads(call("audit", out, "--dataset", DATA, "--json").stdout)
    assert found["l2_max"] == measured["l2_max"]
    assert found["labels_differ"] == 0
    assert found["order_kept"]
    assert found["budgets_kept"]["l2 1.304"]
    assert not found["budgets_kept"]["l2 0.5"]
    other = call("audit", out, "--dataset", "synthetic[n_train=30,n_test=20,n_classes=2,size=16]")
    assert other.exit_code == 2
    assert "30 training images" in other.stderr


def test_the_doctor_names_this_machine() -> None:
    found = {f["what"]: f for f in json.loads(call("doctor", "--json").stdout)}
    assert {"torch", "torchvision", "devices", "precision", "store"} <= set(found)
    assert "GFLOP/s" in found["torch"]["text"]


def test_help_and_lists_of_configurations_do_not_load_torch() -> None:
    code = "import sys; from uebench.cli import main\n"
    for typed in (["--help"], ["list", "configs"], ["list", "protocols"]):
        code += f"main({typed}, standalone_mode=False)\n"
    code += "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_terminal_but_no_file_sees_at_once_that_torch_is_loading() -> None:
    arguments = ["run", "--attacks", "nosuch", "--dataset", DATA]
    command = [sys.executable, "-m", "uebench", *arguments]
    ours, theirs = os.openpty()
    with subprocess.Popen(command, stderr=theirs) as process:
        os.close(theirs)
        first = os.read(ours, 1000)
        assert process.poll() is None
        rest = b""
        with contextlib.suppress(OSError):  # what a closed terminal ends in
            while more := os.read(ours, 1000):
                rest += more
    os.close(ours)
    assert first == b"starting: loading torch ..."
    assert rest.startswith(b"\r\x1b[K")
    assert b"unknown attack" in rest
    to_a_file = call(*arguments)
    assert (to_a_file.exit_code, process.returncode) == (2, 2)
    assert "starting" not in to_a_file.stderr


@pytest.mark.slow
def test_listing_methods_loads_no_large_library_except_torch() -> None:
    idle = ("pandas", "sklearn", "scipy", "matplotlib", "kornia", "torchvision", "jinja2")
    code = "import sys; from uebench.cli import main\n"
    for typed in (["list", "attacks"], ["show", "defense", "ueraser"]):
        code += f"main({typed}, standalone_mode=False)\n"
    code += f"sys.exit(', '.join(name for name in {idle} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_data_set_shows_its_options() -> None:
    shown = call("show", "synthetic", "--json")
    options = {row["name"]: row["default"] for row in json.loads(shown.stdout)["options"]}
    assert options == {
        **{"n_train": "3000", "n_test": "1000", "n_classes": "10", "size": "32", "seed": "0"}
    }
    for name in ("folder", "folder:PATH", "npz:images.npz"):
        assert call("show", name).exit_code == 0, name
    listed = {
        row["name"]: row["options"] for row in json.loads(call("list", "datasets", "--json").stdout)
    }
    assert listed["folder:PATH"] == "n_train, n_test, size"
    assert listed["imagenet_subset"] == "n_classes, size, n_train, n_test"
    wrong = call("show", "dataset", "cifra10")
    assert wrong.exit_code == 2
    assert "did you mean cifar10" in wrong.stderr


def test_a_warning_about_all_numbers_is_printed_once() -> None:
    """The table says that no model has learned, so the summary below it does not say it again."""
    arguments = ["run", *FAST, "--attacks", "none,lsp", "--defenses", "standard", "--out", "made"]
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert len(re.findall(r"[Tt]he clean model has not learned", text)) == 1
