"""Shared by all tests: a store of their own, checked array shapes, and tiny data sets.

Shapes in the annotations are checked while the tests run (jaxtyping with beartype).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")
CHECKED = ["uebench.augment", "uebench.data.poison", "uebench.learn.pgd", "uebench.models.resnet"]
install_import_hook([*CHECKED, "uebench.attacks", "uebench.defenses"], "beartype.beartype")

import torch  # noqa: E402

from uebench import Poison, train  # noqa: E402
from uebench.data import Dataset, load_dataset  # noqa: E402
from uebench.execute.local import PRELOADED  # noqa: E402
from uebench.methods import registry  # noqa: E402
from uebench.store.store import Store  # noqa: E402
from uebench.testing import make_run, random_dataset  # noqa: E402

__all__ = ["SHARED", "make_run", "random_dataset"]  # the last two for all tests
torch.set_num_threads(1)
# LSP needs it, and a tiny cell takes a tenth of the time that each worker would spend importing it
PRELOADED.append("sklearn.datasets")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make reports printable: one that names a file that is not UTF-8 would end pytest-xdist."""
    report = yield
    text = str(report.longrepr or "")
    if text != printable(text):
        report.longrepr = printable(text)
    report.sections = [(printable(name), printable(content)) for name, content in report.sections]
    return report


def printable(text: str) -> str:
    """Return a text with lone surrogates written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths of folders for stores; `mktemp` would list those of thousands of tests for each."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(n) for n in itertools.count())


@pytest.fixture(autouse=True)
def _home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's store."""
    home = next(_homes)
    home.mkdir()
    monkeypatch.setenv("UEBENCH_HOME", str(home))


@pytest.fixture(autouse=True)
def _methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test registered, so that the next one may use the same names."""
    registry.load()
    known = {kind: dict(classes) for kind, classes in registry._methods.items()}
    monkeypatch.setattr(registry, "_methods", known)
    monkeypatch.setattr(registry, "_broken", list(registry._broken))
    monkeypatch.setattr(registry, "_files", list(registry._files))


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
    """1,000 lossless training images of CIFAR-10, if the shared data is next to the project."""
    return cifar_images(1000)


def quick_accuracy(poison: Poison, defense: str, data: Dataset) -> float:
    """Return the accuracy after a training under `quick`, which is judged after its last epoch."""
    record = train(poison, defense, data, protocol="quick", eval_every=12)
    return float(record["test_acc"])


def cifar_images(n_train: int) -> Dataset:
    """Return lossless images of CIFAR-10; skip the test if they are not next to the project."""
    path = SHARED / "cifar10-small.npz"
    if not path.is_file():
        pytest.skip("needs ../shared/data/cifar10-small.npz, which is not part of the project")
    return load_dataset(f"npz:{path}[n_train={n_train}]")
