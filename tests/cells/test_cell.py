"""Cells: which images are poisoned, and what is kept."""

from dataclasses import replace

import pytest
import torch

from uebench.cells.cell import Cell, dataset_ref
from uebench.cells.compute import compute, fetch_dataset, fetch_poison, poisoned_split
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.cells.results import gather
from uebench.data import Dataset
from uebench.data.dataset import keep_dataset
from uebench.data.poison import Norm
from uebench.methods.base import Defense
from uebench.store.store import Store


def planned(dataset: Dataset, **fields: object) -> Cell:
    given = {"attacks": "lsp", "defenses": "standard", "arch": "resnet9[width=2]", **fields}
    given["protocol_options"] = {"epochs": 2, "batch_size": 16}
    (cell,) = plan(make_config(given), [(dataset, dataset_ref(dataset))], "cpu")
    return cell


def poisoned_share(dataset: Dataset, store: Store, **fields: object) -> torch.Tensor:
    cell = planned(dataset, **fields)
    poison = fetch_poison(store, cell.poison, dataset.train)
    images = poisoned_split(dataset.train, poison, cell).images
    return (images != dataset.train.images).flatten(1).any(1)


@pytest.mark.parametrize("ratio", [0, 0.25, 1])
def test_a_ratio_poisons_that_share_of_the_images(
    ratio: float, tiny: Dataset, store: Store
) -> None:
    assert poisoned_share(tiny, store, ratio=ratio).sum() == round(ratio * len(tiny.train))


def test_a_larger_ratio_contains_the_smaller(tiny: Dataset, store: Store) -> None:
    small = poisoned_share(tiny, store, ratio=0.2)
    large = poisoned_share(tiny, store, ratio=0.6)
    assert (large | ~small).all()


def test_classes_poison_their_images_alone(tiny: Dataset, store: Store) -> None:
    assert torch.equal(poisoned_share(tiny, store, classes="1"), tiny.train.labels == 1)


def test_a_computed_cell_is_kept_with_what_made_it(tiny: Dataset, store: Store) -> None:
    keep_dataset(store, tiny)
    cell = planned(tiny, defenses="iss")
    record = compute(cell, store, "cpu")
    found = store.read("cell", cell.key)
    assert found is not None
    assert found[1] == record
    assert record["poison_sha256"] == fetch_poison(store, cell.poison, tiny.train).meta["sha256"]
    assert record["recipe"] == cell.recipe()
    assert len(list((store.base / "prepared").iterdir())) == 1, "ISS keeps what it prepared"


def test_a_data_set_comes_back_from_the_store(tiny: Dataset, store: Store) -> None:
    keep_dataset(store, tiny)
    back = fetch_dataset(store, dataset_ref(tiny))
    assert torch.equal(back.train.images, tiny.train.images)
    assert torch.equal(back.test.labels, tiny.test.labels)
    assert back.class_names == tiny.class_names
    with pytest.raises(LookupError, match="run the command again"):
        fetch_dataset(Store(store.root / "other"), dataset_ref(tiny))


def test_a_poison_crafted_on_its_share_covers_that_share_alone(tiny: Dataset, store: Store) -> None:
    keep_dataset(store, tiny)
    given = {"attacks": "lsp", "defenses": "standard", "ratio": "0.5", "dataset": "x"}
    (all_,) = plan(make_config(given), [(tiny, dataset_ref(tiny))], "cpu")
    on_share = {**given, "craft_on": "subset"}
    (subset,) = plan(make_config(on_share), [(tiny, dataset_ref(tiny))], "cpu")
    assert all_.key != subset.key
    assert all_.poison.key != subset.poison.key
    assert Cell.from_json(subset.to_json()).key == subset.key
    assert subset.attack_options == "craft_on=subset"
    everywhere = fetch_poison(store, all_.poison, tiny.train)
    poison = fetch_poison(store, subset.poison, tiny.train)
    assert len(everywhere) == len(tiny.train)
    assert len(poison) == len(tiny.train) // 2
    for cell, made in ((all_, everywhere), (subset, poison)):
        split = poisoned_split(tiny.train, made, cell)
        changed = (split.images != tiny.train.images).flatten(1).any(1)
        assert changed.nonzero().squeeze(1).tolist() == poison.index.tolist(), "the same images"
    (whole,) = plan(make_config({**on_share, "ratio": "1"}), [(tiny, dataset_ref(tiny))], "cpu")
    assert whole.poison.crafted_on is None, "all images are no subset"


def test_the_record_says_how_fast_it_was_and_at_which_radius(tiny: Dataset, store: Store) -> None:
    keep_dataset(store, tiny)
    record = compute(planned(tiny, attacks="lsp[eps=1]", defenses="at"), store, "cpu")
    assert record["recipe"]["options"]["norm"] == "l2"
    assert record["recipe"]["options"]["radius"] == 0.5
    assert "robust_acc" not in record
    assert record["images_per_second"] > 0
    assert 0 < record["augment_share"] < 1


@pytest.mark.parametrize(
    ("attack", "defense", "norm", "radius"),
    [
        ("none", "standard", "linf", 4 / 255),
        ("lsp[eps=1]", "iss", "l2", 0.5),
        ("lsp[eps=1]", "at[norm=linf,radius=2/255]", "linf", 2 / 255),
    ],
)
def test_robust_accuracy_is_measured_where_asked_for(
    attack: str, defense: str, norm: str, radius: float, tiny: Dataset, store: Store
) -> None:
    keep_dataset(store, tiny)
    plain = planned(tiny, attacks=attack, defenses=defense)
    cell = replace(plain, protocol=plain.protocol.model_copy(update={"robust": True}))
    record = compute(cell, store, "cpu")
    assert (record["robust_norm"], record["robust_radius"]) == (norm, radius)
    assert 0 <= record["robust_acc"] <= record["test_acc"]
    assert record["test_acc"] == compute(plain, store, "cpu")["test_acc"]
    frame = gather([plain, cell], store)
    assert frame["robust_acc"].isna().tolist() == [True, False]
    assert frame["robust_radius"][1] == pytest.approx(radius)


def test_a_defense_of_a_stranger_names_the_ball_of_its_robust_accuracy(tiny: Dataset) -> None:
    class Hardened(Defense):
        """A defense whose options have names of their own."""

        reach: float = 0.25

        def ball(self) -> tuple[Norm, float]:
            return "l2", self.reach

    cell = planned(tiny, attacks="lsp[eps=1]")
    assert replace(cell, defense=Hardened()).ball() == ("l2", 0.25)
    assert cell.ball() == ("l2", 0.5)


def test_later_fields_of_the_protocol_leave_old_keys_alone(tiny: Dataset) -> None:
    cell = planned(tiny)
    assert set(cell.recipe()["protocol"]) == {
        *("epochs", "batch_size", "lr", "schedule", "momentum", "nesterov", "weight_decay"),
        *("warmup_epochs", "clip_norm", "crop_padding", "flip", "normalise", "eval_every"),
    }
    for field in ("alternate", "compile", "robust", "train_curve"):
        changed = replace(cell, protocol=cell.protocol.model_copy(update={field: True}))
        assert changed.key != cell.key
        assert Cell.from_json(changed.to_json()).key == changed.key
    still = cell.protocol.model_copy(update={"flip": False})
    turning = still.model_copy(update={"alternate": True})
    assert replace(cell, protocol=turning).key == replace(cell, protocol=still).key


def test_runs_that_may_be_averaged_share_their_recipe(tiny: Dataset) -> None:
    cell = planned(tiny)
    for seeds in ({"seeds": 5}, {"poison_seeds": 5}):
        other = planned(tiny, **seeds)
        assert other.key != cell.key
        assert other.recipe_key == cell.recipe_key
    for other in (planned(tiny, attacks="lsp[eps=1]"), planned(tiny, ratio=0.5)):
        assert other.recipe_key != cell.recipe_key


def test_rows_say_which_version_and_recipe_made_them(tiny: Dataset, store: Store) -> None:
    keep_dataset(store, tiny)
    cell = planned(tiny)
    assert gather([cell], store)["suite_version"].tolist() == [""]
    record = compute(cell, store, "cpu")
    (row,) = gather([cell], store).to_dict("records")
    assert row["suite_version"] == record["versions"]["uebench"]
    assert row["recipe"] == cell.recipe_key
