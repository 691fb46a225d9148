"""A results folder is replaced as one: new cells never lie next to an old leaderboard."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import uebench
from tests.killing import killed_at_each_operation
from uebench.cells.config import make_config
from uebench.data import load_dataset
from uebench.data.poison_writing import write_poison
from uebench.methods.imported import known_records
from uebench.report.canvas import new_canvas, save_canvas
from uebench.report.folder import is_result
from uebench.share.bundle import publish
from uebench.store.store import Store
from uebench.suite.matrix import Matrix, RunOutcome
from uebench.suite.run import execute, prepare, save
from uebench.suite.scaffold import write_package

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
FIELDS = {
    "dataset": DATA,
    "arch": "resnet9[width=2]",
    "protocol_options": {"epochs": 1},
    "defenses": "standard",
}
TABLE = {"rows": ["attack"], "columns": ["defense"]}
MINE = {
    "notes.md": "what I saw",
    "README.md": "my own words",
    "pictures/me.jpg": "me",
    "plots/curves.pdf": "drawn earlier",
    ".git/HEAD": "ref: refs/heads/main",
    "cells.csv.bak": "kept by me",
}
Outcome = tuple[Matrix, RunOutcome]


def computed(**fields: object) -> Outcome:
    matrix = prepare(make_config({**FIELDS, **fields}), "cpu")
    return matrix, execute(matrix)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome]:
    """Two runs: the first with a paper's table and another attack, the second without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        return computed(attacks="lsp", table=TABLE), computed(attacks="none,lsp[eps=1]")


def digests(folder: Path, ours: bool = True) -> dict[str, str]:
    """Return the hashes of the files of a folder: of a run's, or of the user's."""
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(paths.items())
        if is_result(name) == ours
    }


def saved(outcome: Outcome, folder: Path) -> dict[str, str]:
    save(*outcome, folder, ["uebench"])
    return digests(folder)


def with_files_of_mine(folder: Path) -> dict[str, str]:
    for name, text in MINE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return digests(folder, ours=False)


def test_nothing_of_an_earlier_run_stays_and_everything_of_the_user(
    outcomes: tuple[Outcome, Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    first = saved(outcomes[0], folder)
    assert {"table.csv", "table.md", "table.tex"} < set(first)
    mine = with_files_of_mine(folder)
    (folder / ".index.html.0123456789abcdef0123456789abcdef.tmp").write_text("of an old version")
    second = saved(outcomes[1], folder)
    assert not any(name.startswith("table.") for name in second), "of the earlier run"
    pictures = [name for name in second if name.startswith("pictures/")]
    keys = json.loads((folder / "run.json").read_text())["poisons"]
    assert [name[-12:-4] for name in pictures] == [key[:8] for key in keys]
    assert not any(name.startswith(".") for name in second)
    assert digests(folder, ours=False) == mine
    assert "<title>results ·" in (folder / "index.html").read_text(), "not the draft's name"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize(
    "step",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(29, id="every twenty-ninth")],
)
def test_a_kill_while_saving_leaves_the_old_or_the_new_folder(
    step: int, outcomes: tuple[Outcome, Outcome], tmp_path: Path
) -> None:
    old = saved(outcomes[0], tmp_path / "old" / "results")
    new = saved(outcomes[1], tmp_path / "new" / "results")
    mine = with_files_of_mine(tmp_path / "old" / "results")
    seen = []
    for n, kill in killed_at_each_operation(1 + step // 2, step):
        folder = tmp_path / str(n) / "results"
        shutil.copytree(tmp_path / "old" / "results", folder)
        ended = kill(lambda folder=folder: save(*outcomes[1], folder, ["uebench"]))
        left = digests(folder)
        assert left in (old, new), f"killed at operation {n}"
        seen.append(left == new)
        assert digests(folder, ours=False) == mine, f"killed at operation {n}"
        assert saved(outcomes[1], folder) == new, "the next run"
        assert [path.name for path in folder.parent.iterdir()] == ["results"], "cleaned up"
        if ended:
            break
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


def publish_it(folder: Path, results: Path) -> None:
    publish(results, folder / "bundle", "MIT")


def write_method(folder: Path, results: Path) -> None:
    write_package("attack", "killed", folder)


def plot_it(folder: Path, results: Path) -> None:
    save_canvas(new_canvas(1, 1), folder / "plots", "curves")


def write_poison_as(name: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, results: Path) -> None:
        dataset = load_dataset("synthetic[n_train=8,n_test=4,n_classes=2,size=16]")
        write_poison(uebench.craft("lsp", dataset), folder / name, dataset)

    return write


@pytest.mark.parametrize(
    ("write", "whole", "step"),
    [
        pytest.param(publish_it, [".*"], 1, id="publish", marks=pytest.mark.slow),
        pytest.param(publish_it, [".*"], 5, id="publish, every fifth"),
        pytest.param(write_method, [".*"], 1, id="new"),
        pytest.param(plot_it, [r".*\.pdf", r".*\.png"], 1, id="plot"),
        pytest.param(write_poison_as("a"), [".*"], 1, id="poison folder"),
        pytest.param(write_poison_as("a.npz"), [r".*\.json", r".*\.npz"], 1, id="npz"),
        pytest.param(
            write_poison_as("a.safetensors"), [r".*\.json", ".*tensors"], 1, id="safetensors"
        ),
    ],
)
def test_a_kill_leaves_nothing_or_all_of_what_other_verbs_write(
    write: Callable[[Path, Path], None],
    whole: list[str],
    step: int,
    outcomes: tuple[Outcome, Outcome],
    tmp_path: Path,
) -> None:
    """Each pattern names a set of files that appears at once; the last set comes last."""
    results = tmp_path / "results"
    save(*outcomes[1], results, ["uebench"])
    complete = tmp_path / "complete"
    complete.mkdir()
    write(complete, results)
    new = everything(complete)
    for n, kill in killed_at_each_operation(1 + step // 2, step):
        folder = tmp_path / str(n)
        folder.mkdir()
        ended = kill(lambda folder=folder: write(folder, results))
        left = {k: v for k, v in everything(folder).items() if not re.search(r"(^|/)\.", k)}
        present = []
        for pattern in whole:
            part, new_part = (
                {name: content for name, content in files.items() if re.fullmatch(pattern, name)}
                for files in (left, new)
            )
            assert part in ({}, new_part), f"killed at operation {n}"
            present.append(bool(part))
        assert present == sorted(present, reverse=True), "in this order"
        if not present[-1]:
            write(folder, results)
            assert everything(folder) == new, "the next run completes it and cleans up"
        if ended:
            break


def everything(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_kill_while_an_imported_poison_is_replaced_keeps_its_name(tmp_path: Path) -> None:
    dataset = load_dataset(DATA)
    files = []
    for eps in ("1", "1.5"):
        files.append(tmp_path / f"{eps}.npz")
        write_poison(uebench.craft(f"lsp[eps={eps}]", dataset), files[-1], dataset)
    sha256s = [
        uebench.import_poison(path, dataset, f"given{i}").meta["sha256"]
        for i, path in enumerate(files)
    ]
    for n, kill in killed_at_each_operation():
        store = Store(tmp_path / str(n))
        uebench.import_poison(files[0], dataset, "given", store=store)
        ended = kill(
            lambda store=store: uebench.import_poison(
                files[1], dataset, "given", replace=True, store=store
            )
        )
        ((name, record),) = known_records(store)
        assert (name, record["sha256"] in sha256s) == ("given", True), f"killed at operation {n}"
        assert not ended or record["sha256"] == sha256s[1]
        if ended:
            break
