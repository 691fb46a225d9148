"""Shared by all tests: a store of their own, checked array shapes, and tiny data sets.

Shapes in the annotations are checked while the tests run (jaxtyping with beartype).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")
CHECKED = ["uebench.augment", "uebench.poison", "uebench.descent", "uebench.models.resnet"]
install_import_hook([*CHECKED, "uebench.attacks", "uebench.defenses"], "beartype.beartype")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from uebench.api import Run  # noqa: E402
from uebench.data import Dataset, from_arrays, load_dataset  # noqa: E402
from uebench.store import Store  # noqa: E402

torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's store."""
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    """40 training and 20 test images of 2 classes, 16x16."""
    return load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")


@pytest.fixture(scope="session")
def small() -> Dataset:
    """200 training and 100 test images of 10 classes, 32x32."""
    return load_dataset("synthetic[n_train=200,n_test=100]")


@pytest.fixture(scope="session")
def cifar() -> Dataset:
    """1,000 lossless training images of CIFAR-10, where the shared data lies beside the project."""
    path = SHARED / "cifar10-small.npz"
    if not path.is_file():
        pytest.skip("needs ../shared/data/cifar10-small.npz, which is not part of the project")
    return load_dataset(f"npz:{path}[n_train=1000]")


def random_dataset(
    sizes: list[int], side: tuple[int, int] = (16, 16), seed: int = 0, channels: int = 3
) -> Dataset:
    """Return random images, `sizes[label]` training images of each class and one test image."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = rng.integers(0, 256, (len(labels), *side, channels), dtype=np.uint8)
    test = rng.integers(0, 256, (len(sizes), *side, channels), dtype=np.uint8)
    return from_arrays("random", (images, labels), (test, np.arange(len(sizes))), None)


def make_run(dataset: Dataset, seed: int = 0, **options: object) -> Run:
    """Return a run on the CPU for a data set."""
    return Run(shape=dataset.shape, n_classes=dataset.n_classes, seed=seed, **options)  # type: ignore[arg-type]
