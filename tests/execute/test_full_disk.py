"""Full and read-only disks, and a quota: one sentence, a whole store, and the run goes on after."""

import contextlib
import multiprocessing
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from uebench.cells.cell import dataset_ref
from uebench.cells.compute import fetch_dataset
from uebench.cli import main
from uebench.data import load_dataset
from uebench.data.dataset import keep_dataset
from uebench.store import prune as storage
from uebench.store.store import Store, StoreError, key_of

KEYS = [key_of({"n": n}) for n in range(3)]
RUN = ["run", "--attacks", "none", "--defenses", "standard", "--epochs", "1", "--device", "cpu"]
DATA = "synthetic[n_train=200,n_test=50]"


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


def _run_under_a_quota(log: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    with Path(log).open("w") as file, contextlib.redirect_stderr(file):
        main([*RUN, "--dataset", DATA, "--out", "out", "--quiet"])


def test_a_run_over_its_quota_stops_with_a_sentence_and_resumes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Files larger than 300 kB are refused by the kernel, as under a quota."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UEBENCH_HOME", str(store.root))
    context = multiprocessing.get_context("fork")
    run = context.Process(target=_run_under_a_quota, args=(str(tmp_path / "log"),))
    run.start()
    run.join(100)
    assert run.exitcode == 1
    (message,) = (tmp_path / "log").read_text().splitlines()
    assert message.startswith("stopped: cannot write to the store")
    assert "File too large" in message
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


@pytest.mark.slow
def test_a_disk_that_fills_in_the_middle_ends_the_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with mounted(tmp_path / "small", "size=2m") as folder:
        monkeypatch.setenv("UEBENCH_HOME", str(folder))
        (tmp_path / "fills.py").write_text(FILLER.format(folder=str(folder)))
        command = [*RUN, "--plugin", "fills.py", "--dataset", DATA, "--arch", "resnet8[width=8]"]
        command[command.index("standard")] = "standard,fills,iss,cutout"
        command += ["--out", "out", "--jobs", "1"]
        ended = CliRunner().invoke(main, command)
        assert ended.exit_code == 1
        message = ended.stderr.splitlines()[-1]
        assert message.startswith("stopped: ")
        assert "No space left on device" in message
        assert message.endswith("1 of 4 cells are finished; run the same command again to continue")
        assert "failed" not in ended.stderr
        assert not list((tmp_path / "out").iterdir()), "no table of failed cells"
        assert all(fault is None for _, fault in storage.faults(Store(folder)))
        (folder / "other").unlink()
        (folder / "enough").touch()
        again = CliRunner().invoke(main, command)
        assert again.exit_code == 0, again.stderr
        assert "4 cells, 1 already computed" in again.stderr


def test_a_read_only_store_is_read_and_says_why_it_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"a": torch.arange(1000)}
    with mounted(tmp_path / "shared", "size=8m") as folder:
        store = Store(folder)
        monkeypatch.setenv("UEBENCH_HOME", str(folder))
        store.write("kept", KEYS[0], {"n": 0}, tensors)
        store.write("kept", KEYS[1], {"n": 1}, tensors)
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
        assert CliRunner().invoke(main, ["store", "ls"]).exit_code == 0
        assert CliRunner().invoke(main, ["store", "prune"]).exit_code == 0
        refused = CliRunner().invoke(main, ["store", "prune", "--kind", "kept", "--yes"])
        assert refused.exit_code == 2
        assert "Read-only file system" in refused.stderr
