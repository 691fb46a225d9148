"""Records say where numbers come from; a table of several versions says so."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cells.test_cell import planned
from uebench import __version__
from uebench.cells.compute import compute
from uebench.cells.results import gather, version_warning
from uebench.cli import main
from uebench.common import provenance
from uebench.data import Dataset
from uebench.data.dataset import keep_dataset
from uebench.report import write_cells
from uebench.store.store import Store


def test_a_record_says_where_its_number_comes_from(
    tiny: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_COMMAND", '["uebench", "run", "quick"]')
    keep_dataset(store, tiny)
    cell = planned(tiny)
    record = compute(cell, store, "cpu")
    told = record["provenance"]
    assert told["versions"]["uebench"] == __version__
    assert {"torch", "cuda", "numpy", "python"} <= set(told["versions"])
    assert told["machine"]["device"] == "cpu"
    assert told["machine"]["threads"] >= 1
    assert told["precision"] == cell.precision
    assert told["seeds"] == {"training": 0, "poison": 0}
    assert told["data"] == tiny.fingerprint
    assert told["poison"] == record["poison_sha256"]
    assert told["command"] == ["uebench", "run", "quick"]
    found = store.read("poison", cell.poison.key)
    assert found is not None
    assert found[1]["provenance"]["data"] == tiny.fingerprint


def test_the_source_is_named_where_it_is_a_checkout() -> None:
    root = Path(provenance.__file__).resolve().parents[2]
    state = provenance.git_state()
    if not (root / ".git").exists():
        assert state is None
        return
    assert state is not None
    head = ["git", "-C", str(root), "rev-parse", "HEAD"]
    assert state["commit"] == subprocess.run(head, capture_output=True, text=True).stdout.strip()
    assert isinstance(state["dirty"], bool)


@pytest.mark.parametrize("text", ["", "{", "3", '{"a": 1}'])
def test_a_strange_command_in_the_environment_is_no_command(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_COMMAND", text)
    assert provenance.command() == []


def test_the_same_bits_are_promised_on_one_type_of_machine_alone() -> None:
    here = provenance.provenance("cpu")
    assert provenance.same_machine_type(here, json.loads(json.dumps(here)))
    assert not provenance.same_machine_type({}, here)
    assert not provenance.same_machine_type({"machine": 3, "versions": []}, here)
    other = {**here, "machine": {**here["machine"], "instructions": "none"}}
    assert not provenance.same_machine_type(other, here)
    newer = {**here, "versions": {**here["versions"], "torch": "9.9"}}
    assert not provenance.same_machine_type(newer, here)


def test_two_generations_of_one_name_are_two_types(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor : 0\ncpu family : 25\nmodel : {}\nmodel name : AMD EPYC\n"
    told = []
    for model in (17, 17, 1):
        monkeypatch.setattr(Path, "read_text", lambda _, m=model: 2 * text.format(m))
        provenance._cpu_model.cache_clear()
        told.append(provenance.provenance("cpu"))
    assert told[0]["machine"]["cpu"] == "AMD EPYC (family 25, model 17)"
    assert provenance.same_machine_type(told[0], told[1])
    assert not provenance.same_machine_type(told[0], told[2])
    monkeypatch.undo()
    provenance._cpu_model.cache_clear()


def test_each_origin_is_named_once() -> None:
    one, two = provenance.provenance("cpu", data="x"), provenance.provenance("cpu", data="y")
    records = {
        "a": {"provenance": one},
        "b": {"provenance": two},
        "c": {"versions": {"torch": "1"}},
    }
    first, second = provenance.origins(records)
    assert first["cells"] == ["a", "b"]
    assert second == {"versions": {"torch": "1"}, "cells": ["c"]}


def test_rows_of_two_versions_are_reported(tiny: Dataset, store: Store, tmp_path: Path) -> None:
    keep_dataset(store, tiny)
    cells = [planned(tiny, attacks="none", defenses="standard", seeds=seed) for seed in (0, 1)]
    for cell in cells:
        compute(cell, store, "cpu")
    assert version_warning(gather(cells, store)) is None
    found = store.read("cell", cells[1].key)
    assert found is not None
    store.remove("cell", cells[1].key)
    store.write("cell", cells[1].key, {**found[1], "versions": {"uebench": "0.0.9", "torch": "2"}})
    frame = gather(cells, store)
    told = version_warning(frame)
    assert told is not None
    assert "uebench 0.0.9 with torch 2 (1)" in told
    write_cells(frame, tmp_path / "cells.csv")
    result = CliRunner().invoke(main, ["table", str(tmp_path)])
    assert result.exit_code == 0
    assert "the cells come from several versions" in result.stderr
