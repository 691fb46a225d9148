"""`validate`, `merge` and `verify` of folders whose models were trained by other victims."""

import csv
from pathlib import Path

import pytest

import uebench
from tests.share.conftest import DATA
from uebench.share.merge import merged
from uebench.share.validate import validate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean and class-wise noise under supervised training and SimCLR."""
    root = tmp_path_factory.mktemp("victims")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(root / "home"))
        uebench.run(
            "none,random_class",
            "standard",
            DATA,
            arch="resnet9[width=2]",
            victims="supervised,simclr[epochs=2,hidden=8,dim=4]",
            epochs=1,
            device="cpu",
            jobs=1,
            out=root / "results",
        )
    return root / "results"


def problems(folder: Path) -> list[str]:
    return [problem for finding in validate(folder) for problem in finding.problems]


def test_a_folder_of_several_victims_is_valid(folder: Path) -> None:
    assert problems(folder) == []
    assert "worst case over victims" in (folder / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("victim", "moco[epochs=2,hidden=8,dim=4]", "its victim is 'moco', but its recipe has"),
        ("victim", "simclr[epochs=3,hidden=8,dim=4]", "its option epochs is 3"),
        ("victim", "", "its victim is 'supervised', but its recipe has 'simclr'"),
        ("epochs", "5", "its epochs is 5, but its recipe has 2"),
        ("test_acc", "0.123", "its curve gives test_acc"),
    ],
)
def test_what_contradicts_the_recipe_or_the_curve_is_found(
    column: str, value: str, message: str, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run.json", "records.json", "leaderboard.csv", "leaderboard.md"):
        (copy / name).write_bytes((folder / name).read_bytes())
    rows = list(csv.DictReader((folder / "cells.csv").read_text().splitlines()))
    assert rows[-1]["victim"].startswith("simclr")
    rows[-1][column] = value
    with (copy / "cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert any(message in problem for problem in problems(copy))


def test_a_folder_merges_with_itself(folder: Path) -> None:
    cells = merged([folder, folder]).cells
    assert sorted(cells["victim"]) == ["", "", *["simclr[epochs=2,hidden=8,dim=4]"] * 2]
