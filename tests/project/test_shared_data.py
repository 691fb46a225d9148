"""Tests on real images, which are skipped unless `../shared` exists next to the project."""

import pytest

import uebench
from uebench.data import Dataset
from uebench.data.poison_files import audit_poison


@pytest.mark.parametrize(
    ("spec", "norm", "most"),
    [("lsp", "l2", 1.413), pytest.param("ar", "l2", 1.109, marks=pytest.mark.slow)],
)
def test_attacks_stay_within_their_budgets_on_real_images(
    spec: str, norm: str, most: float, cifar: Dataset
) -> None:
    audit = audit_poison(uebench.craft(spec, cifar), cifar)
    assert 0.9 * (most - 0.109) < audit[f"{norm}_mean"] <= audit[f"{norm}_max"] <= most
    assert audit["psnr_mean"] > 30, "the changes must be small"
    assert audit["labels_differ"] == 0
    assert audit["order_kept"]


def test_the_small_data_set_matches_its_readme(cifar: Dataset) -> None:
    assert cifar.train.class_sizes == [100] * 10
    assert cifar.test.class_sizes == [100] * 10
    assert cifar.class_names[9] == "truck"
