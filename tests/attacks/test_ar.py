"""AR's claim: a class's matched filter is silent on its own noise and loud on the others'."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import make_run, random_dataset
from uebench.attacks import ar
from uebench.attacks.ar import bounded, matched, pattern
from uebench.data import Dataset
from uebench.methods.base import Attack, Facts
from uebench.methods.registry import build_attack
from uebench.store.store import Store


def made(dataset: Dataset, spec: str = "ar") -> Attack:
    return build_attack(spec).resolve(Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9"))


def kept_kernels(store: Store) -> torch.Tensor:
    (entry,) = (store.base / "kept").iterdir()
    found = store.read("kept", entry.name)
    assert found is not None
    return found[0]["kernels"]


@pytest.mark.parametrize(
    ("k", "threshold"), [(2, 3), (10, 3), (100, 3), pytest.param(1000, 1, marks=pytest.mark.slow)]
)
def test_the_matched_filter_silences_its_own_class_only(
    k: int, threshold: int, store: Store
) -> None:
    dataset = random_dataset([4 if k < 100 else 1] * k, (32, 32))
    delta = made(dataset, f"ar[threshold={threshold}]").perturb(
        dataset.train, make_run(dataset, store=store)
    )
    kernels = kept_kernels(store)
    assert torch.allclose(kernels.sum((2, 3)), torch.ones(k, 3), atol=1e-3)
    assert torch.isfinite(delta).all()
    answers = torch.cat([matched(kernels, part) for part in delta.split(50)])
    own = torch.nn.functional.one_hot(dataset.train.labels, k).bool()
    assert answers[own].max() < 1e-3 * answers[~own].min()


def test_a_second_poison_takes_the_kept_kernels(store: Store) -> None:
    dataset = random_dataset([3, 3])
    first = made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    again = made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    alone = made(dataset).perturb(dataset.train, make_run(dataset))
    assert torch.equal(first, again)
    assert torch.equal(first, alone), "a cache hit must change no number"


def test_a_pattern_is_the_recurrence() -> None:
    rng = torch.Generator().manual_seed(0)
    kernels = torch.randn(3, 3, 2, 4, generator=rng)
    kernels[2, 2] = 0
    kernels /= kernels.sum((0, 1)) * 1.5
    starts = torch.randn(ar.free_values(10, 9), 2, 4, generator=rng)
    found = pattern(kernels, starts, 10, 9, 2)
    grid = torch.zeros(10, 9, 2, 4)
    grid[:2] = starts[:18].view(2, 9, 2, 4)
    grid[2:, :2] = starts[18:].view(8, 2, 2, 4)
    for i in range(2, 10):
        for j in range(2, 9):
            window = grid[i - 2 : i + 1, j - 2 : j + 1].clone()
            window[2, 2] = 0  # the pixel itself is not part of what it is made from
            grid[i, j] = (kernels * window).sum((0, 1))
    assert torch.allclose(found, grid[2:, 2:].permute(3, 2, 0, 1), rtol=1e-4, atol=1e-5)


def test_the_product_is_the_recurrence(store: Store) -> None:
    dataset = random_dataset([3, 3], (32, 32))
    made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    kernel = kept_kernels(store)[1].permute(1, 2, 0).unsqueeze(-1)
    starts = torch.randn(140, 3, 5, generator=torch.Generator().manual_seed(0))
    by_step = pattern(kernel, starts, 36, 36, 4)
    by_product = torch.einsum("fcn,cfp->ncp", starts, ar.responses_of(kernel, 36, 36, 4))
    error = (by_product.view_as(by_step) - by_step).flatten(1).norm(dim=1)
    assert (error < 1e-5 * by_step.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("sizes", [[150, 9, 160], [150, 149], [9, 8]])
def test_large_and_small_classes_get_noise_of_their_own_kernel(
    sizes: list[int], store: Store
) -> None:
    dataset = random_dataset(sizes, (32, 32))
    delta = made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    answers = matched(kept_kernels(store), delta)
    own = torch.nn.functional.one_hot(dataset.train.labels, len(sizes)).bool()
    assert answers[own].max() < 1e-3 * answers[~own].min()
    assert torch.allclose(delta.flatten(1).norm(dim=1), torch.ones(len(delta)), atol=1e-4)
    assert len(delta.flatten(1).unique(dim=0)) == len(delta), "every image has a start of its own"


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


def test_an_images_channels_are_scaled_together(store: Store) -> None:
    dataset = random_dataset([3, 3], (32, 32))
    delta = made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    norms = delta.flatten(2).norm(dim=2)
    assert (norms.amax(1) > 1.5 * norms.amin(1)).any(), "their kernels differ, so do their norms"


@pytest.mark.parametrize(("side", "crop", "eps"), [(32, 4, 1.0), (96, 4, 3.0), (224, 2, 7.0)])
def test_the_authors_crop_and_norm(side: int, crop: int, eps: float) -> None:
    found = build_attack("ar").resolve(Facts("test", 10, (3, side, side), 1, "resnet9")).options()
    assert (found["crop"], found["eps"]) == (crop, eps)


def test_noise_whose_squares_overflow_has_its_norm_too(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = random_dataset([3, 3], (32, 32))
    usual = made(dataset).perturb(dataset.train, make_run(dataset))
    unscaled = ar.AR._unscaled

    def loud(self, *args):  # type: ignore[no-untyped-def]
        return ((part, noise * 1e25) for part, noise in unscaled(self, *args))

    monkeypatch.setattr(ar.AR, "_unscaled", loud)
    found = made(dataset).perturb(dataset.train, make_run(dataset))
    assert torch.allclose(found, usual, atol=1e-6)


def saved(kernels: torch.Tensor, path: Path) -> Path:
    """Write kernels in the form that a file's ending says."""
    if path.suffix == ".npy":
        np.save(path, kernels.numpy())
    elif path.suffix == ".npz":
        np.savez(path, kernels=kernels.numpy())
    elif path.suffix == ".safetensors":
        save_file({"kernels": kernels}, path)
    else:
        torch.save(list(kernels), path)
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz", ".safetensors", ".pt"])
def test_kernels_from_a_file_are_taken_and_enter_the_key(
    ending: str, tmp_path: Path, store: Store
) -> None:
    dataset = random_dataset([3, 3], (32, 32))
    searched = made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    kernels = kept_kernels(store)
    attack = made(dataset, f"ar[kernels={saved(kernels, tmp_path / f'k{ending}')}]")
    assert torch.equal(attack.perturb(dataset.train, make_run(dataset)), searched)
    (tmp_path / "elsewhere").mkdir()
    copy = made(dataset, f"ar[kernels={saved(kernels, tmp_path / 'elsewhere' / f'k{ending}')}]")
    assert attack.recipe() == copy.recipe(), "a path changes no number"
    other = made(dataset, f"ar[kernels={saved(kernels.flip(0), tmp_path / f'o{ending}')}]")
    assert other.recipe() != attack.recipe() != made(dataset).recipe()


def test_useless_kernels_are_refused(tmp_path: Path, store: Store) -> None:
    dataset = random_dataset([3, 3], (32, 32))
    made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    good = kept_kernels(store)
    wild = good.clone()
    wild[1, 0] *= 2e7  # a published set holds such a one
    cases = {
        "wild.npy": (wild, "class 1 do not sum to 1"),
        "few.npy": (good[:1], "kernels for 1 classes, 2 are needed"),
        "flat.npy": (good.flatten(1), r"kernels are \[k, 3, 3, 3\]"),
    }
    for name, (kernels, told) in cases.items():
        with pytest.raises(ValueError, match=told):
            made(dataset, f"ar[kernels={saved(kernels, tmp_path / name)}]")
    (tmp_path / "text.pt").write_text("no kernels")
    with pytest.raises(ValueError, match="holds no readable kernels"):
        made(dataset, f"ar[kernels={tmp_path / 'text.pt'}]")
    with pytest.raises(ValueError, match="holds no readable kernels"):
        made(dataset, f"ar[kernels={tmp_path / 'missing.npy'}]")


def test_a_new_class_is_heard_by_every_earlier_filter(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns: dict[bytes, torch.Tensor] = {}

    def noted(c: int, rng: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = bounded(c, rng)
        patterns.update({kernel.numpy().tobytes(): pattern for kernel, pattern in found})
        return found

    monkeypatch.setattr(ar, "bounded", noted)
    dataset = random_dataset([1] * 12, (8, 8))
    run = make_run(dataset, store=store)
    made(dataset).perturb(dataset.train, run)
    kernels = kept_kernels(store)
    assert run.notes["ar_threshold"] == 3.0
    for later in range(1, 12):
        pattern = patterns[kernels[later].numpy().tobytes()]
        assert pattern.shape == (3, 32, 32), "kernels are judged at 32 px"
        assert matched(kernels[:later], pattern[None]).min() >= 3.0


def test_a_file_that_changed_after_planning_is_refused(tmp_path: Path, store: Store) -> None:
    dataset = random_dataset([3, 3], (32, 32))
    made(dataset).perturb(dataset.train, make_run(dataset, store=store))
    kernels = kept_kernels(store)
    attack = made(dataset, f"ar[kernels={saved(kernels, tmp_path / 'k.npy')}]")
    saved(kernels.flip(0), tmp_path / "k.npy")
    with pytest.raises(ValueError, match="was changed since the cell was planned"):
        attack.perturb(dataset.train, make_run(dataset))
