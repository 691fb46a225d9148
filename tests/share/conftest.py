"""Small results folders, each computed in a store of its own, and ways to change one."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import uebench
from uebench.report.records import read_records

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
OPTIONS: dict[str, Any] = {
    "dataset": DATA,
    "arch": "resnet9[width=2]",
    "protocol_options": {"epochs": 1, "batch_size": 16},
    "device": "cpu",
    "jobs": 1,
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results `seed0`, `seed1` and `lr`, which only differ in their seed or learning rate."""
    root = tmp_path_factory.mktemp("folders")
    other = {**OPTIONS, "protocol_options": {**OPTIONS["protocol_options"], "lr": 0.02}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(root / "home"))
        uebench.run("none,lsp", "standard", out=root / "seed0", **OPTIONS)
        uebench.run("none,lsp", "standard", seeds=[1], out=root / "seed1", **OPTIONS)
        uebench.run("lsp", "standard", seeds=[2], out=root / "lr", **other)
    return root


Change = Callable[[dict[str, Any]], None]


def changed(
    source: Path, to: Path, record: Change | None = None, run: Change | None = None
) -> Path:
    """Copy results, change the record of LSP or run.json, and let cells.csv follow the record."""
    shutil.copytree(source, to)
    lines = list(csv.DictReader(io.StringIO((to / "cells.csv").read_text())))
    row = next(line for line in lines if line["attack"] == "lsp")
    records = json.loads((to / "records.json").read_text())
    if record is not None:
        record(records["records"][row["key"]])
        (to / "records.json").write_text(json.dumps(records))
        entry = records["records"][row["key"]]
        row |= {n: str(entry[n]) for n in ("test_acc", "test_acc_best", "poison_sha256")}
        row["record_sha256"] = read_records(to / "records.json")[row["key"]].sha256
        with (to / "cells.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(lines)
    if run is not None:
        content = json.loads((to / "run.json").read_text())
        run(content)
        (to / "run.json").write_text(json.dumps(content))
    return to


def missed(n: int) -> Change:
    """Return a change to a record: n more of 20 test images are wrong, in all of its parts."""

    def change(record: dict[str, Any]) -> None:
        matrix = record["confusion"]
        place = max(range(2), key=lambda k: matrix[k][k])
        matrix[place][place] -= n
        matrix[place][1 - place] += n
        accuracy = record["test_acc"] - n / 20
        record["test_acc"] = record["test_acc_best"] = accuracy
        record["curve"]["test_acc"][-1] = accuracy

    return change


def elsewhere(content: dict[str, Any]) -> None:
    """Change a record or run.json: another type of machine computed it."""
    origins = [content] if "provenance" not in content else [content["provenance"]]
    for origin in content.get("origins", origins):
        origin["machine"]["cpu"] = "another CPU"
