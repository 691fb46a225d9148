"""Large arrays: where they lie, that they are the same there, and that memory does not grow."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import make_run
from uebench.attacks import ar, lsp
from uebench.data.dataset import Dataset, from_splits
from uebench.data.poison import Poison, poisoned
from uebench.data.poison_files import audit_poison
from uebench.data.poison_writing import write_poison
from uebench.data.split import Split
from uebench.execute.base import Orders
from uebench.execute.local import LocalPool
from uebench.learn import loops
from uebench.learn.protocol import PROTOCOLS
from uebench.methods.base import Attack, Facts
from uebench.methods.registry import build_attack, build_defense
from uebench.store import arrays as memory
from uebench.store.arrays import RoomError, gathered, mapped_safetensors, total_memory, zeros
from uebench.store.store import Store
from uebench.testing.costs import return_freed_memory
from uebench.victims.supervised import train_model

SIDE, CLASSES = 64, 4
N = 800
"""Images of the larger set: 9.4 MiB, and 37 MiB of noise."""
TRIES = 10
"""How often both sets are measured: a look at the memory of a busy machine may miss a peak."""
M_MMAP_THRESHOLD = -3
"""Of mallopt: setting it also ends its growing with what is freed."""
GROWTH = 6.0
"""MiB that work on it may take above work on a quarter: a copy of the rest has 7, its noise 28."""


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
    monkeypatch.setattr(memory, "CHUNK", 2**18)
    monkeypatch.setattr(lsp, "PAINTED_VALUES", 2**18)
    monkeypatch.setattr(ar, "GRID_VALUES", 2**20)
    monkeypatch.setattr(loops, "EVAL_VALUES", 2**19)
    with contextlib.suppress(AttributeError):  # glibc: what is freed goes back at once
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)


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

    # what earlier tests left free counts as taken otherwise, and is taken again without notice
    return_freed_memory()
    start, most, stop = own(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            most[0] = max(most[0], own() - start)
            time.sleep(0.001)  # AR makes the smaller set in a few hundredths of a second

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


def grown(measure: Callable[[int], dict[str, float]]) -> list[str]:
    """Return what takes more memory for N images than for a quarter of them.

    A peak may be too short for a look to meet it, and the larger set has more of them: one that was
    met there alone by chance is told from growth, which is there every time, by trying again.
    """
    measure(N // 4)  # for what libraries keep for themselves
    large, small = dict[str, float](), dict[str, float]()
    for _ in range(TRIES):
        for what, peak in measure(N).items():
            large[what] = min(peak, large.get(what, peak))
        for what, peak in measure(N // 4).items():
            small[what] = max(peak, small.get(what, peak))
        more = [what for what, peak in large.items() if peak >= small[what] + GROWTH]
        if not more:
            break
    return more


def small_attack(name: str, kernels: Path) -> Attack:
    """An attack that does little, in batches that the smaller set fills."""
    surrogate = {"surrogate": "resnet8[width=4]", "steps": 1, "batch_size": 16}
    options = {
        "em": {"rounds": 1, "train_steps": 1, **surrogate},
        "ar": {"kernels": f"{kernels}"},
        "lsp": {},
    }
    facts = Facts("test", CLASSES, (3, SIDE, SIDE), 1, "resnet8[width=4]")
    return build_attack(name, options[name]).resolve(facts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsp", "ar", "em"])
def test_memory_does_not_grow_with_the_set_that_is_poisoned(
    name: str, kernels: Path, scarce: None
) -> None:
    made = small_attack(name, kernels)

    def measure(n: int) -> dict[str, float]:
        dataset = large_dataset(n)
        with peak_mib() as most:
            poison = made.craft(dataset.train, make_run(dataset))
        assert lies_in_a_file(poison.images)
        return {name: most[0]}

    assert grown(measure) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set_that_is_kept_audited_and_trained_on(
    scarce: None, store: Store, tmp_path: Path
) -> None:
    protocol = PROTOCOLS["quick"].model_copy(update={"epochs": 1, "batch_size": 16})
    names = itertools.count()

    def measure(n: int) -> dict[str, float]:
        peaks, name = dict[str, float](), f"{next(names)}"
        dataset = large_dataset(n)
        images = memory.copied(dataset.train.images)
        for part in images.split(20):
            part[:] = part ^ 1
        assert lies_in_a_file(images)
        tensors = {"images": images, "labels": dataset.train.labels, "index": torch.arange(n)}
        with peak_mib() as most:
            store.write("poison", name, {}, tensors)
        peaks["write"] = most[0]
        with peak_mib() as most:
            found = store.read("poison", name)[0]
        assert lies_in_a_file(found["images"])
        peaks["read"] = most[0]
        poison = Poison(found["images"], found["labels"], found["index"])
        with peak_mib() as most:
            assert audit_poison(poison, dataset)["linf_max"] == 1
        peaks["audit"] = most[0]
        with peak_mib() as most:
            # .npz is written by numpy, 16 MiB at a time whatever the set
            write_poison(poison, tmp_path / f"{name}.safetensors", dataset)
        peaks["files"] = most[0]
        with peak_mib() as most:
            half = poisoned(dataset.train, poison, torch.arange(n) % 2 == 0)
            defense = build_defense("iss[mode=gray]").method
            run = make_run(dataset)
            data = defense.prepare(half.to("cpu"), run)
            train_model(data, dataset.test, "resnet8[width=4]", protocol, defense, run)
        peaks["train"] = most[0]
        return peaks

    assert grown(measure) == []


def test_zeros_lie_where_there_is_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert not lies_in_a_file(zeros((2**18,)))
    monkeypatch.setenv("UEBENCH_MEMORY", "4")
    small, large = zeros((2**18 - 1,)), zeros((2, 2**17))
    assert not lies_in_a_file(small)
    assert lies_in_a_file(large)
    assert large.dtype == torch.float32
    assert not large.any()
    large[1, 5] = 3
    assert large.sum() == 3
    assert not list(tmp_path.iterdir()), "it has a name, so a killed process leaves it behind"


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UEBENCH_MEMORY", "4")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(RoomError, match=r"no room for 1.05e\+06 GiB in .*set TMPDIR to a folder"):
        zeros((2**48,))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file"))
    with pytest.raises(RoomError, match="set TMPDIR"):
        zeros((2**20,))


@pytest.mark.parametrize("text", ["much", "0", "-5", "nan", "inf"])
def test_a_memory_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UEBENCH_MEMORY", text)
    with pytest.raises(RoomError, match=f"number of MiB, such as 8000, got {text}"):
        total_memory()


def test_the_memory_is_shared_and_limits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UEBENCH_MEMORY", raising=False)
    monkeypatch.setattr(memory, "_sharers", 1)
    whole = total_memory()
    memory.share_memory(3)
    assert total_memory() == whole // 3
    limits = {resource.RLIMIT_DATA: 3 * 10**6, resource.RLIMIT_AS: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], -1))
    assert total_memory() == 3 * 10**6
    limits[resource.RLIMIT_AS] = 10**6
    assert total_memory() == 10**6
    monkeypatch.setenv("UEBENCH_MEMORY", "7")
    assert total_memory() == 7 * 2**20, "who says it is believed"
    pool = LocalPool(Orders("store", "cpu"), ["cpu"], jobs=5)
    assert pool.orders.sharers == 5, "workers are told"


def test_rows_are_the_same_wherever_they_lie(scarce: None) -> None:
    dataset = large_dataset(100)
    index = torch.tensor([99, 3, 3, 50] * 30)
    there = dataset.train
    here = there.with_images(torch.cat([there.images[:50], there.images[50:]]))
    assert lies_in_a_file(there.images)
    assert not lies_in_a_file(here.images)
    assert torch.equal(there.take(index), here.images[index])
    assert torch.equal(there.pixels(slice(3, 5)), here.images[3:5] / 255)
    many, few = there.subset(index), there.subset(index[:3])
    assert torch.equal(many.images, here.images[index])
    assert lies_in_a_file(many.images)
    assert not lies_in_a_file(few.images)
    assert torch.equal(many.labels, there.labels[index])
    assert torch.equal(gathered(here.images, index, here.device), many.images)
    inverted = there.changed(lambda images: 255 - images)
    assert torch.equal(inverted.images, 255 - here.images)


def test_what_is_mapped_is_as_it_was_written_and_its_file_is_never_changed(
    tmp_path: Path,
) -> None:
    tensors = {
        "images": torch.randint(0, 256, (3, 2, 5, 5), dtype=torch.uint8),
        "labels": torch.arange(3),
        "empty": torch.zeros(0, 4),
        "number": torch.tensor(1.5, dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"told": "something"})
    before = (tmp_path / "x.safetensors").read_bytes()
    found = mapped_safetensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert all(found[name].dtype == tensors[name].dtype for name in tensors)
    found["images"].zero_()
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_a_poison_of_all_images_is_not_copied_and_of_some_is(scarce: None) -> None:
    train = large_dataset(60).train
    images = 255 - train.images
    whole = Poison(images, train.labels, torch.arange(60))
    assert poisoned(train, whole).images is images
    half = torch.arange(60) % 2 == 0
    clean = train.images.clone()
    back = Poison(images[::3], train.labels[::3], torch.arange(0, 60, 3))
    for poison, chosen in ((whole, half), (back, None), (back, half)):
        expected = clean.clone()
        for i, at in enumerate(poison.index.tolist()):
            if chosen is None or chosen[at]:
                expected[at] = poison.images[i]
        assert torch.equal(poisoned(train, poison, chosen).images, expected)
