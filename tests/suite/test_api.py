"""The Python API reads as the command line does."""

from pathlib import Path

import numpy as np
import pytest
import torch

import uebench
from tests.conftest import make_run
from uebench.data import Dataset, load_dataset
from uebench.execute.devices import DeviceError, usable_devices
from uebench.methods.base import Facts
from uebench.methods.registry import build_attack

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"


def test_run_gives_a_table(tmp_path: Path) -> None:
    frame = uebench.run(
        attacks=["none", "lsp"],
        defenses="standard",
        dataset=DATA,
        arch="resnet9[width=2]",
        protocol_options={"epochs": 1},
        out=tmp_path / "made",
    )
    assert frame["test_acc"].between(0, 1).all()
    assert (tmp_path / "made/leaderboard.md").is_file()


def test_craft_then_train(tiny: Dataset) -> None:
    poison = uebench.craft("lsp", tiny)
    assert poison.meta["recipe"]["seed"] == 0
    again = uebench.craft("lsp", DATA)
    assert again.meta["sha256"] == poison.meta["sha256"]
    assert uebench.craft("lsp", tiny, seed=1).meta["sha256"] != poison.meta["sha256"]
    record = uebench.train(poison, "ueraser", tiny, arch="resnet9[width=2]", epochs=2)
    assert 0 <= record["test_acc"] <= record["test_acc_best"] <= 1


def test_training_takes_the_poisons_budget(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    cls = uebench.methods.registry.find("defense", "at")
    before = cls.resolve
    monkeypatch.setattr(
        cls, "resolve", lambda self, facts: seen.append(facts) or before(self, facts)
    )
    uebench.train(uebench.craft("lsp[eps=1]", tiny), "at", tiny, arch="resnet9[width=2]", epochs=1)
    assert (seen[0].norm, seen[0].eps) == ("l2", 1.0)


def test_run_and_train_give_the_same_number_for_one_cell(tiny: Dataset) -> None:
    """The API's training is the runner's training."""
    options = {"epochs": 2, "batch_size": 16}
    frame = uebench.run(
        "lsp", "ueraser_lite", DATA, arch="resnet9[width=2]", protocol_options=options
    )
    record = uebench.train(
        uebench.craft("lsp", tiny), "ueraser_lite", tiny, arch="resnet9[width=2]", **options
    )
    assert frame["test_acc"][0] == record["test_acc"]
    assert frame["train_acc"][0] == record["train_acc"]


def test_public_names_exist() -> None:
    assert all(getattr(uebench, name) is not None for name in uebench.__all__)
    with pytest.raises(AttributeError, match="uebench has no 'atack'"):
        _ = uebench.atack  # type: ignore[attr-defined]


def test_devices() -> None:
    assert usable_devices("cpu") == ["cpu"]
    with pytest.raises(DeviceError, match="this machine has cpu"):
        usable_devices("cuda:99")


def test_stored_tensors_have_their_own_seed(tiny: Dataset) -> None:
    run = make_run(tiny)
    first = run.kept("x", {"a": 1}, lambda r: {"v": uebench.load_dataset(DATA).train.labels})
    assert len(first["v"]) == 40


def test_noise_larger_than_memory_lies_in_a_file(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_MEMORY", f"{4 * tiny.train.images.numel() / 2**20}")
    run = make_run(tiny)
    noise = run.zeros(*tiny.train.images.shape)
    assert noise.shape == tiny.train.images.shape
    assert noise.dtype == torch.float32
    assert not noise.any()
    assert noise.untyped_storage().filename, "it lies in memory"
    noise[3] = 1.0
    assert noise.sum() == noise[3].numel()
    attack = build_attack("ar").resolve(Facts("test", 2, tiny.shape, 1, "resnet8"))
    mapped = attack.perturb(tiny.train, make_run(tiny))
    monkeypatch.undo()
    assert make_run(tiny).zeros(2, 3).untyped_storage().filename is None
    assert torch.equal(mapped, attack.perturb(tiny.train, make_run(tiny)))


def test_a_kept_training_set_is_that_of_its_poison_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path))
    data = load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    np.save(tmp_path / "p.npy", (data.train.images ^ 1).permute(0, 2, 3, 1).numpy())
    uebench.import_poison(tmp_path / "p.npy", data, "flipped")
    fields = {"ratio": [0.5], "poison_seeds": [0, 1], "arch": "resnet9[width=2]"}
    table = uebench.run(
        "imported:flipped", "iss", data.name, protocol_options={"epochs": 1}, **fields
    )
    assert (table["status"] == "ok").all()
    assert len(list((tmp_path / "v1" / "prepared").iterdir())) == 2
