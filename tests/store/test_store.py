"""The store gives back what was put in, or nothing; never something spoiled."""

import errno
import multiprocessing
import os
import resource
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from uebench.execute.local import PRELOADED
from uebench.store.arrays import _DTYPES
from uebench.store.store import FullError, Store, StoreError, key_of, seed_of

TENSORS = {"a": torch.arange(6).view(2, 3), "b": torch.tensor(1.5)}
KEY = key_of({"x": 1})


def test_round_trip(store: Store) -> None:
    assert store.read("kept", KEY) is None
    store.write("kept", KEY, {"n": 1, "text": "é"}, TENSORS)
    found = store.read("kept", KEY)
    assert found is not None
    assert found[1] == {"n": 1, "text": "é"}
    assert all(torch.equal(found[0][name], value) for name, value in TENSORS.items())


def test_the_first_entry_stays(store: Store) -> None:
    store.write("kept", KEY, {"n": 1})
    store.write("kept", KEY, {"n": 2})
    assert store.read("kept", KEY) == ({}, {"n": 1})
    assert not list((store.base / "drafts").iterdir())


def test_an_entry_is_replaced_only_if_that_is_asked_for(store: Store) -> None:
    store.write("kept", KEY, {"n": 1}, TENSORS)
    store.write("kept", KEY, {"n": 2}, replace=True)
    assert store.read("kept", KEY) == ({}, {"n": 2})
    assert not list((store.base / "drafts").iterdir())


def test_a_full_disk_is_recognised_wherever_it_shows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    def full_for_tensors(*args: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("uebench.store.store.save_file", full_for_tensors)
        with pytest.raises(FullError, match="No space left on device"):
            store.write("kept", KEY, {}, TENSORS)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        with pytest.raises(FullError, match="No space left on device"):
            store.check_writable()
    assert not store.has("kept", KEY)
    assert not list((store.base / "drafts").iterdir())


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["meta.json", "data.safetensors"])
@pytest.mark.parametrize("spoil", [_truncate, _flip, Path.unlink, lambda p: p.write_text("{}")])
def test_a_spoiled_entry_is_set_aside_named_and_made_again(
    name: str, spoil: object, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.write("kept", KEY, {"n": 1}, TENSORS)
    spoil(store.path("kept", KEY) / name)  # type: ignore[operator]
    made, record = store.get_or_make("kept", KEY, lambda: (dict(TENSORS), {"n": 2}))
    assert record == {"n": 2}
    assert torch.equal(made["a"], TENSORS["a"])
    assert "spoiled store entry kept" in caplog.text
    assert len(list((store.base / "spoiled").iterdir())) == 1
    assert store.read("kept", KEY) is not None


def test_keys_and_seeds_depend_on_content_alone() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})
    assert seed_of("a", 1) == seed_of("a", 1) != seed_of("a", 2)
    assert 0 <= seed_of("x") < 2**63


def _read_under_a_limit(root: str, kind: int, queue: object) -> None:
    field = {resource.RLIMIT_DATA: "VmData", resource.RLIMIT_AS: "VmSize"}[kind]  # type: ignore[index]
    status = Path("/proc/self/status").read_text().splitlines()
    taken = next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))
    resource.setrlimit(kind, (taken + 2**22, resource.RLIM_INFINITY))
    try:
        found = Store(root).read("kept", KEY)
    except BaseException as error:
        found = type(error)  # type: ignore[assignment]
    resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    queue.put(getattr(found, "__name__", "read"))  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
@pytest.mark.parametrize("kind", [resource.RLIMIT_DATA, resource.RLIMIT_AS])
@pytest.mark.parametrize("mapped", [True, False])
def test_an_entry_without_memory_for_it_is_whole_and_stays(
    kind: int, mapped: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # more than what earlier tests may have left free in this process, which the child inherits
    tensors = {"a": torch.zeros(160_000_000, dtype=torch.uint8)}
    store.write("kept", KEY, {"n": 1}, tensors)
    monkeypatch.setattr("uebench.store.store.MAP_FROM", 0 if mapped else 2**30)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    reader = context.Process(target=_read_under_a_limit, args=(str(store.root), kind, queue))
    reader.start()
    reader.join()
    assert queue.get() == "MemoryError"
    assert not (store.base / "spoiled").exists()
    found = store.read("kept", KEY)
    assert found is not None
    assert torch.equal(found[0]["a"], tensors["a"])


@pytest.mark.parametrize("dtype", sorted(_DTYPES.values(), key=str), ids=str)
def test_every_type_comes_back_and_can_be_written_again(dtype: torch.dtype, store: Store) -> None:
    raw = torch.arange(48, dtype=torch.uint8) % 2
    tensors = {"b": raw[:32].clone().view(dtype), "a": raw.clone().view(dtype).view(-1, 2)}
    store.write("kept", KEY, {}, tensors)
    found = store.read("kept", KEY)
    assert found is not None
    store.write("kept", key_of({"x": 2}), {}, found[0])
    again = store.read("kept", key_of({"x": 2}))
    assert again is not None
    for name, value in tensors.items():
        assert again[0][name].dtype == dtype
        assert again[0][name].shape == value.shape
        assert torch.equal(again[0][name].view(torch.uint8), value.view(torch.uint8))


def _make_slowly(root: str, queue: object) -> None:
    def make():  # type: ignore[no-untyped-def]
        queue.put(os.getpid())  # type: ignore[attr-defined]
        return {}, {"by": os.getpid()}

    Store(root).get_or_make("kept", KEY, make)


def test_only_one_of_several_processes_makes_an_entry(store: Store) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)  # whatever test starts it, all others can use it
    queue = context.SimpleQueue()
    workers = [
        context.Process(target=_make_slowly, args=(str(store.root), queue)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    queue.get()
    assert queue.empty()


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="set UEBENCH_HOME"):
        Store(tmp_path / "file").write("kept", KEY, {})
    with pytest.raises(StoreError, match="set UEBENCH_HOME"):
        Store(tmp_path / "file").lock("kept", KEY)
