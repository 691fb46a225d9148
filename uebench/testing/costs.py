"""Promises about time and memory, reported relative to `none` and `standard`."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..augment import crop_flip
from ..common.text import duration
from ..data import Dataset
from ..methods.base import Attack, Defense
from ..methods.registry import build_attack, build_defense
from .data import facts_of, make_run, random_dataset
from .promises import demand, promised_by
from .subject import Subject

N_CRAFTED = 1000
"""Images that attacks are timed on; memory is compared with three times as many."""
BYTES_PER_VALUE = 64
"""Most memory that an attack may take per pixel value of the training set: sixteen float32 copies
of it, which is 9.8 GB for 50,000 images of 32 px."""
BATCH = 128
_STEPS = 4


def _images(n: int) -> Dataset:
    return random_dataset([n // 10] * 10, (32, 32))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _usual(subject: Subject, dataset: Dataset) -> Attack:
    """Return the attack with its usual batches, on which its speed and memory depend."""
    size = subject.cls.model_fields.get("batch_size")
    usual = {} if size is None or "batch_size" not in subject.quick else size.default
    return subject.attack(dataset, **({"batch_size": usual} if usual else {}))


def _craft(attack: Attack, dataset: Dataset) -> Callable[[], object]:
    return lambda: attack.craft(dataset.train, make_run(dataset))


def _peak_bytes(work: Callable[[], object]) -> int | None:
    """Return by how much the process's memory rises at most during some work.

    None if the system cannot tell: only Linux allows the peak to be reset.
    """
    gc.collect()
    return_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        _status("VmHWM")
    except (OSError, LookupError):
        return None
    work()
    return max(0, _status("VmHWM") - before)


def return_freed_memory() -> None:
    """Return to the system what earlier work has freed, so that later work cannot hide in it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)


def _status(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


@promised_by(
    "attack", cases=("1,000 images",), costly=("1,000 images",), remedy="see the other tests"
)
def speed(subject: Subject, _: str) -> str:
    """How long an image takes, next to `none` on the same images; reported, never a failure."""
    dataset = _images(N_CRAFTED)
    clean = _seconds(_craft(build_attack("none").resolve(facts_of(dataset)), dataset)) / N_CRAFTED
    own = _seconds(_craft(_usual(subject, dataset), dataset)) / N_CRAFTED
    effort = ", with fewer steps than usual" if subject.quick else ""
    return (
        f"{1e3 * own:.3g} ms per image on one core (none {1e3 * clean:.3g}); 50,000 images "
        f"{duration(50_000 * own)}{effort}"
    )


@promised_by(
    "attack",
    cases=("3,000 images",),
    costly=("3,000 images",),
    remedy="work in parts: for part in delta.split(1024)",
)
def memory(subject: Subject, _: str) -> str:
    """Memory grows by a few copies of the training set only, so that 50,000 images fit."""
    peaks = []
    for n in (N_CRAFTED, 3 * N_CRAFTED):
        dataset = _images(n)
        peaks.append(_peak_bytes(_craft(_usual(subject, dataset), dataset)))
    first, second = peaks
    if first is None or second is None:
        return "not measured: this system does not report peak memory"
    growth = max(0, second - first) / (2 * N_CRAFTED * 3 * 32 * 32)
    demand(
        growth <= BYTES_PER_VALUE,
        f"{growth:.0f} bytes for each pixel value of the training set, "
        f"at most {BYTES_PER_VALUE} are allowed: "
        f"50,000 images of 32 px would take {growth * 50_000 * 3072 / 1e9:.0f} GB",
        "work in parts (for part in delta.split(1024)), and fill run.zeros(n, c, h, w)",
    )
    return f"{growth:.0f} bytes per pixel value, {growth * 50_000 * 3072 / 1e9:.1f} GB for 50,000"


@promised_by("defense", cases=("512 images",), costly=("512 images",), remedy="see the other tests")
def cost(subject: Subject, _: str) -> str:
    """How long a step takes, and its memory, next to `standard`; reported, never a failure."""
    dataset = _images(_STEPS * BATCH)
    standard = build_defense("standard").resolve(facts_of(dataset))
    own = subject.defense(dataset, 1)
    prepared = _seconds(lambda: own.prepare(dataset.train, make_run(dataset)))
    _train(standard, dataset)  # warm-up: neither of the two pays for what loads once
    plain, slower = (
        _seconds(lambda: _train(standard, dataset)),
        _seconds(lambda: _train(own, dataset)),
    )
    base, peak = (
        _peak_bytes(lambda: _train(standard, dataset)),
        _peak_bytes(lambda: _train(own, dataset)),
    )
    summary = (
        f"a step takes {slower / plain:.2g} times as long as under standard (`effort` says "
        f"{own.effort():.2g}); `prepare` {1e3 * prepared / len(dataset.train):.2g} ms per image"
    )
    if base is None or peak is None:
        return summary
    return f"{summary}; memory {max(0, peak - base) / 2**20:+.0f} MB"


def _train(defense: Defense, dataset: Dataset) -> None:
    run = make_run(dataset)
    model = run.network("resnet8")
    for rows in torch.arange(len(dataset.train)).split(BATCH):
        images = crop_flip(dataset.train.images[rows], run.rng, 4, True).float() / 255
        defense.loss(model, images, dataset.train.labels[rows], run).backward()
