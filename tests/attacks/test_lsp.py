"""LSP's claim: its noise alone tells the class, linearly."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.conftest import make_run, random_dataset
from uebench.common.errors import UserError
from uebench.data import Dataset
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack


def noise(dataset: Dataset, spec: str = "lsp", seed: int = 0) -> torch.Tensor:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9")
    return build_attack(spec).resolve(facts).perturb(dataset.train, make_run(dataset, seed))


def test_a_linear_probe_reads_the_class() -> None:
    dataset = random_dataset([200] * 10, (32, 32))
    features = noise(dataset)[:, :, 4::8, 4::8].flatten(1).numpy()
    labels = dataset.train.labels.numpy()
    probe = LogisticRegression(max_iter=200).fit(features[:1000], labels[:1000])
    assert probe.score(features[1000:], labels[1000:]) > 0.999


def test_norm_and_patches() -> None:
    dataset = random_dataset([5, 5], (32, 32))
    delta = noise(dataset)
    norms = delta.flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.full_like(norms, 6 / 255 * math.sqrt(3072)), atol=1e-4)
    blocks = delta.view(10, 3, 4, 8, 4, 8)
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    assert not torch.equal(delta[0], delta[1])


@pytest.mark.parametrize("side", [(28, 28), (28, 21), (9, 30)])
def test_side_that_patches_do_not_divide(side: tuple[int, int]) -> None:
    h, w = side
    delta = noise(random_dataset([3, 3], side), "lsp[patch=8]")
    assert delta.shape == (6, 3, h, w)
    norms = delta.flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.full_like(norms, 6 / 255 * math.sqrt(3 * h * w)), atol=1e-4)
    for i in range(0, h, 8):
        for j in range(0, w, 8):
            patch = delta[:, :, i : i + 8, j : j + 8]
            assert torch.equal(patch, patch[:, :, :1, :1].expand_as(patch)), "the last are cropped"


def test_many_classes_on_small_images_shrink_the_patch() -> None:
    dataset = random_dataset([1] * 100, (8, 8), channels=1)
    assert noise(dataset).shape == (100, 1, 8, 8)
    facts = Facts("test", 100, dataset.shape, 1, "resnet9")
    with pytest.raises(UserError, match="smaller patch"):
        build_attack("lsp[patch=8]").resolve(facts)


def test_one_class_is_refused() -> None:
    dataset = random_dataset([3, 3])
    facts = Facts("test", 1, dataset.shape, 1, "resnet9")
    with pytest.raises(UserError, match="at least 2 classes"):
        build_attack("lsp").resolve(facts)
