"""Large arrays: where they lie, that they are the same there, and that memory does not grow."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_run
from uebench import memory, trainer
from uebench.api import Attack, Facts
from uebench.attacks import ar, lsp
from uebench.data.dataset import Dataset, from_splits
from uebench.data.split import Split
from uebench.files import audit_poison, write_poison
from uebench.memory import zeros
from uebench.poison import Poison, poisoned
from uebench.protocol import PROTOCOLS
from uebench.registry import build_attack, build_defense
from uebench.store import Store
from uebench.trainer import train_model

SIDE, CLASSES = 64, 4
N = 1600
"""Images of the larger set: 19 MiB, and 75 MiB of noise."""
GROWTH = 9.0
"""MiB that work on it may take above work on a quarter; a copy of the
rest has 14, of its noise 56."""
MIB = 2**20


def lies_in_a_file(values: torch.Tensor) -> bool:
    """Whether a tensor's pages belong to a file and not to this process."""
    address = values.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, _, device, *_ = line.split()
        low, high = (int(end, 16) for end in place.split("-"))
        if low <= address < high:
            return device != "00:00"
    raise AssertionError("not mapped at all")


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make 1 MiB a lot, and chunks small."""
    monkeypatch.setenv("UEBENCH_MEMORY", "4")
    monkeypatch.setattr(memory, "CHUNK", 2**16)
    monkeypatch.setattr(lsp, "TOGETHER", 2**16)
    monkeypatch.setattr(ar, "GRID_VALUES", 2**19)
    monkeypatch.setattr(trainer, "EVAL_VALUES", 2**19)


def large_dataset(n: int) -> Dataset:
    """Random images that lie where large ones lie."""
    rng = torch.Generator().manual_seed(0)
    splits = []
    for size in (n, CLASSES):
        images = zeros((size, 3, SIDE, SIDE), torch.uint8)
        for part in images.split(20):
            part[:] = torch.randint(0, 256, part.shape, generator=rng, dtype=torch.uint8)
        splits.append(Split(images, torch.arange(size) % CLASSES, tuple("abcd")))
    return from_splits("large", *splits)


@contextlib.contextmanager
def peak_mib() -> Iterator[list[float]]:
    """Give the most memory that this process took for itself, above what it had, in MiB."""

    def own() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    start, most, stop = own(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            most[0] = max(most[0], own() - start)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        stop.set()
        watcher.join()


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """Kernels of AR that are bounded, so that none are searched for."""
    found = np.zeros((CLASSES, 3, 3, 3), np.float32)
    found[:, :, 2, 1], found[:, :, 1, 2] = 0.6, 0.4
    np.save(tmp_path / "kernels.npy", found)
    return tmp_path / "kernels.npy"


def small_attack(name: str, kernels: Path) -> Attack:
    """An attack that does little, in batches that the smaller set fills."""
    surrogate = {"surrogate": "resnet8[width=4]", "steps": 1, "batch_size": 16}
    options = {
        "em": {"rounds": 1, "train_steps": 2, **surrogate},
        "ar": {"kernels": f"{kernels}"},
        "rem": {"train_steps": 1, "adv_steps": 1, "transform_draws": 1, **surrogate},
        "lsp": {},
    }
    facts = Facts("test", CLASSES, (3, SIDE, SIDE), 1, "resnet8[width=4]")
    return build_attack(name, options[name]).resolve(facts)


@pytest.mark.parametrize("name", ["lsp", "ar", "em", "rem"])
def test_memory_does_not_grow_with_the_set_that_is_poisoned(
    name: str, kernels: Path, scarce: None
) -> None:
    made = small_attack(name, kernels)
    peaks = []
    warm = large_dataset(20)
    made.craft(warm.train, make_run(warm))  # what libraries keep for themselves
    for n in (N // 4, N):
        dataset = large_dataset(n)
        with peak_mib() as most:
            poison = made.craft(dataset.train, make_run(dataset))
        peaks.append(most[0])
    assert lies_in_a_file(poison.images)
    print(name, peaks)
    assert peaks[1] < peaks[0] + GROWTH


def test_memory_does_not_grow_with_the_set_that_is_kept_audited_and_trained_on(
    scarce: None, store: Store, tmp_path: Path
) -> None:
    protocol = PROTOCOLS["quick"].model_copy(update={"epochs": 1, "batch_size": 16})
    peaks: dict[str, list[float]] = {}
    for n in (N // 4, N):
        dataset = large_dataset(n)
        images = memory.copied(dataset.train.images)
        for part in images.split(20):
            part[:] = part ^ 1
        meta = {}
        tensors = {"images": images, "labels": dataset.train.labels, "index": torch.arange(n)}
        with peak_mib() as most:
            store.write("poison", f"{n}", {}, tensors)
        peaks.setdefault("write", []).append(most[0])
        with peak_mib() as most:
            found = store.read("poison", f"{n}")[0]
        peaks.setdefault("read", []).append(most[0])
        poison = Poison(found["images"], found["labels"], found["index"], meta)
        with peak_mib() as most:
            assert audit_poison(poison, dataset)["linf_max"] == 1
        peaks.setdefault("audit", []).append(most[0])
        with peak_mib() as most:
            # .npz is written by numpy, 16 MiB at a time whatever the set
            write_poison(poison, tmp_path / f"{n}.safetensors", dataset)
        peaks.setdefault("files", []).append(most[0])
        with peak_mib() as most:
            half = poisoned(dataset.train, poison, torch.arange(n) % 2 == 0)
            defense = build_defense("iss[mode=gray]")
            run = make_run(dataset)
            data = defense.prepare(half.to("cpu"), run)
            train_model(data, dataset.test, "resnet8[width=4]", protocol, defense, run)
        peaks.setdefault("train", []).append(most[0])
    print(peaks)
    assert {what: b < a + GROWTH for what, (a, b) in peaks.items()} == dict.fromkeys(peaks, True)
