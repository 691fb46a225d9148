"""What lies in the store is listed, checked and tidied; odd folders."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from pathlib import Path

import filelock
import pytest
import torch
from click.testing import CliRunner, Result

from uebench.cli import main
from uebench.cli.store import parse_age
from uebench.execute.base import Report
from uebench.execute.notes import Notes, append
from uebench.store import owner
from uebench.store import prune as storage
from uebench.store.store import Store, key_of
from uebench.suite.import_poison import import_poison

KEYS = [key_of({"n": n}) for n in range(4)]
TENSORS = {"a": torch.arange(1000)}


def call(store: Store, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["store", *arguments], env={"UEBENCH_HOME": str(store.root)})


def age(path: Path, days: float) -> None:
    """Make a folder and its files so many days older."""
    for each in (path, *path.rglob("*")):
        then = each.lstat().st_mtime - days * 86400
        os.utime(each, (then, then))


@pytest.fixture
def full(store: Store) -> Store:
    for kind, key in zip(("cell", "poison", "kept", "dataset"), KEYS, strict=True):
        store.write(kind, key, {"name": "a", "recipe": {"seed": 1}}, TENSORS)
    return store


def test_what_is_kept_is_listed_with_sizes(full: Store) -> None:
    told = json.loads(call(full, "ls", "--json").stdout)
    assert [row["kind"] for row in told] == ["dataset", "poison", "kept", "cell"]
    assert all(row["bytes"] > 8000 for row in told)
    (row,) = json.loads(call(full, "ls", "--kind", "cell", "--json").stdout)
    assert row["key"] == KEYS[0]
    assert "4 entries" in call(full, "ls").stdout
    (full.root / "v2/cell").mkdir(parents=True)
    (full.root / "v2/cell/x").write_text("later")
    (full.base / "later_kind/k").mkdir(parents=True)
    used = json.loads(call(full, "du", "--json").stdout)
    assert used["kinds"]["layout v2"]["bytes"] == 5
    assert used["kinds"]["later_kind"]["entries"] == 1
    assert used["bytes"] == sum(kind["bytes"] for kind in used["kinds"].values())


def test_another_versions_entries_are_left_alone(full: Store) -> None:
    (full.root / "v2/cell/x").mkdir(parents=True)
    (full.base / "later_kind/k").mkdir(parents=True)
    age(full.root, 100)
    assert call(full, "prune", "--older-than", "1d", "--yes").exit_code == 0
    assert (full.root / "v2/cell/x").is_dir()
    assert (full.base / "later_kind/k").is_dir()
    assert not full.has("cell", KEYS[0])


def test_verify_finds_every_kind_of_damage(full: Store) -> None:
    assert call(full, "verify").exit_code == 0
    data = full.path("cell", KEYS[0]) / "data.safetensors"
    data.write_bytes(data.read_bytes()[:-1])
    (full.path("poison", KEYS[1]) / "meta.json").unlink()
    shutil.rmtree(full.path("kept", KEYS[2]))
    full.path("kept", KEYS[2]).write_text("a file")
    meta = full.path("dataset", KEYS[3]) / "meta.json"
    meta.write_text(meta.read_text().replace('"seed": 1', '"seed": 2'))
    dry = call(full, "verify", "--dry-run", "--json")
    assert dry.exit_code == 1
    faults = {row["kind"]: row["fault"] for row in json.loads(dry.stdout)["spoiled"]}
    assert set(faults) == {"cell", "poison", "kept", "dataset"}
    assert "checksum" in faults["cell"]
    assert "missing" in faults["poison"]
    assert call(full, "verify").exit_code == 1
    assert len(list((full.base / "spoiled").iterdir())) == 4, "set aside, not thrown away"
    assert call(full, "verify").exit_code == 0
    assert "4" in call(full, "prune").stdout
    call(full, "prune", "--yes")
    assert not list((full.base / "spoiled").iterdir())


def test_prune_lists_first_and_removes_with_yes(full: Store) -> None:
    age(full.path("cell", KEYS[0]), 40)
    before = sorted(full.base.rglob("*.json"))
    dry = call(full, "prune", "--older-than", "30d")
    assert re.search(r"1 entry \(.*\) would be removed", dry.stdout)
    assert sorted(full.base.rglob("*.json")) == before
    done = json.loads(call(full, "prune", "--older-than", "30d", "--yes", "--json").stdout)
    assert [(e["kind"], e["key"]) for e in done["entries"]] == [("cell", KEYS[0])]
    assert not full.has("cell", KEYS[0])
    assert full.has("poison", KEYS[1])
    call(full, "prune", "--kind", "poison", "--yes")
    assert not full.has("poison", KEYS[1])
    assert full.has("kept", KEYS[2])


def test_imported_poisons_stay_unless_asked_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.data.foreign.helpers import DATA, IMAGES, save_any

    save_any(tmp_path / "p.npy", IMAGES.numpy())
    import_poison(tmp_path / "p.npy", DATA, "mine", store=store)
    assert call(store, "prune", "--older-than", "0s", "--yes").exit_code == 0
    assert len(list(storage.entries(store, ["poison", "imported"]))) == 2
    call(store, "prune", "--older-than", "0s", "--imported", "--yes")
    assert not list(storage.entries(store, ["poison", "imported"]))


def test_drafts_of_killed_writers_are_swept_when_they_are_old(store: Store) -> None:
    for name, days in (("old", 2.0), ("young", 0.5), ("future", -3.0)):
        draft = store.base / "drafts" / name
        draft.mkdir(parents=True)
        (draft / "data.safetensors").write_bytes(bytes(10))
        age(draft, days)
    assert storage.tidy(store) == 1
    assert {p.name for p in (store.base / "drafts").iterdir()} == {"young", "future"}


@pytest.mark.parametrize(
    ("whose", "days", "swept"),
    [
        ("living", 40, False),
        ("dead", 0, True),
        ("dead with jobs in Slurm's queue", 2, False),
        ("dead with jobs in Slurm's queue", 31, True),
        ("of another host", 0.5, False),
        ("of another host", 2, True),
        ("of an older version", 2, True),
    ],
)
def test_notes_are_swept_when_no_living_driver_owns_them(
    whose: str, days: float, swept: bool, store: Store
) -> None:
    notes = Notes(str(store.root))
    append(notes.begin("a" * 64), Report("progress", "a" * 64))
    signature = notes.folder / owner.SIGNATURE
    told = json.loads(signature.read_text())
    match whose.split()[0], whose.split()[-1]:
        case "dead", last:
            signature.write_text(json.dumps({**told, "began": -1}))
            if last == "queue":
                (notes.folder / "slurm").mkdir()
        case "of", "host":
            signature.write_text(json.dumps({**told, "place": ["another", "", ""]}))
        case "of", "version":
            signature.unlink()
    age(notes.folder, days)
    assert json.loads(call(store, "du", "--json").stdout)["kinds"]["notes"]["entries"] == 1
    rows = json.loads(call(store, "prune", "--json").stdout)["entries"]
    assert [row["why"] for row in rows] == ["notes"] * swept
    assert storage.tidy(store) == swept
    assert notes.folder.exists() is not swept
    append(notes.begin("b" * 64), Report("progress", "b" * 64))  # a worker that outlives it


def test_a_living_driver_touches_its_notes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes(str(store.root))
    age(notes.folder, 2)
    before = (notes.folder / owner.SIGNATURE).stat().st_mtime
    notes.begin("a" * 64)
    notes.news("a" * 64)
    assert (notes.folder / owner.SIGNATURE).stat().st_mtime == before, "not at every look"
    monkeypatch.setattr(time, "monotonic", lambda: notes._refreshed + owner.REFRESH_S + 1)
    notes.news("a" * 64)
    assert (notes.folder / owner.SIGNATURE).stat().st_mtime > before


def _write_until_killed(root: str) -> None:
    store = Store(root)
    for n in range(10_000):
        store.write("kept", key_of({"w": n}), {"n": n}, {"a": torch.zeros(200_000)})


def test_a_killed_writer_leaves_no_half_entry(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    for wait in (0.05, 0.11, 0.23):
        writer = context.Process(target=_write_until_killed, args=(str(store.root),))
        writer.start()
        while not list(storage.entries(store, ["kept"])):
            time.sleep(0.01)
        time.sleep(wait)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    found = list(storage.faults(store))
    assert found
    assert all(fault is None for _, fault in found)


def test_a_draft_that_was_swept_is_written_once_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uebench.store import store as module

    real, swept = module._write_file, []

    def sweeping(path: Path, data: bytes) -> None:
        real(path, data)
        if not swept:
            swept.append(path)
            shutil.rmtree(path.parent)

    monkeypatch.setattr(module, "_write_file", sweeping)
    store.write("kept", KEYS[0], {"n": 1}, TENSORS)
    assert swept
    assert store.read("kept", KEYS[0]) is not None


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_folder_without_locks_is_used_all_the_same(
    code: int, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: object, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    _, record = store.get_or_make("kept", KEYS[0], lambda: ({}, {"n": 1}))
    assert record == {"n": 1}
    assert "has no file locks" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("ls --kind cel", "did you mean cell"),
        ("prune --older-than soon", "write it like 30d"),
        ("prune --older-than -1d", "write it like 30d"),
        ("verify --kind drafts", "no such kind"),
    ],
)
def test_bad_options_get_a_sentence(arguments: str, told: str, full: Store) -> None:
    result = call(full, *arguments.split())
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert len(list(storage.entries(full))) == 4


def test_a_missing_store_is_empty_and_is_not_created(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    for verb in ("ls", "du", "verify", "prune"):
        assert call(store, verb).exit_code == 0
    assert not store.root.exists()
    store.root.write_text("a file")
    for verb in ("ls", "du", "verify", "prune"):
        result = call(store, verb)
        assert result.exit_code == 2
        assert "is not a directory" in result.stderr


def test_a_verb_without_memory_says_so(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError("a stored array of 3 GiB cannot be mapped")

    monkeypatch.setattr("uebench.store.store._checked_tensors", refuse)
    result = call(full, "verify")
    assert result.exit_code == 2
    assert "out of memory: a stored array of 3 GiB cannot be mapped; raise" in " ".join(
        result.stderr.split()
    )
    assert len(list(storage.entries(full))) == 4


def test_ages() -> None:
    assert parse_age("30d") == parse_age("30") == 30 * 86400
    assert parse_age("1.5h") == 5400
    assert parse_age(" 2 w ") == 14 * 86400


def test_an_old_lock_that_is_held_stays(store: Store) -> None:
    with store.lock("task", "held"):
        pass
    with store.lock("task", "free"):
        pass
    for path in (store.base / "locks").iterdir():
        os.utime(path, (1, 1))
    with store.lock("task", "held"):
        assert [d.entry.key for d in storage.garbage(store) if d.why == "lock"] == [
            "task-free.lock"
        ]
    assert len([d for d in storage.garbage(store) if d.why == "lock"]) == 2
