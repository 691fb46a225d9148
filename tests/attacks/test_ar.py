"""AR's claim: a class's matched filter is silent on its own noise and loud on the others'."""

import pytest
import torch

from tests.conftest import make_run, random_dataset
from uebench.api import Attack, Facts
from uebench.attacks.ar import continue_row, matched, response
from uebench.data import Dataset
from uebench.registry import build_attack
from uebench.store import Store


def made(dataset: Dataset, spec: str = "ar") -> Attack:
    return build_attack(spec).resolve(Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9"))


def kept_kernels(store: Store) -> torch.Tensor:
    (entry,) = (store.base / "kept").iterdir()
    found = store.read("kept", entry.name)
    assert found is not None
    return found[0]["kernels"]


@pytest.mark.parametrize("k", [2, 10])
def test_the_matched_filter_silences_its_own_class_only(k: int, store: Store) -> None:
    dataset = random_dataset([4] * k, (32, 32))
    delta = made(dataset, "ar[threshold=3]").perturb(dataset.train, make_run(dataset, store=store))
    kernels = kept_kernels(store)
    assert torch.allclose(kernels.sum((2, 3)), torch.ones(k, 3), atol=1e-3)
    assert torch.isfinite(delta).all()
    answers = matched(kernels, delta)
    own = torch.nn.functional.one_hot(dataset.train.labels, k).bool()
    assert answers[own].max() < 1e-3 * answers[~own].min()


def test_a_second_poison_takes_the_kept_kernels(store: Store) -> None:
    dataset = random_dataset([3, 3])
    first = made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    again = made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    alone = made(dataset).perturb(dataset.train, make_run(dataset))
    assert torch.equal(first, again)
    assert torch.equal(first, alone), "a cache hit must change no number"


def test_the_matrix_is_the_recurrence() -> None:
    rng = torch.Generator().manual_seed(0)
    kernel = torch.randn(3, 3, generator=rng)
    kernel[2, 2] = 0
    kernel /= kernel.sum() * 1.5
    start = torch.randn(10, 9, generator=rng)
    grid = start.clone()
    for i in range(2, 10):
        for j in range(2, 9):
            grid[i, j] = (kernel * grid[i - 2 : i + 1, j - 2 : j + 1]).sum() - 0  # b[2,2] is 0
    by_rows = start.clone()
    for row in range(2, 10):
        continue_row(by_rows[..., None], kernel[..., None], row)
    assert torch.allclose(by_rows, grid, atol=1e-5)
    border = torch.cat([start[:2].flatten(), start[2:, :2].flatten()])
    product = border @ response(kernel[None], 10, 9, 2)[0]
    assert torch.allclose(product, grid[2:, 2:].flatten(), atol=1e-4)


def test_the_threshold_is_relaxed_and_recorded_when_draws_run_out() -> None:
    dataset = random_dataset([2] * 3)
    run = make_run(dataset)
    made(dataset, "ar[threshold=1000,draws=1000]").perturb(dataset.train, run)
    assert run.notes["ar_threshold"] < 1000
    assert run.notes["ar_draws"] > 1000


def test_noise_has_the_norm_that_was_asked_for() -> None:
    dataset = random_dataset([3, 3], (32, 32))
    norms = made(dataset).perturb(dataset.train, make_run(dataset)).flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones(6), atol=1e-4)
