"""What lies in the store is listed, checked and tidied; full, read-only and odd folders."""

import contextlib
import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest
import torch
from click.testing import CliRunner, Result

from uebench import owner, registry, storage
from uebench.cell import dataset_ref
from uebench.cli import main
from uebench.cli_store import parse_age
from uebench.compute import fetch_dataset, keep_dataset
from uebench.data import load_dataset
from uebench.execute.base import Report
from uebench.execute.notes import Notes, append
from uebench.importing.keep import import_poison
from uebench.store import Store, StoreError, key_of

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


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own, where this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


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


def test_prune_says_first_and_removes_when_told(full: Store) -> None:
    age(full.path("cell", KEYS[0]), 40)
    before = sorted(full.base.rglob("*.json"))
    dry = call(full, "prune", "--older-than", "30d")
    assert "1 would go" in dry.stdout
    assert sorted(full.base.rglob("*.json")) == before
    done = json.loads(call(full, "prune", "--older-than", "30d", "--yes", "--json").stdout)
    assert [(e["kind"], e["key"]) for e in done["entries"]] == [("cell", KEYS[0])]
    assert not full.has("cell", KEYS[0])
    assert full.has("poison", KEYS[1])
    call(full, "prune", "--kind", "poison", "--yes")
    assert not full.has("poison", KEYS[1])
    assert full.has("kept", KEYS[2])


def test_imported_poisons_stay_unless_they_are_meant(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.importing.helpers import DATA, IMAGES, save_any

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
    from uebench import store as module

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


def test_a_full_disk_is_one_sentence_and_spoils_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=1m") as folder:
        store = Store(folder)
        store.write("kept", KEYS[0], {"n": 0}, {"a": torch.zeros(1000)})
        with pytest.raises(StoreError, match="No space left on device; free space or set"):
            store.write("kept", KEYS[1], {"n": 1}, {"a": torch.zeros(1_000_000)})
        assert store.read("kept", KEYS[1]) is None
        assert not list((store.base / "drafts").iterdir())
        assert all(fault is None for _, fault in storage.faults(store))
        (folder / "mine").write_bytes(bytes(980_000))
        with pytest.raises(StoreError, match="No space left on device"):
            store.check_writable()
        store.remove("kept", KEYS[0])  # what makes room needs none
        (folder / "mine").unlink()
        store.write("kept", KEYS[1], {"n": 1}, {"a": torch.zeros(1000)})
        assert store.read("kept", KEYS[1]) is not None


RUN = ["run", "--attacks", "none", "--defenses", "standard", "--epochs", "1", "--device", "cpu"]
DATA = "synthetic[n_train=200,n_test=50]"


def _run_under_a_quota(told: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    with Path(told).open("w") as file, contextlib.redirect_stderr(file):
        main([*RUN, "--dataset", DATA, "--out", "out", "--quiet"])


def test_a_run_over_its_quota_says_so_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Files larger than 300 kB are refused by the kernel, as under a quota."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UEBENCH_HOME", str(store.root))
    context = multiprocessing.get_context("fork")
    run = context.Process(target=_run_under_a_quota, args=(str(tmp_path / "told"),))
    run.start()
    run.join(100)
    assert run.exitcode == 1
    (told,) = (tmp_path / "told").read_text().splitlines()
    assert told.startswith("stopped: cannot write to the store")
    assert "File too large" in told
    assert not list((store.base / "drafts").iterdir())
    assert not list(storage.entries(store))
    dataset = load_dataset(DATA)
    keep_dataset(store, dataset)
    assert fetch_dataset(store, dataset_ref(dataset)).fingerprint == dataset.fingerprint


FILLER = """
from contextlib import suppress
from pathlib import Path
from uebench import Defense, defense

@defense("fills", title="Fills", source="a test")
class Fills(Defense):
    \"\"\"Fills the store's disk, as somebody else may at any moment.\"\"\"
    def prepare(self, data, run):
        \"\"\"Fill it, unless there is a file `enough`.\"\"\"
        folder = Path({folder!r})
        if not (folder / "enough").exists():
            with suppress(OSError), (folder / "other").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        return data
"""


def test_a_disk_that_fills_in_the_middle_ends_the_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.load()
    monkeypatch.setattr(registry, "_methods", {k: dict(v) for k, v in registry._methods.items()})
    monkeypatch.setattr(registry, "_files", [])
    monkeypatch.chdir(tmp_path)
    with mounted(tmp_path / "small", "size=2m") as folder:
        monkeypatch.setenv("UEBENCH_HOME", str(folder))
        (tmp_path / "fills.py").write_text(FILLER.format(folder=str(folder)))
        command = [*RUN, "--plugin", "fills.py", "--dataset", DATA, "--arch", "resnet8[width=8]"]
        command[command.index("standard")] = "standard,fills,iss,cutout"
        command += ["--out", "out", "--jobs", "1"]
        ended = CliRunner().invoke(main, command)
        assert ended.exit_code == 1
        told = ended.stderr.splitlines()[-1]
        assert told.startswith("stopped: ")
        assert "No space left on device" in told
        assert told.endswith("1 of 4 cells are kept; type the same command again to go on")
        assert "failed" not in ended.stderr
        assert not list((tmp_path / "out").iterdir()), "no table of failed cells"
        assert all(fault is None for _, fault in storage.faults(Store(folder)))
        (folder / "other").unlink()
        (folder / "enough").touch()
        again = CliRunner().invoke(main, command)
        assert again.exit_code == 0, again.stderr
        assert "4 cells, 1 of them known" in again.stderr


def test_a_read_only_store_is_read_and_says_why_it_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(tmp_path / "shared", "size=8m") as folder:
        store = Store(folder)
        store.write("kept", KEYS[0], {"n": 0}, TENSORS)
        store.write("kept", KEYS[1], {"n": 1}, TENSORS)
        (store.path("kept", KEYS[1]) / "data.safetensors").write_bytes(b"spoiled")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert store.read("kept", KEYS[0]) is not None
        assert store.get_or_make("kept", KEYS[0], dict)[1] == {"n": 0}  # type: ignore[arg-type]
        assert store.read("kept", KEYS[1]) is None
        assert "it is not used, and stays where it is (Read-only file system)" in caplog.text
        with pytest.raises(
            StoreError, match=r"cannot write .*Read-only file system; .*UEBENCH_HOME"
        ):
            store.get_or_make("kept", KEYS[2], lambda: ({}, {}))
        assert call(store, "ls").exit_code == 0
        assert call(store, "prune").exit_code == 0
        refused = call(store, "prune", "--kind", "kept", "--yes")
        assert refused.exit_code == 2
        assert "Read-only file system" in refused.stderr


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


def test_a_store_that_is_not_there_is_empty_and_stays_away(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    for verb in ("ls", "du", "verify", "prune"):
        assert call(store, verb).exit_code == 0
    assert not store.root.exists()
    store.root.write_text("a file")
    for verb in ("ls", "du", "verify", "prune"):
        result = call(store, verb)
        assert result.exit_code == 2
        assert "is no folder" in result.stderr


def test_a_verb_without_memory_says_so(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError("a stored array of 3 GiB cannot be mapped")

    monkeypatch.setattr("uebench.store._checked_tensors", refuse)
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
