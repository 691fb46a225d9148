"""A killed training or crafting goes on where it was and ends with the same bits."""

import errno
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from safetensors.torch import load_file, save_file

from tests.cells.test_cell import planned
from uebench import Defense
from uebench.cells.cell import Cell
from uebench.cells.compute import compute, fetch_poison
from uebench.cli import main
from uebench.data import Dataset
from uebench.data.dataset import keep_dataset
from uebench.learn import checkpoint as module
from uebench.learn.checkpoint import Checkpoint, Unfinished, interval, pack, unpack
from uebench.learn.protocol import named_protocol
from uebench.methods.registry import build_defense
from uebench.methods.run import Run, ShowProgress
from uebench.store.prune import entries, tidy
from uebench.store.store import Store
from uebench.victims.supervised import train_model

NUMBERS = ("test_acc", "test_acc_best", "train_acc", "curve", "confusion", "poison_sha256")
SMALL_NET = "surrogate=resnet9[width=2]"


class KilledError(BaseException):
    """Stands for the end of the process."""


def killing_after(n: int) -> ShowProgress:
    """Return a progress callback that raises when it is called for the n-th time."""
    calls = []

    def progress(share: float, text: str, at_most: bool = False) -> None:
        calls.append(text)
        if len(calls) == n:
            raise KilledError

    return progress


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UEBENCH_CHECKPOINT_S", "0")


def left(store: Store) -> list[str]:
    return [entry.key for entry in entries(store, ["checkpoint"])]


def test_what_is_packed_comes_back() -> None:
    weights = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    value = {
        "a": [1, 2.5, None, True, ("x", float("inf"))],
        3: {"w": weights, "view": weights[0], "empty": torch.zeros(0), "same": weights},
    }
    back = unpack(pack(value))
    assert back["a"] == value["a"]
    assert torch.equal(back[3]["w"], weights)
    assert back[3]["w"].stride() == weights.stride()
    assert torch.equal(back[3]["view"], weights[0])
    with pytest.raises(TypeError, match="cannot hold a set"):
        pack({"a": {1}})


def test_overlapping_views_come_back_from_a_file(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    packed = pack({"head": whole[:8], "tail": whole[4:], "whole": whole})
    save_file({"state": packed}, tmp_path / "views.safetensors")
    back = unpack(load_file(tmp_path / "views.safetensors")["state"])
    assert torch.equal(back["head"], whole[:8])
    assert torch.equal(back["tail"], whole[4:])
    assert torch.equal(back["whole"], whole)


@pytest.mark.parametrize(("memory_mib", "kept"), [("1", False), ("64", True)])
def test_a_state_that_would_crowd_the_memory_is_not_kept(
    memory_mib: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_MEMORY", memory_mib)
    store = Store(tmp_path)
    target, noise = Unfinished(store, "poison", "ab", "cpu"), torch.zeros(2**16)  # a quarter MiB
    for _ in Checkpoint(target, "noise", torch.Generator(), {"noise": noise}).steps(2):
        pass
    assert bool(left(store)) is kept


@pytest.mark.parametrize(
    ("attack", "kills"),
    [
        (f"em[{SMALL_NET},rounds=4,steps=2,train_steps=3,batch_size=16]", (2, 2)),
        (f"em[{SMALL_NET},rounds=4,train_steps=3,batch_size=16,wise=class]", (3,)),
        (f"adaptive_em[{SMALL_NET},rounds=3,steps=2,train_steps=2,batch_size=16]", (2,)),
        (
            f"rem[{SMALL_NET},train_steps=4,steps=2,adv_steps=1,transform_draws=1,batch_size=16]",
            (3, 3, 2),
        ),
        (f"hypo[{SMALL_NET},surrogate_epochs=4,steps=2,batch_size=16]", (3, 4)),
        (f"tap[{SMALL_NET},surrogate_epochs=3,steps=2,restarts=3,batch_size=16]", (2, 4, 3)),
        (f"sep[{SMALL_NET},surrogate_epochs=4,checkpoints=2,steps=2,batch_size=16]", (3, 4)),
        (f"aue[{SMALL_NET},epochs=4,steps=2,batch_size=16]", (2, 2)),
    ],
)
def test_a_crafting_goes_on_with_the_same_bits(
    attack: str, kills: tuple[int, ...], tiny: Dataset, tmp_path: Path
) -> None:
    cell = planned(tiny, attacks=attack)
    whole = fetch_poison(Store(tmp_path / "whole"), cell.poison, tiny.train)
    store = Store(tmp_path / "killed")
    for n in kills:
        with pytest.raises(KilledError):
            fetch_poison(store, cell.poison, tiny.train, progress=killing_after(n))
        assert left(store)
    again = fetch_poison(store, cell.poison, tiny.train)
    assert again.meta["sha256"] == whole.meta["sha256"]
    assert not left(store), "nothing is left of what is done"
    assert not left(Store(tmp_path / "whole"))


@pytest.mark.parametrize("defense", ["standard", "ueraser", "at", "mixup"])
def test_a_training_goes_on_with_the_same_bits(defense: str, tiny: Dataset, tmp_path: Path) -> None:
    cell = planned(tiny, attacks="lsp", defenses=defense)
    changes = {"epochs": 4, "normalise": "dataset", "alternate": True}
    protocol = cell.protocol.model_copy(update=changes)
    cell = replace(cell, protocol=protocol)
    whole, killed = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    for store in (whole, killed):
        keep_dataset(store, tiny)
    expected = compute(cell, whole, "cpu")
    steps = []
    for n in (2, 2):
        with pytest.raises(KilledError):
            compute(cell, killed, "cpu", killing_after(n))
        steps.append(left(killed)[-1][-9:])
    assert steps == ["000000001", "000000002"], "the second one went on from the first"
    record = compute(cell, killed, "cpu")
    assert record["resumed"] == {"training": 2}
    assert "resumed" not in expected
    assert {k: record[k] for k in NUMBERS} == {k: expected[k] for k in NUMBERS}
    assert record["train_seconds"] > 0
    assert not left(killed)


def _computing(cell: Cell, root: str) -> None:
    compute(cell, Store(root), "cpu")


def test_a_training_survives_kill_9(tiny: Dataset, tmp_path: Path) -> None:
    """Real processes and real signals, at moments that nobody chose."""
    cell = planned(tiny, attacks="none", defenses="standard")
    protocol = cell.protocol.model_copy(update={"epochs": 16})
    cell = replace(cell, protocol=protocol)
    whole, killed = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    for store in (whole, killed):
        keep_dataset(store, tiny)
    expected = compute(cell, whole, "cpu")
    context = multiprocessing.get_context("fork")
    kills = 0
    for wait in (0.0, 0.037):
        worker = context.Process(target=_computing, args=(cell, str(killed.root)))
        before = left(killed)
        worker.start()
        deadline = time.monotonic() + 60
        while left(killed) == before and worker.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(wait)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        kills += worker.exitcode == -signal.SIGKILL
    assert kills
    record = compute(cell, killed, "cpu")
    assert {k: record[k] for k in NUMBERS} == {k: expected[k] for k in NUMBERS}
    assert not left(killed)
    assert not list((killed.base / "spoiled").glob("*")), "no half-written checkpoint was read"


def interrupted(cell: Cell, store: Store, dataset: Dataset) -> Path:
    """Leave a checkpoint of a cell; return its folder."""
    keep_dataset(store, dataset)
    with pytest.raises(KilledError):
        compute(cell, store, "cpu", killing_after(2))
    (key,) = left(store)
    return store.path("checkpoint", key)


def test_a_spoiled_checkpoint_is_set_aside_and_changes_no_number(
    tiny: Dataset, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cell = planned(tiny, attacks="none", defenses="standard")
    folder = interrupted(cell, store, tiny)
    data = bytearray((folder / "data.safetensors").read_bytes())
    data[-7] ^= 4
    (folder / "data.safetensors").write_bytes(data)
    record = compute(cell, store, "cpu")
    assert "spoiled store entry checkpoint" in caplog.text
    other = Store(tmp_path / "other")
    keep_dataset(other, tiny)
    expected = compute(cell, other, "cpu")
    assert {k: record[k] for k in NUMBERS} == {k: expected[k] for k in NUMBERS}


def test_a_checkpoint_that_does_not_fit_is_removed_and_reported(
    tiny: Dataset, store: Store
) -> None:
    cell = planned(tiny, attacks="none", defenses="standard")
    key = interrupted(cell, store, tiny).name
    entry = store.read("checkpoint", key)
    assert entry is not None
    store.remove("checkpoint", key)
    store.write("checkpoint", key, entry[1], {name: torch.zeros(1) for name in entry[0]})
    with pytest.raises(RuntimeError, match=r"does not fit .* start over"):
        compute(cell, store, "cpu")
    assert compute(cell, store, "cpu")["test_acc"] >= 0


@pytest.mark.parametrize("what", ["suite", "torch", "threads"])
def test_another_version_or_machine_starts_afresh(
    what: str, tiny: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = planned(tiny, attacks="none", defenses="standard")
    interrupted(cell, store, tiny)
    if what == "suite":
        monkeypatch.setattr(module, "__version__", "9.9")
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    else:
        monkeypatch.setattr(module, "machine", lambda device: {"threads": 99})
    assert "resumed" not in compute(cell, store, "cpu")
    assert len(left(store)) == 1
    assert tidy(store) == 1, "its cell is done"


def test_a_full_store_ends_the_saving_and_not_the_training(
    tiny: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep_dataset(store, tiny)
    real, calls = Store._write, []

    def write(self: Store, kind: str, *rest: Any) -> None:
        if kind == "checkpoint":
            calls.append(kind)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, kind, *rest)

    monkeypatch.setattr(Store, "_write", write)
    record = compute(planned(tiny, attacks="none", defenses="standard"), store, "cpu")
    assert record["test_acc"] >= 0
    assert len(calls) == 1, "it is not tried again"
    assert "No space left on device" in caplog.text


def loop(store: Store, **parts: Any) -> Checkpoint:
    return Checkpoint(Unfinished(store, "kept", "k", "cpu"), "loop", torch.Generator(), parts)


def test_saving_takes_less_than_a_hundredth_of_the_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_CHECKPOINT_S", "1")
    clock, saved = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def save(self: Store, kind: str, key: str, *_: Any) -> None:
        saved.append(clock[0])
        clock[0] += 5

    monkeypatch.setattr(Store, "write", save)
    for _ in loop(store).steps(2000):
        clock[0] += 1
    assert 2 <= len(saved) <= 5
    assert 5 * len(saved) <= 0.011 * clock[0]


def test_the_interval_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, store: Store, tiny: Dataset
) -> None:
    monkeypatch.delenv("UEBENCH_CHECKPOINT_S")
    assert interval() == 60
    list(loop(store).steps(3))
    assert not left(store), "a short loop leaves nothing"
    monkeypatch.setenv("UEBENCH_CHECKPOINT_S", "off")
    assert interval() is None
    list(loop(store).steps(3))
    assert not left(store)
    for text in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("UEBENCH_CHECKPOINT_S", text)
        with pytest.raises(ValueError, match=r"must be a number of seconds \(0 or more\) or off"):
            interval()
    from click.testing import CliRunner

    result = CliRunner().invoke(main, ["run", "--attacks", "none", "--device", "cpu"])
    assert result.exit_code == 2
    assert "UEBENCH_CHECKPOINT_S" in result.stderr


def test_a_part_without_a_state_is_refused(store: Store) -> None:
    with pytest.raises(TypeError, match="n of the checkpoint 'loop' is a int; give tensors"):
        loop(store, n=3)


def test_facts_that_cannot_be_kept_are_refused_at_the_first_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_CHECKPOINT_S", "3600")
    checkpoint = loop(store)
    checkpoint.facts["seen"] = {1, 2}
    with pytest.raises(TypeError, match="cannot hold a set"):
        list(checkpoint.steps(2))


class Counting(Defense):
    """Hides a state."""

    _seen: int = PrivateAttr(0)


class Telling(Counting):
    """Saves it."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen = state["seen"]


@pytest.mark.parametrize(("defense", "kept"), [(Counting(), 0), (Telling(), 1)])
def test_a_defense_with_a_hidden_state_is_trained_from_the_start(
    defense: Defense, kept: int, tiny: Dataset, store: Store
) -> None:
    run = Run(shape=tiny.shape, n_classes=2, seed=0, store=store, leads_to=("cell", "c"), epochs=2)
    protocol = named_protocol("quick", "", epochs=2, batch_size=20)
    train_model(tiny.train, tiny.test, "resnet9[width=2]", protocol, defense, run)
    assert len(left(store)) == kept
    run.forget_checkpoints()
    assert not left(store)


def test_a_run_without_a_store_is_a_plain_loop(tiny: Dataset) -> None:
    run = Run(shape=tiny.shape, n_classes=2, seed=0)
    assert list(run.checkpoint("x", model=run.network("resnet9[width=2]")).steps(3)) == [0, 1, 2]
    assert build_defense("standard") is not None
