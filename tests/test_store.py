"""The store gives back what was put in, or nothing; never something spoiled."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from uebench.store import Store, StoreError, key_of, seed_of

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


def _make_slowly(root: str, queue: object) -> None:
    def make():  # type: ignore[no-untyped-def]
        queue.put(os.getpid())  # type: ignore[attr-defined]
        return {}, {"by": os.getpid()}

    Store(root).get_or_make("kept", KEY, make)


def test_only_one_of_several_processes_makes_an_entry(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
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
