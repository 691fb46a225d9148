"""`imported:NAME` is an attack like any other, named in keys by its content."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import uebench
from tests.data.foreign.helpers import DATA, DELTAS, GREY, IMAGES, N
from uebench.cells.cell import PoisonRef, dataset_ref
from uebench.cells.compute import fetch_poison
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.data import Dataset
from uebench.data.poison import Poison, PoisonError
from uebench.store.store import Store
from uebench.suite.import_poison import import_poison


def cell_of(dataset: Dataset, store: Store, **fields: Any) -> Any:
    given = {"defenses": "standard", "arch": "resnet9[width=2]", **fields}
    given["protocol_options"] = {"epochs": 1}
    return plan(make_config(given), [(dataset, dataset_ref(dataset))], "cpu", store)


def import_part(tmp_path: Path, store: Store, name: str = "part") -> torch.Tensor:
    index = torch.tensor([7, 1, 4])
    np.savez(tmp_path / f"{name}.npz", noise=DELTAS[index].numpy(), index=index.numpy())
    import_poison(tmp_path / f"{name}.npz", DATA, name, store=store)
    return index


def test_what_a_poison_does_not_cover_stays_clean(tmp_path: Path, store: Store) -> None:
    from uebench.cells.compute import poisoned_split

    index = import_part(tmp_path, store)
    (cell,) = cell_of(DATA, store, attacks="imported:part")
    poison = fetch_poison(store, cell.poison, DATA.train)
    split = poisoned_split(DATA.train, poison, cell)
    assert torch.equal(split.images[index], IMAGES[index])
    others = torch.ones(N, dtype=torch.bool)
    others[index] = False
    assert torch.equal(split.images[others], DATA.train.images[others])
    assert torch.equal(split.labels, DATA.train.labels)
    (half,) = cell_of(DATA, store, attacks="imported:part", ratio="0.5")
    changed = (poisoned_split(DATA.train, poison, half).images != DATA.train.images).flatten(1)
    assert set(changed.any(1).nonzero().flatten().tolist()) < set(index.tolist())


def test_keys_hold_the_content_and_not_the_name_or_the_path(tmp_path: Path, store: Store) -> None:
    import_part(tmp_path, store)
    (tmp_path / "elsewhere").mkdir()
    import_part(tmp_path / "elsewhere", store, "other_name")
    (cell,) = cell_of(DATA, store, attacks="imported:part")
    cells = [cell, *cell_of(DATA, store, attacks="imported:other-name")]
    assert [c.poison.attack.info.name for c in cells] == ["imported:part", "imported:other_name"]
    assert cells[0].key == cells[1].key
    assert str(tmp_path) not in json.dumps(cells[0].recipe())
    assert cells[0].poison.attack.sha256 in json.dumps(cells[0].recipe())
    np.save(tmp_path / "full.npy", DELTAS.numpy())
    import_poison(tmp_path / "full.npy", DATA, "full", store=store)
    (full,) = cell_of(DATA, store, attacks="imported:full")
    assert full.key != cells[0].key
    back = type(full).from_json(json.loads(json.dumps(full.to_json())))
    assert back.key == full.key, "a worker process builds the same cell"
    first, second = cell_of(DATA, store, attacks="imported:full", ratio="0.5", poison_seeds="0,1")
    assert first.key != second.key, "another draw of the share is another number"


def test_adversarial_training_takes_half_of_the_measured_budget(
    tmp_path: Path, store: Store
) -> None:
    np.save(tmp_path / "full.npy", DELTAS.numpy())
    meta = import_poison(tmp_path / "full.npy", DATA, "full", store=store).meta
    specs = "imported:full,imported:full[norm=l2],imported:full[eps=16/255]"
    cells = cell_of(DATA, store, attacks=specs, defenses="at")
    told = [(c.defense.norm, c.defense.radius) for c in cells]
    assert told == [("linf", 4 / 255), ("l2", meta["l2_max"] / 2), ("linf", 8 / 255)]
    assert [c.attack_options for c in cells] == ["", "norm=l2", "eps=16/255"]


def test_a_name_is_not_given_twice_by_mistake(tmp_path: Path, store: Store) -> None:
    np.save(tmp_path / "a.npy", DELTAS.numpy())
    np.save(tmp_path / "b.npy", -DELTAS.numpy())
    first = import_poison(tmp_path / "a.npy", DATA, "mine", store=store)
    import_poison(tmp_path / "a.npy", DATA, "mine", store=store)
    kept = sorted(store.base.rglob("*"))
    with pytest.raises(PoisonError, match="add --replace"):
        import_poison(tmp_path / "b.npy", DATA, "mine", store=store)
    assert sorted(store.base.rglob("*")) == kept
    (cell,) = cell_of(DATA, store, attacks="imported:mine")
    assert cell.poison.attack.sha256 == first.meta["sha256"]
    second = import_poison(tmp_path / "b.npy", DATA, "mine", replace=True, store=store)
    (cell,) = cell_of(DATA, store, attacks="imported:mine")
    assert cell.poison.attack.sha256 == second.meta["sha256"] != first.meta["sha256"]


def test_names_that_mean_nothing_here(tmp_path: Path, store: Store) -> None:
    import_part(tmp_path, store)
    with pytest.raises(ValueError, match="imported:part belongs to random, not to random"):
        cell_of(GREY, store, attacks="imported:part")
    with pytest.raises(KeyError, match=r"imported as parts \(did you mean part\?\)"):
        cell_of(DATA, store, attacks="imported:parts")
    (cell,) = cell_of(DATA, store, attacks="imported:part")
    data = store.path("poison", cell.poison.key) / "data.safetensors"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(LookupError, match="imported:part is gone from the store; import it again"):
        fetch_poison(store, cell.poison, DATA.train)
    with pytest.raises(ValueError, match="gone from the store"):
        cell_of(DATA, store, attacks="imported:part")
    import_part(tmp_path, store)
    assert cell_of(DATA, store, attacks="imported:part")


def test_train_accepts_a_partial_poison(tmp_path: Path, store: Store) -> None:
    tiny = uebench.load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    part = Poison(tiny.train.images[:3], tiny.train.labels[:3], torch.arange(3))
    record = uebench.train(part, "standard", tiny, arch="resnet9[width=2]", epochs=1)
    assert record["n_train"] == 40


def test_the_store_key_is_the_poisons_alone(tmp_path: Path, store: Store) -> None:
    import_part(tmp_path, store)
    (cell,) = cell_of(DATA, store, attacks="imported:part")
    ref = cell.poison
    other = PoisonRef(ref.dataset, ref.attack, 5, "bf16")
    assert other.key == ref.key
