"""The Python API reads as the command line does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import uebench
from tests.conftest import make_run
from uebench.cells.config import make_config
from uebench.common.errors import UserError
from uebench.data import Dataset, load_dataset
from uebench.data.poison import Poison
from uebench.execute.devices import DeviceError, usable_devices
from uebench.learn.protocol import named_protocol, with_fields
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


def test_fields_of_a_protocol_are_changed_as_those_of_a_named_one(tiny: Dataset) -> None:
    base = named_protocol("quick", lr=0.05)
    assert with_fields(base, lr=0.2, flip=False).name == "quick[lr=0.2,flip=false]"
    poison = uebench.craft("lsp", tiny)
    for wrong, words in (({"lr": -1}, "lr must be"), ({"bogus": 1}, "no field bogus")):
        with pytest.raises(UserError, match=words):
            uebench.train(poison, "standard", tiny, protocol=base, **wrong)


@pytest.mark.parametrize("options", [{"keep_models": True}, {"log": True}])
def test_what_a_run_writes_needs_a_folder(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="give it, out=FOLDER"):
        uebench.run(attacks="none", defenses="standard", dataset=DATA, **options)


def test_the_number_of_poisoned_images_is_what_differs_from_the_clean_ones(tiny: Dataset) -> None:
    quick: dict[str, object] = {"arch": "resnet9[width=2]", "epochs": 1}
    attacks = ["none", "lsp", "lsp[eps=0.0001]"]
    frame = uebench.run(attacks, "standard", DATA, ratio=[0.5, 1], **quick)
    counts = frame.groupby(["attack_options", "attack", "ratio"])["n_poisoned"].first()
    assert counts["", "lsp"].tolist() == [20, 40]
    assert counts["eps=0.0001", "lsp"].tolist() == [0, 0], "nothing is left after rounding"
    assert counts["", "none"].tolist() == [0, 0]
    assert set(frame["chance"]) == {tiny.chance}
    poison = uebench.craft("lsp", tiny)
    part = uebench.Poison(poison.images[:3], poison.labels[:3], poison.index[:3], {})
    assert uebench.train(part, "standard", tiny, **quick)["n_poisoned"] == 3


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


FAST = {"arch": "resnet9[width=2]", "epochs": 1}


@pytest.mark.parametrize(
    ("seed", "same"), [(np.int64(1), 1), (np.uint8(1), 1), (1.0, 1), (True, 1)]
)
def test_numpy_numbers_are_seeds(tiny: Dataset, seed: Any, same: int) -> None:
    poison = uebench.craft("lsp", tiny, seed=seed)
    assert poison.meta["recipe"] == uebench.craft("lsp", tiny, seed=same).meta["recipe"]
    first, second = (
        uebench.train(poison, "ueraser_lite", tiny, seed=s, lr=rate, **FAST)
        for s, rate in ((seed, np.float64(0.1)), (same, 0.1))
    )
    assert first["curve"] == second["curve"]
    assert make_run(tiny, seed).rng.initial_seed() == same


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "one", None, np.arange(2)])
def test_what_is_no_seed_is_refused(tiny: Dataset, seed: Any) -> None:
    sentence = r"seed must be a whole number in \[0, 2147483648\), got"
    with pytest.raises(uebench.UserError, match=sentence):
        uebench.craft("lsp", tiny, seed=seed)
    with pytest.raises(uebench.UserError, match=sentence):
        uebench.train(uebench.craft("lsp", tiny), "standard", tiny, seed=seed, **FAST)


def test_a_matrix_takes_single_numpy_numbers() -> None:
    config = make_config(
        {
            "seeds": np.int32(3),
            "poison_seeds": np.arange(2),
            "ratio": np.float32(0.5),
            "classes": np.int64(1),
            "times_epochs": np.float32(2),
        }
    )
    assert (config.seeds, config.poison_seeds) == ([3], [0, 1])
    assert (config.ratio, config.classes, config.times_epochs) == ([0.5], ["1"], 2)


def test_training_refuses_what_it_would_misread(tiny: Dataset) -> None:
    images, labels, index = tiny.train.images, tiny.train.labels, torch.arange(40)
    good = uebench.train(Poison(images, labels, index), "standard", tiny, **FAST)
    numpy = Poison(images.numpy(), labels.tolist(), np.arange(40))  # type: ignore[arg-type]
    assert uebench.train(numpy, "standard", tiny, **FAST)["curve"] == good["curve"]
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    permuted = Poison(strided, labels, index)
    assert uebench.train(permuted, "standard", tiny, **FAST)["curve"] == good["curve"]
    for poison, sentence in (
        (Poison(images, 1 - labels, index), "40 of the poison's 40 labels differ"),
        (Poison(images, labels, index + 1), "index reaches 40"),
        (Poison(images[..., :8], labels, index), "those of synthetic"),
        (tiny.train, r"uebench\.Poison is needed, got a Split"),
        ("lsp", r"uebench\.Poison is needed, got a str"),
    ):
        with pytest.raises(uebench.UserError, match=sentence):
            uebench.train(poison, "standard", tiny, **FAST)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, (np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1])])
def test_a_data_set_is_a_name_or_a_dataset(tiny: Dataset, wrong: Any) -> None:
    with pytest.raises(uebench.UserError, match=r"uebench\.data\.from_arrays"):
        uebench.craft("lsp", wrong)
    with pytest.raises(uebench.UserError, match=r"uebench\.data\.from_arrays"):
        uebench.train(uebench.craft("lsp", tiny), "standard", wrong)
    with pytest.raises(uebench.UserError, match=r"uebench\.data\.from_arrays"):
        uebench.import_poison("x.npz", wrong, "x")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jobs": "two"}, "jobs must be a whole number of at least 1, got 'two'"),
        ({"jobs": 1.5}, "jobs must be a whole number of at least 1, got 1.5"),
        ({"time_limit": "x"}, "time_limit must be a number of minutes, got 'x'"),
        ({"stop_after_s": "soon"}, "the time to stop after must be a number above 0 s, got 'soon'"),
        ({"time_limit": np.float64(-1)}, "the time limit must be a number above 0 s, got"),
    ],
)
def test_limits_that_are_no_numbers_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(uebench.UserError, match=words):
        uebench.run("none", "standard", DATA, **options)
