"""`uebench verify` recomputes cells: the same bits here, a difference is found."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from uebench.cells.cell import TRAINER_VERSION
from uebench.cells.config import make_config
from uebench.cli import main
from uebench.learn.protocol import PROTOCOLS
from uebench.report import read_cells
from uebench.share.agreement import cell_name
from uebench.store.store import Store
from uebench.suite.run import execute, prepare, save
from uebench.suite.verify import contradictions, sampled, verify

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
FIELDS = {
    "attacks": "none,lsp",
    "defenses": "standard",
    "dataset": DATA,
    "arch": "resnet9[width=2]",
    "protocol_options": {"epochs": 2, "batch_size": 16},
    "set": {"lsp.eps": "2"},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("results")
    matrix = prepare(make_config(FIELDS), "cpu", 2, store=Store(place / "store"))
    outcome = execute(matrix)
    assert (outcome.cells["status"] == "ok").all()
    (place / "out").mkdir()
    save(matrix, outcome, place / "out", ["uebench"])
    shutil.rmtree(place / "store")  # the folder alone is enough
    return place / "out"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["verify", *arguments])


def change(results: Path, to: Path, **cells: Any) -> Path:
    """Copy results with columns of the second cell changed."""
    shutil.copytree(results, to)
    frame = pd.read_csv(to / "cells.csv", dtype=str, keep_default_na=False)
    for name, value in cells.items():
        frame.loc[1, name] = value
    frame.to_csv(to / "cells.csv", index=False)
    return to


def rewrite(folder: Path, **fields: Any) -> None:
    told = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(told | fields))


def test_cells_come_out_bit_for_bit(results: Path) -> None:
    result = call(str(results), "--sample", "0", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [row["outcome"] for row in told] == ["same", "same"]
    assert told[0]["recorded"] == told[0]["recomputed"]


def test_a_difference_is_found_and_named(results: Path, tmp_path: Path) -> None:
    made = change(results, tmp_path / "a", test_acc="0.123", poison_sha256="0" * 64)
    result = call(str(made), "--sample", "0", "--quiet")
    assert result.exit_code == 1
    assert "1 identical bit for bit; 1 different" in result.stdout
    assert "test_acc 0.123 now" in result.stdout
    assert "poison_sha256 000000000000... now" in result.stdout


def test_a_changed_cell_outside_the_sample_contradicts_its_record(
    results: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(results / "cells.csv").to_dict("records")
    seed = next(n for n in range(9) if sampled(rows, 1, n)[0]["attack"] == "none")
    accuracy = float(rows[1]["test_acc"])
    made = change(results, tmp_path / "a", test_acc=str(accuracy - 0.05 if accuracy else 0.05))
    result = call(str(made), "--sample", "1", "--seed", str(seed), "--quiet")
    assert result.exit_code == 1, result.output
    assert "1 cell recomputed: 1 identical bit for bit" in result.stdout
    assert "contradiction: lsp[eps=2] under standard, seed 0: its confusion" in result.stdout
    told = call(str(made), "--sample", "1", "--seed", str(seed), "--quiet", "--json")
    assert told.exit_code == 1
    outcomes = [verdict["outcome"] for verdict in json.loads(told.stdout)]
    assert outcomes[0] == "same"
    assert set(outcomes[1:]) == {"contradicts"}


def test_all_files_of_an_untouched_folder_agree(results: Path) -> None:
    assert contradictions(results) == []
    cells = read_cells(results)
    assert cells["record_sha256"].str.fullmatch("[0-9a-f]{64}").all()


@pytest.mark.parametrize("part", ["loss", "images_per_second"])
def test_a_changed_number_of_a_record_that_no_table_shows_is_found(
    part: str, results: Path, tmp_path: Path
) -> None:
    made = change(results, tmp_path / "a")
    told = json.loads((made / "records.json").read_text())
    record = next(iter(told["records"].values()))
    if part == "loss":
        record["curve"]["loss"][0] += 0.01
    else:
        record[part] += 1
    (made / "records.json").write_text(json.dumps(told))
    (problem,) = contradictions(made)
    assert "its entry in records.json is not the one that the run wrote" in problem.reason
    frame = pd.read_csv(made / "cells.csv", dtype=str, keep_default_na=False)
    frame.drop(columns="record_sha256").to_csv(made / "cells.csv", index=False)
    assert contradictions(made) == [], "a folder of an older version has no hashes"


def test_another_machine_type_is_judged_within_a_tolerance(results: Path, tmp_path: Path) -> None:
    near = float(pd.read_csv(results / "cells.csv")["train_acc"][1]) - 0.04
    made = change(results, tmp_path / "a", train_acc=str(near))
    rewrite(made, origins=[])
    (_, verdict) = verify(made, sample=0)
    assert verdict.outcome == "close"
    (_, verdict) = verify(made, sample=0, tolerance=0.01)
    assert verdict.outcome == "differs"


def test_a_recipe_that_changed_is_lost_and_named(results: Path, tmp_path: Path) -> None:
    told = json.loads((results / "run.json").read_text())
    recipe = next(r for r in told["recipes"].values() if r["poison"].get("attack") == "lsp")
    old = {"f" * 64: {**recipe, "trainer": 0}}
    made = change(results, tmp_path / "a", key="f" * 64)
    rewrite(made, recipes=old)
    result = call(str(made), "--sample", "0", "--quiet")
    assert result.exit_code == 1
    assert "its recipe is different here" in result.stdout
    assert f"trainer 0 now {TRAINER_VERSION}" in " ".join(result.stdout.split())


def test_the_sample_is_drawn_from_the_seed() -> None:
    rows = [{"key": str(n)} for n in range(9)]
    drawn = [[r["key"] for r in sampled(rows, 3, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(keys)) == 3 for keys in drawn)
    assert sampled(rows, 0, 0) == sampled(rows, 9, 0) == rows


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "run.json").unlink(), "has no run.json"),
        (lambda f: (f / "run.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "run.json").write_text("[" * 100_000), "is not JSON"),
        (lambda f: (f / "run.json").write_text("[1]"), "holds no JSON object"),
        (lambda f: rewrite(f, config={"attackz": 1}), "did you mean attacks"),
        (lambda f: rewrite(f, config={"dataset": "npz:gone.npz"}), "no such file"),
        (lambda f: (f / "cells.csv").unlink(), "no cells at"),
        (lambda f: (f / "cells.csv").write_text("a,b\n"), "no column"),
    ],
)
def test_a_folder_that_cannot_be_verified_gets_a_sentence(
    spoil: Any, told: str, results: Path, tmp_path: Path
) -> None:
    made = change(results, tmp_path / "a")
    spoil(made)
    result = call(str(made))
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_strange_origins_are_no_origins(results: Path, tmp_path: Path) -> None:
    made = change(results, tmp_path / "a")
    rewrite(made, origins=[3, {"cells": 5}, {"cells": ["x"]}], recipes=[])
    assert {v.outcome for v in verify(made, sample=0)} == {"same"}


def test_a_named_protocol_that_changed_is_taken_from_the_record(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = PROTOCOLS["quick"].model_copy(
        update={"lr": 0.01, "nesterov": False, "alternate": True}
    )
    monkeypatch.setitem(PROTOCOLS, "quick", changed)
    assert [v.outcome for v in verify(results, sample=0)] == ["same", "same"]


def test_a_strange_recorded_protocol_harms_its_own_cell_alone(
    results: Path, tmp_path: Path
) -> None:
    told = json.loads((results / "run.json").read_text())
    recipe = next(r for r in told["recipes"].values() if r["poison"].get("attack") == "lsp")
    strange = {**recipe, "protocol": {**recipe["protocol"], "lr": "fast"}}
    made = change(results, tmp_path / "a", key="f" * 64)
    rewrite(made, recipes={"f" * 64: strange})
    verdicts = verify(made, sample=0)
    assert [v.outcome for v in verdicts] == ["same", "lost"]
    assert "protocol.lr fast now" in verdicts[1].reason


def test_of_two_data_sets_a_sample_of_one_is_verified(tmp_path: Path) -> None:
    other = DATA.replace("n_train=40", "n_train=50")
    fields = {**FIELDS, "attacks": "none", "dataset": [DATA, other], "set": {}}
    matrix = prepare(make_config(fields), "cpu", 2, store=Store(tmp_path / "store"))
    save(matrix, execute(matrix), tmp_path, ["uebench"])
    (verdict,) = verify(tmp_path, sample=1, seed=0)
    assert verdict.outcome == "same"


def test_a_lost_cell_is_compared_with_the_one_of_its_victim(tmp_path: Path) -> None:
    fields = {**FIELDS, "attacks": "none", "set": {}, "victims": "supervised,simclr[epochs=1]"}
    matrix = prepare(make_config(fields), "cpu", 2, store=Store(tmp_path / "store"))
    cells = execute(matrix).cells
    names = [cell_name(each) for each in cells.to_dict("records")]
    assert len(set(names)) == 2, names
    save(matrix, execute(matrix), tmp_path, ["uebench"])
    key = str(cells["key"][1])
    recipe = json.loads((tmp_path / "run.json").read_text())["recipes"][key]
    frame = (tmp_path / "cells.csv").read_text().replace(key, "f" * 64)
    (tmp_path / "cells.csv").write_text(frame)
    rewrite(tmp_path, recipes={"f" * 64: {**recipe, "trainer": 0}})
    lost = next(v for v in verify(tmp_path, sample=0) if v.outcome == "lost")
    assert "under simclr" in lost.cell
    assert lost.reason == f"its recipe is different here: trainer 0 now {TRAINER_VERSION}"
