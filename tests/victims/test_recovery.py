"""Recovery: the last layer refitted to clean images, and noise on the weights."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import make_run
from uebench.cells.cell import Cell, dataset_ref
from uebench.cells.compute import compute, train_cell, training_run
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.cells.results import gather
from uebench.data import Dataset, Split
from uebench.data.dataset import keep_dataset
from uebench.methods.run import Run
from uebench.store.store import Store
from uebench.victims import recovery
from uebench.victims.recovery import recovery_record


class Means(nn.Module):
    """Useful features, the mean of each channel, behind a last layer of given weights."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = nn.Parameter(weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def colours(n: int, seed: int) -> Split:
    """Return noisy images of three classes that differ in the brightest channel."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 100, (n, 3, 8, 8), generator=rng)
    images[torch.arange(n), labels] += 100
    return Split(images.to(torch.uint8), labels, ("red", "green", "blue"))


def test_useful_features_behind_a_useless_last_layer_are_found() -> None:
    data = Dataset("colours", colours(90, 0), colours(60, 1), "x")
    model = Means(torch.eye(3).roll(1, 0))  # every class is taken for another one
    before = copy.deepcopy(model.state_dict())
    record = recovery_record(model, data.train, data.test, make_run(data))
    assert record["dfr_acc"] == 1.0
    assert record["weight_noise_acc"] < 0.1
    assert torch.equal(model.state_dict()["head.weight"], before["head.weight"])


def test_features_that_hold_nothing_recover_nothing() -> None:
    train, test = colours(90, 0), colours(60, 1)
    shuffled = train.labels[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
    data = Dataset("colours", replace(train, labels=shuffled), test, "x")
    record = recovery_record(Means(torch.eye(3)), data.train, data.test, make_run(data))
    assert record["dfr_acc"] < 0.7


def test_small_noise_brings_back_what_lies_close_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset("colours", colours(90, 0), colours(60, 1), "x")
    model = Means(torch.ones(3, 3) + 0.001 * torch.eye(3).roll(1, 0))  # hardly decided
    run = make_run(data)
    assert recovery_record(model, data.train, data.test, run)["weight_noise_acc"] > 0.4
    monkeypatch.setattr(recovery, "WEIGHT_NOISE", 1e-6)
    assert recovery_record(model, data.train, data.test, run)["weight_noise_acc"] == 0


def planned(data: Dataset) -> Cell:
    config = make_config(
        {
            "attacks": "lsp",
            "defenses": "standard",
            "protocol": "quick",
            "arch": "resnet9[width=2]",
            "epochs": 1,
            "dataset": data.name,
        }
    )
    return plan(config, [(data, dataset_ref(data))], "cpu")[0]


def test_it_is_measured_where_asked_for_and_changes_no_other_number(
    tiny: Dataset, store: Store
) -> None:
    keep_dataset(store, tiny)
    plain = planned(tiny)
    cell = replace(plain, protocol=plain.protocol.model_copy(update={"recovery": True}))
    record = compute(cell, store, "cpu")
    assert 0 <= record["dfr_acc"] <= 1
    assert 0 <= record["weight_noise_acc"] <= 1
    assert cell.key != plain.key
    assert "recovery" not in plain.recipe()["protocol"], "keys stay what they were"
    without = compute(plain, store, "cpu")
    assert record["test_acc"] == without["test_acc"]
    assert "dfr_acc" not in without
    frame = gather([plain, cell], store)
    assert frame["dfr_acc"].isna().tolist() == [True, False]
    assert frame["weight_noise_acc"].isna().tolist() == [True, False]


def test_what_it_draws_does_not_depend_on_other_measurements(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []

    def recorded(*args: object) -> dict[str, float]:
        run = args[-1]
        assert isinstance(run, Run)
        states.append(run.rng.get_state())
        return {}

    monkeypatch.setattr("uebench.cells.compute.recovery_record", recorded)
    plain = planned(tiny)
    for robust in (False, True):
        changes = {"recovery": True, "robust": robust}
        cell = replace(plain, protocol=plain.protocol.model_copy(update=changes))
        train_cell(cell, tiny.train, tiny, training_run(cell, "cpu"))
    assert torch.equal(*states)
