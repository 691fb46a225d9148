"""The audit says how many images keep each usual budget, and which image is the worst."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.test_cli import call
from tests.conftest import random_dataset
from uebench.data.poison import Poison
from uebench.data.poison_files import audit_poison
from uebench.suite.look import read_and_audit

DATA = random_dataset([50, 50], (8, 10))
N = len(DATA.train)
CLEAN = DATA.train.images
BROKEN = 37


def one_broken() -> torch.Tensor:
    """Images that change by 8 levels, but one that is black and one that changes by 9 levels."""
    images = torch.where(CLEAN < 128, CLEAN + 8, CLEAN - 8)
    images[BROKEN] = 0
    images[BROKEN + 1] = torch.where(
        CLEAN[BROKEN + 1] < 128, CLEAN[BROKEN + 1] + 9, CLEAN[BROKEN + 1] - 9
    )
    return images  # fmt: skip


def test_one_broken_image_does_not_hide_the_others() -> None:
    order = torch.arange(N).flip(0)  # so that a row is not its index
    poison = Poison(one_broken()[order], DATA.train.labels[order], order)
    audit = audit_poison(poison, DATA)
    kept = {name: budget["images"] for name, budget in audit["budgets"].items()}
    linf = {name: n for name, n in kept.items() if name.startswith("linf")}
    assert linf == {"linf 4/255": 0, "linf 8/255": 98, "linf 16/255": 99, "linf 24/255": 99}
    assert audit["budgets"]["linf 8/255"]["share"] == 0.98
    assert audit["budgets"]["linf 8/255"]["limit"] == 8
    assert not any(audit["budgets_kept"].values())
    assert audit["linf_worst_index"] == audit["l2_worst_index"] == BROKEN
    l2 = ((one_broken().double() - CLEAN.double()) / 255).flatten(1).norm(dim=1)
    rounding = 0.5 / 255 * np.sqrt(3 * 8 * 10)
    for eps in (0.5, 1.0, 1.304):
        budget = audit["budgets"][f"l2 {eps}"]
        assert budget["images"] == int((l2 <= eps + rounding).sum())
        assert budget["rounding"] == pytest.approx(rounding)
        assert budget["limit"] == pytest.approx(eps + rounding)
    json.dumps(audit, allow_nan=False)


def test_the_audit_says_that_a_poison_was_made_from_another_data_set(tmp_path: Path) -> None:
    other = random_dataset([50, 50], (8, 10), seed=1)
    poison = Poison(one_broken(), DATA.train.labels, torch.arange(N), dataset=DATA)
    poison.save(tmp_path / "p.npz")
    read = partial(read_and_audit, tmp_path / "p.npz", kind="images")
    assert read(DATA)[1]["made_from"] is None
    measured = read(other)[1]
    assert measured["made_from"] == DATA.name
    (line,) = (line for line in repr(measured).splitlines() if line.startswith("made from"))
    assert line.split(None, 2)[2].startswith(f"{DATA.name}, by its record: NOT the data set")
    (tmp_path / "p.npz.meta.json").write_text('{"fingerprint": "x", "dataset": "\\u001b[31mred"}')
    assert "\x1b" not in repr(read(DATA)[1])


def test_the_audit_prints_shares_the_worst_image_and_the_allowance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = CLEAN.permute(0, 2, 3, 1).numpy()
    labels = DATA.train.labels.numpy()
    test = {"test_images": images[:10], "test_labels": labels[:10]}
    np.savez("d.npz", train_images=images, train_labels=labels, **test)
    np.savez("p.npz", images=one_broken().numpy(), labels=labels)
    printed = " ".join(call("audit", "p.npz", "--dataset", "npz:d.npz").stdout.split())
    assert "budget linf 8/255 98 of 100 images (98 %); at most 8 levels of 255" in printed
    assert "(image 37), levels of 255" in printed
    assert "which is 1.304 and 0.03038 for rounding to 8 bits" in printed
    assert "kept by all images none of the usual budgets" in printed
    np.savez("sorted.npz", images=one_broken().numpy(), labels=np.sort(labels))
    result = call("audit", "sorted.npz", "--dataset", "npz:d.npz")
    assert result.exit_code == 1
    assert "sorted.npz is not usable:" in result.stderr
    assert "the file is in another order" in result.stderr
    words = " ".join(result.stdout.split())
    assert "usable no: " in words
    assert "order that of the training set" not in words


def test_a_share_below_one_is_never_printed_as_all() -> None:
    from uebench.data.measured import _budget_in_words

    budget = {
        "images": 99_999,
        "share": 0.99999,
        "limit": 8.0,
        "unit": "levels of 255",
        "rounding": 0.0,
    }
    words = _budget_in_words(budget, 100_000)
    assert words == "99,999 of 100,000 images (99.999 %); at most 8 levels of 255"
    assert "(99.999 %)" in _budget_in_words(budget | {"share": 0.9999999}, 10_000_000)
