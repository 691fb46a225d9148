"""Several results folders become one: seeds are averaged, and nothing that must not be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import uebench
from tests.share.conftest import DATA, OPTIONS
from uebench.cells.cell import seedless_key
from uebench.cli import main
from uebench.common.errors import UserError
from uebench.report import leaderboards, only_leaderboard, read_cells, read_results
from uebench.report.groups import MethodSpec
from uebench.report.records import read_records
from uebench.share.merge import merge, merged
from uebench.share.validate import validate
from uebench.store.store import key_of


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_seeds_of_two_folders_make_one_table(folders: Path, tmp_path: Path) -> None:
    names = [str(folders / "seed0"), str(folders / "seed1")]
    result = call("merge", *names, "--out", str(tmp_path / "both"))
    assert result.exit_code == 0, result.output
    assert "4 cells from 2 folders" in result.stderr
    cells = read_cells(tmp_path / "both")
    board = only_leaderboard(cells)
    for attack in ("none", "lsp"):
        parts = [read_cells(name).set_index("attack").loc[attack, "test_acc"] for name in names]
        stat = board.stat(MethodSpec(attack), MethodSpec("standard"))
        assert stat.n == 2
        assert stat.mean == pytest.approx(np.mean(parts))
        assert stat.sd == pytest.approx(np.std(parts, ddof=1))
    assert [origin.split(" (")[0] for origin in cells["origin"]] == [names[0]] * 2 + [names[1]] * 2
    assert {f.test: f.problems for f in validate(tmp_path / "both") if f.problems} == {}
    note = "".join(result.stdout.split())
    counted = f"All 4 models were taken from {names[0]} (2), {names[1]} (2); cells.csv has"
    assert "".join(counted.split()) in note, "and not which, which would be longer than the table"


def test_a_cell_of_several_folders_counts_once(folders: Path, tmp_path: Path) -> None:
    both = merge([folders / "seed0", folders / "seed1"], tmp_path / "both")
    again = merged([both.folder, folders / "seed0", folders / "seed1"])
    assert list(again.cells["key"]) == list(both.cells["key"])
    accuracies = ["test_acc", "test_acc_best", "train_acc"]
    pd.testing.assert_frame_equal(again.cells[accuracies], both.cells[accuracies])


def of_an_older_version(source: Path, to: Path) -> Path:
    """Copy results as if another version of LSP had made them: recipes and keys are others."""
    shutil.copytree(source, to)
    run = json.loads((to / "run.json").read_text())
    run["git"] = {"commit": "0" * 40, "dirty": False}
    new = {}
    for key, recipe in run["recipes"].items():
        if "what" in recipe["poison"]:
            before = key_of(recipe["poison"]), seedless_key(recipe)
            recipe["poison"]["version"] += 1
            after = key_of(recipe["poison"]), seedless_key(recipe)
            new |= {key: key_of(recipe), **dict(zip(before, after, strict=True))}
    for poison in run["poisons"].values():
        poison["recipe"]["version"] += 1
    (to / "run.json").write_text(json.dumps(run))
    for name in ("run.json", "cells.csv", "records.json"):
        text = (to / name).read_text()
        for old, key in new.items():
            text = text.replace(old, key)
        (to / name).write_text(text)
    return to


def test_cells_of_different_recipes_are_not_averaged(folders: Path, tmp_path: Path) -> None:
    older = of_an_older_version(folders / "seed1", tmp_path / "older")
    names = [str(folders / "seed0"), str(older)]
    result = call("merge", *names, "--out", str(tmp_path / "out"))
    assert result.exit_code == 1, result.output
    text = result.stderr.replace("\n", " ")
    for part in ("1 conflict", "lsp x standard", *names, "different recipes", "poison.version"):
        assert part in text
    assert not (tmp_path / "out").exists()


def test_other_protocols_stay_separate_and_names_of_data_sets_are_distinct(
    folders: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        images = rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
        labels = np.arange(60) % 2
        np.savez(
            tmp_path / place / "same.npz",
            train_images=images[:40],
            train_labels=labels[:40],
            test_images=images[40:],
            test_labels=labels[40:],
        )
        options = {**OPTIONS, "dataset": f"npz:{tmp_path / place / 'same.npz'}"}
        uebench.run("none", "standard", out=tmp_path / f"of-{place}", **options)
    joined = merged([folders / "seed0", folders / "lr", tmp_path / "of-a"])
    settings = [board.settings for board in leaderboards(joined.cells)]
    assert [each.dataset for each in settings] == [OPTIONS["dataset"]] * 2 + ["same"]
    assert [each.protocol for each in settings[:2]] == [
        "quick[batch_size=16]",
        "quick[batch_size=16,lr=0.02]",
    ]
    with pytest.raises(UserError, match="different data sets that are both called same"):
        merged([tmp_path / "of-a", tmp_path / "of-b"])


def test_a_finished_cell_replaces_an_unfinished_one(folders: Path, tmp_path: Path) -> None:
    partial = Path(shutil.copytree(folders / "seed0", tmp_path / "partial"))
    frame = read_cells(partial)
    key = str(frame.loc[1, "key"])
    measured = ("test_acc", "test_acc_best", "best_epoch", "train_acc", "n_train", "n_test")
    frame.loc[1, "status"] = "skipped"
    frame.loc[1, [*measured, "craft_seconds", "train_seconds", "peak_memory_mb", "chance"]] = pd.NA
    frame.loc[1, "n_poisoned"] = pd.NA
    texts = ["device", "poison_sha256", "record_sha256", "suite_version", "torch_version"]
    frame.loc[1, texts] = ""
    frame.to_csv(partial / "cells.csv", index=False)
    records = json.loads((partial / "records.json").read_text())
    del records["records"][key]
    (partial / "records.json").write_text(json.dumps(records))
    run = json.loads((partial / "run.json").read_text())
    for origin in run["origins"]:
        origin["cells"] = [each for each in origin["cells"] if each != key]
    (partial / "run.json").write_text(json.dumps(run))
    joined = merged([partial, folders / "seed0"])
    assert list(joined.cells["status"]) == ["ok", "ok"]
    assert list(joined.cells["key"]) == list(frame["key"])


def test_folders_are_not_overwritten(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is one of the merged folders"):
        merge([folders / "seed0", folders / "seed1"], folders / "seed1")
    (tmp_path / "cells.csv").write_text("mine")
    with pytest.raises(UserError, match="that no run wrote"):
        merge([folders / "seed0", folders / "seed1"], tmp_path)
    assert (tmp_path / "cells.csv").read_text() == "mine"


def test_table_report_and_plot_take_several_folders(folders: Path, tmp_path: Path) -> None:
    names = [str(folders / "seed0"), str(folders / "seed1")]
    table = call("table", *names, "--format", "csv")
    assert table.exit_code == 0, table.output
    assert table.stdout.count(",2,0,0,") == 2, "two entries with n = 2, none failed or skipped"
    for verb in (["report"], ["plot", "--kind", "curves"]):
        refused = call(*verb, *names)
        assert refused.exit_code == 2
        assert "give --out FOLDER" in refused.stderr
        result = call(*verb, *names, "--out", str(tmp_path / verb[0]))
        assert result.exit_code == 0, result.output
        for line in result.stdout.split():
            assert Path(line).is_file()
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"{names[1]} (2); cells.csv has the commit" in page
    mixed = call("table", "2", names[0])
    assert mixed.exit_code == 2
    assert "only results folders can be joined" in mixed.stderr


def test_the_name_of_a_folder_is_only_a_text(folders: Path, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\\input{x}\n\x1b[31m_|"
    hostile = Path(shutil.copytree(folders / "seed0", tmp_path / name))
    out = tmp_path / "out"
    merge([hostile, folders / "seed1"], out)
    assert "<img src=x" not in (out / "index.html").read_text()
    assert "&lt;img src=x" in (out / "index.html").read_text()
    assert "\\input{x}" not in (out / "leaderboard.tex").read_text()
    assert "<img src=x" not in (out / "leaderboard.md").read_text().replace("\\<", "")
    assert "\x1b" not in "".join(path.read_text() for path in out.glob("*.*"))
    assert sorted(path.name for path in (out / "pictures").iterdir()) == sorted(
        path.name for path in (folders / "seed0/pictures").iterdir()
    )


def test_poisons_of_one_recipe_with_several_hashes_are_kept_apart(
    folders: Path, tmp_path: Path
) -> None:
    shutil.copytree(folders / "seed1", tmp_path / "seed1")
    results = read_results(folders / "seed1")
    ((_, poison),) = results.poisons.values()
    for path in (tmp_path / "seed1").glob("*.[cj]s*"):
        path.write_text(path.read_text().replace(str(poison["sha256"]), "cd" * 32))
    frame = read_cells(tmp_path / "seed1")
    records = read_records(tmp_path / "seed1/records.json")
    frame["record_sha256"] = [records[key].sha256 for key in frame["key"]]
    frame.to_csv(tmp_path / "seed1/cells.csv", index=False)
    both = merge([folders / "seed0", tmp_path / "seed1"], tmp_path / "both")
    (board,) = leaderboards(both.cells)
    assert board.several_poisons == {MethodSpec("lsp"): 2}
    assert {f.test: f.problems for f in validate(both.folder) if f.problems} == {}


def test_a_folder_from_before_there_were_families_is_merged_with_a_newer_one(
    folders: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(folders / "seed1", old)
    cells = pd.read_csv(old / "cells.csv", dtype=str, keep_default_na=False)
    cells.drop(columns=["attack_family", "defense_family"]).to_csv(old / "cells.csv", index=False)
    run = json.loads((old / "run.json").read_text())
    run["git"] = {"commit": "0" * 40, "dirty": False}
    (old / "run.json").write_text(json.dumps(run))
    both = merge([folders / "seed0", old], tmp_path / "both")
    lsp = both.cells[both.cells["attack"] == "lsp"]
    assert lsp["attack_family"].tolist() == ["surrogate-free"] * 2
    assert {f.test: f.problems for f in validate(tmp_path / "both") if f.problems} == {}


def test_a_poison_with_two_names_has_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "home"))
    poisons = {name: uebench.craft(name, DATA) for name in ("lsp", "random_class")}
    for name, poison in poisons.items():
        poison.save(tmp_path / f"{name}.npz")
    for name, source in (("mine", "lsp"), ("theirs", "lsp"), ("other", "random_class")):
        uebench.import_poison(tmp_path / f"{source}.npz", DATA, name)
    uebench.run("imported:mine", "standard", out=tmp_path / "a", **OPTIONS)
    uebench.run("imported:theirs,imported:other", "standard,blur", out=tmp_path / "b", **OPTIONS)
    both = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    cells = zip(both.cells["attack"], both.cells["defense"], strict=True)
    assert sorted(cells) == [
        ("imported:mine", "blur"),
        ("imported:mine", "standard"),
        ("imported:other", "blur"),
        ("imported:other", "standard"),
    ]
    run = json.loads((tmp_path / "both/run.json").read_text())
    assert "imported:theirs" not in json.dumps(run["config"])
    assert "imported:theirs" not in run["methods"]
    assert {f.test: f.problems for f in validate(both.folder) if f.problems} == {}


def test_a_folder_of_results_folders_is_read_as_all_of_them(folders: Path, tmp_path: Path) -> None:
    for name in ("seed0", "seed1"):
        shutil.copytree(folders / name, tmp_path / "all" / name)
    together = call("table", str(tmp_path / "all"), "--format", "csv")
    assert together.exit_code == 0, together.output
    one_by_one = [str(tmp_path / "all" / name) for name in ("seed0", "seed1")]
    assert together.stdout == call("table", *one_by_one, "--format", "csv").stdout
    assert "n = 2 runs" in " ".join(str(uebench.leaderboard(tmp_path / "all")).split())
    (tmp_path / "empty").mkdir()
    assert call("table", str(tmp_path / "empty")).exit_code == 2


def test_names_of_imported_poisons_that_mean_two_things_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "home"))
    other = DATA.replace("n_test=20", "n_test=22")
    for data, names in ((DATA, ("x", "y")), (other, ("y",))):
        poison = uebench.craft("lsp", data)
        poison.save(tmp_path / f"{len(names)}.npz")
        for name in names:
            uebench.import_poison(tmp_path / f"{len(names)}.npz", data, name)
    uebench.run("imported:x", "standard", out=tmp_path / "a", **OPTIONS)
    both_sets = {**OPTIONS, "dataset": [DATA, other]}
    uebench.run("imported:y", "standard", out=tmp_path / "b", **both_sets)
    both = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert sorted(both.cells["attack"]) == ["imported:x", "imported:y", "imported:y"]
    assert {f.test: f.problems for f in validate(both.folder) if f.problems} == {}


def test_what_detectors_say_of_a_crafted_poison_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "home"))
    larger = DATA.replace("n_train=40", "n_train=60")
    options = {**OPTIONS, "dataset": larger}
    uebench.craft("lsp", larger).save(tmp_path / "lsp.npz")
    uebench.import_poison(tmp_path / "lsp.npz", larger, "mine")
    for name, attack in (("a", "lsp"), ("b", "imported:mine")):
        uebench.run(attack, "standard", out=tmp_path / name, detect=True, **options)
    both = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert {row.attack for row in both.detection} == {"lsp", "imported:mine"}
