"""A bundle passes its own validation; whatever is changed in it is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import uebench
from uebench.cli import main
from uebench.data import load_dataset
from uebench.data.poison_writing import write_poison
from uebench.methods.imported import poison_name
from uebench.report import read_results, write_page
from uebench.report.records import read_records
from uebench.share.bundle import publish
from uebench.share.card import _name
from uebench.share.manifest import write_manifest
from uebench.share.validate import validate

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's results and what was published of them, made once."""
    root = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UEBENCH_HOME", str(root / "home"))
        patch.setenv("HOME", str(root))
        options = {"arch": "resnet9[width=2]", "protocol_options": {"epochs": 1}}
        uebench.run("none,lsp", "standard,iss", DATA, out=root / "made", device="cpu", **options)
        told = json.loads((root / "made/run.json").read_text())
        told["command"] = ["uebench", "run", "--out", f"{root}/made"]
        (root / "made/run.json").write_text(json.dumps(told))
        write_page(read_results(root / "made"))  # it shows the command
        (root / "made/notes.txt").write_text("private")
        result = call("publish", str(root / "made"), str(root / "bundle"), "--licence", "MIT")
        assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be spoiled."""
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))


def test_a_bundle_names_the_methods_that_it_lacks(made: Path, tmp_path: Path) -> None:
    assert "not uebench's" not in (made / "bundle/README.md").read_text()
    shutil.copytree(made / "made", tmp_path / "made")
    run = tmp_path / "made/run.json"
    told = json.loads(run.read_text())
    recipe = next(r for r in told["recipes"].values() if r["poison"].get("attack") == "lsp")
    recipe["poison"]["source"] = "0f" * 32
    recipe["defense"], recipe["source"] = "lsp", "0e" * 32  # an attack and a defense of one name
    run.write_text(json.dumps(told))
    publish(tmp_path / "made", tmp_path / "out", "MIT")
    card = (tmp_path / "out/README.md").read_text()
    assert f"- `lsp`: sha256 of its file {'0f' * 32}" in card
    assert f"- `lsp`: sha256 of its file {'0e' * 32}" in card


def test_a_bundle_is_complete_and_valid(made: Path, bundle: Path) -> None:
    assert {path.name for path in bundle.rglob("*") if path.suffix != ".png"} == {
        "README.md",
        "SHA256SUMS",
        "cells.csv",
        "index.html",
        "leaderboard.csv",
        "leaderboard.md",
        "leaderboard.tex",
        "pictures",
        "poisons.json",
        "records.json",
        "run.json",
    }
    texts = [p.read_text() for p in bundle.iterdir() if p.is_file()]
    assert str(made) not in "".join(texts), "a private path"
    assert [p.name for p in bundle.glob("pictures/*")] == [
        p.name for p in (made / "made/pictures").iterdir()
    ]
    readme = (bundle / "README.md").read_text()
    assert "MIT" in readme
    assert "--out ~/made" in readme
    assert len(read_records(bundle / "records.json")) == 4
    (poison,) = json.loads((bundle / "poisons.json").read_text())
    assert poison["sha256"]
    result = call("validate", str(bundle), "--json")
    assert result.exit_code == 0, result.output
    assert {f["status"] for f in json.loads(result.stdout)} == {"passed"}
    assert call("validate", str(made / "made")).exit_code == 0


def change_cells(column: str, value: object) -> Callable[[Path], None]:
    """Return what sets a column of the last cell."""

    def change(folder: Path) -> None:
        frame = pd.read_csv(folder / "cells.csv", dtype=str, keep_default_na=False)
        frame.loc[len(frame) - 1, column] = str(value)
        frame.to_csv(folder / "cells.csv", index=False)

    return change


def change_json(*path: str, value: object) -> Callable[[Path], None]:
    """Return what sets a value in run.json; `*` is the first key."""

    def change(folder: Path) -> None:
        told = json.loads((folder / "run.json").read_text())
        place = told
        for key in path[:-1]:
            place = place[next(iter(place)) if key == "*" else key]
        place[path[-1]] = value
        (folder / "run.json").write_text(json.dumps(told))

    return change


def rewrite(name: str, text: str) -> Callable[[Path], None]:
    """Return what writes a file."""
    return lambda folder: (folder / name).write_text(text) and None


SPOILED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "an accuracy no model can have": (
        change_cells("test_acc", 0.512345),
        "numbers",
        "not a multiple of 1/20",
    ),
    "another accuracy": (change_cells("test_acc_best", 0.0), "numbers", "below the last"),
    "accuracy above one": (change_cells("test_acc", 1.5), "schema", "lie in [0, 1]"),
    "another seed": (change_cells("seed", 7), "recipes", "its seed is 7, but its recipe has 0"),
    "another defense": (change_cells("defense", "at"), "recipes", "its defense is 'at'"),
    "another key": (change_cells("key", "f" * 64), "recipes", "no recipe for its key"),
    "another poison": (change_cells("poison_sha256", "e" * 64), "poisons", "has no record"),
    "another recipe": (
        change_json("recipes", "*", "seed", value=9),
        "recipes",
        "not the hash of its recipe",
    ),
    "a poison over its budget": (
        change_json("poisons", "*", "l2_max", value=99.0),
        "poisons",
        "its budget allows",
    ),
    "run.json that is none": (rewrite("run.json", "{"), "recipes", "is not JSON"),
    "no recipes": (change_json("recipes", value=[]), "recipes", "no recipes"),
    "another leaderboard": (rewrite("leaderboard.csv", "a,b\n"), "leaderboard", "line 1"),
    "records that are none": (rewrite("records.json", "{}\n"), "records", "is not of format"),
    "a record of another cell": (
        rewrite("records.json", '{"format": 1, "records": {"a": {}}}'),
        "records",
        "belongs to no cell",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_forged_results_in_a_bundle_are_found(what: str, bundle: Path) -> None:
    change, test, told = SPOILED[what]
    change(bundle)
    assert {f.test for f in validate(bundle) if f.status == "failed"} >= {"files", test}
    write_manifest(bundle)  # whoever forges results can write the hashes anew
    (found,) = [f for f in validate(bundle) if f.test == test]
    assert found.status == "failed"
    assert told in " ".join(found.problems)
    assert call("validate", str(bundle)).exit_code == 1


def test_a_wrong_manifest_is_reported(bundle: Path) -> None:
    (bundle / "new.txt").write_text("new")
    (bundle / "index.html").unlink()
    manifest = bundle / "SHA256SUMS"
    manifest.write_text(manifest.read_text() + f"{'0' * 64}  ../../secret\nnonsense\n")
    told = " ".join(validate(bundle)[0].problems)
    for part in ("new.txt is not in", "index.html is missing", "leads out of", "is not a hash"):
        assert part in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("publish none out", "no run.json"),
        ("publish made made", "already exists"),
        ("publish empty out", "no run.json"),
        ("publish foreign out", "was not written by"),
        ("publish spoiled out", "machine"),
        ("validate none", "no cells.csv"),
        ("card none.npz", "no such file"),
        ("card bare.npz", "no record"),
    ],
)
def test_results_that_cannot_be_shared_are_refused(
    arguments: str, told: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "made", tmp_path / "made")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/run.json").write_text("{}")
    shutil.copytree(made / "made", tmp_path / "spoiled")
    run = tmp_path / "spoiled/run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"machine": [1]}))
    (tmp_path / "bare.npz").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    result = call(*arguments.split())
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("stem", ["ärger", "x" * 90, "8-255", "em.v2"])
def test_a_card_gives_a_name_that_import_accepts(stem: str) -> None:
    name = _name(stem)
    assert poison_name(name) == name


@pytest.mark.parametrize("name", ["lsp.npz", "lsp.safetensors", "lsp"])
def test_a_card_describes_a_poison_and_how_to_load_it(name: str, tmp_path: Path) -> None:
    dataset = load_dataset(DATA)
    poison = uebench.craft("lsp[eps=1]", dataset, seed=3, device="cpu")
    write_poison(poison, tmp_path / name, dataset)
    result = call("card", str(tmp_path / name), "--dataset", DATA, "--licence", "CC-BY-4.0")
    assert result.exit_code == 0, result.output
    for part in ("CC-BY-4.0", poison.meta["sha256"], "| poison seed | 3 |", "l2 1,", "measured on"):
        assert part in result.stdout
    assert f"l2 {poison.meta['l2_max']:.4g}" in result.stdout
    code = result.stdout.split("```python\n")[1].split("```")[0]
    space: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(code, space)
    assert len(space["images"]) == 40  # type: ignore[arg-type]
    assert "as recorded by its maker" in call("card", str(tmp_path / name)).stdout


def test_a_card_of_another_poison_is_refused(tmp_path: Path) -> None:
    dataset = load_dataset(DATA)
    for name, seed in (("a.npz", 0), ("b.npz", 1)):
        poison = uebench.craft("lsp", dataset, seed=seed, device="cpu")
        write_poison(poison, tmp_path / name, dataset)
    (tmp_path / "a.npz").replace(tmp_path / "b.npz")
    result = call("card", str(tmp_path / "b.npz"), "--dataset", DATA)
    assert result.exit_code == 2
    assert "not the poison that its record describes" in " ".join(result.stderr.split())
