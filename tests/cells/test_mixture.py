"""Mixtures from the plan to the record: keys, crafting, training and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import uebench
from uebench.cells.cell import Cell, dataset_ref, seedless_key
from uebench.cells.compute import compute, fetch_poison
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.common.errors import UserError
from uebench.data import Dataset
from uebench.data.dataset import keep_dataset
from uebench.execute.tasks import from_plain, pending, plain
from uebench.share.validate import findings
from uebench.store.store import Store


def cells(dataset: Dataset, **fields: object) -> list[Cell]:
    given = {"attacks": "none", "defenses": "standard", **fields}
    return plan(make_config(given), [(dataset, dataset_ref(dataset))], "cpu")


def test_each_part_has_the_key_of_the_unmixed_attack(tiny: Dataset) -> None:
    _, em, lsp, mix = cells(
        tiny, attacks="none,em[eps=16/255],lsp", mix="em[eps=16/255]:0.5,lsp:0.5"
    )
    assert [part.key for part in mix.poison.parts] == [em.poison.key, lsp.poison.key]
    by_set = cells(tiny, mix=["em:0.5,lsp:0.5"], set={"em.eps": "16/255"})[-1]
    assert by_set.key == mix.key
    assert by_set.attack_options == "em=0.5,em.eps=16/255,lsp=0.5", "tables show both ways alike"
    spec = cells(tiny, attacks="mix[lsp=0.5,em=0.5,em.eps=16/255]")[0]
    assert spec.key == mix.key


def test_what_changes_a_mixture_changes_its_key(tiny: Dataset) -> None:
    (base,) = cells(tiny, attacks="mix[lsp=0.5,p5=0.5]")
    others = [
        cells(tiny, attacks=f"mix[{parts}]")[0]
        for parts in ("lsp=0.5,p5=0.4", "lsp=0.5,p5=0.5,p5.eps=1", "lsp=0.5,ops=0.5")
    ]
    (other_seed,) = cells(tiny, attacks="mix[lsp=0.5,p5=0.5]", poison_seeds="1")
    assert len({cell.key for cell in (base, other_seed, *others)}) == 5
    assert other_seed.recipe_key == base.recipe_key == seedless_key(base.recipe())


def test_a_worker_builds_the_same_cell(tiny: Dataset, store: Store) -> None:
    (cell,) = cells(tiny, attacks="mix[em=0.25,lsp=0.5]")
    assert Cell.from_json(cell.to_json()).key == cell.key
    tasks = pending([cell], store)
    assert [task.describe() for task in tasks][:3] == [
        "craft em",
        "craft lsp",
        "craft mix[em=0.25,lsp=0.5]",
    ]
    assert [from_plain(plain(task)).key for task in tasks] == [task.key for task in tasks]


def test_every_image_comes_from_its_own_attack(tiny: Dataset, store: Store) -> None:
    (cell,) = cells(tiny, attacks="mix[lsp=0.5,p5=0.25]", poison_seeds="3")
    mixed = fetch_poison(store, cell.poison, tiny.train)
    owners = cell.poison.owners(tiny.train.labels)
    assert torch.equal(mixed.index, (owners >= 0).nonzero()[:, 0]), "the rest stays clean"
    for number, part in enumerate(cell.poison.parts):
        entry = store.read("poison", part.key)
        assert entry is not None, "each part is stored like any poison"
        rows = owners[mixed.index] == number
        assert torch.equal(mixed.images[rows], entry[0]["images"][owners == number])
    assert [part["images"] for part in mixed.meta["parts"]] == [20, 10]
    assert [part["attack"].partition("[")[0] for part in mixed.meta["parts"]] == ["lsp", "p5"]
    assert mixed.meta["budget"]["norm"] == "l2"


DEFENSES = "standard,ueraser_lite,iss,at"


@pytest.mark.parametrize("victim", ["supervised", "simclr[epochs=1,hidden=8,dim=4]"])
def test_defenses_and_victims_train_on_a_mixture(tiny: Dataset, store: Store, victim: str) -> None:
    defenses = DEFENSES if victim == "supervised" else "standard,iss"
    planned = cells(
        tiny,
        attacks="mix[lsp=0.5,random_class=0.25]",
        defenses=defenses,
        victims=victim,
        ratio="1,0.5",
        epochs=1,
    )
    keep_dataset(store, tiny)
    n_poisoned = {cell.ratio: compute(cell, store, "cpu")["n_poisoned"] for cell in planned}
    assert n_poisoned[1.0] == 30
    assert 5 <= n_poisoned[0.5] < 25, "the ratio thins the mixture"


def test_a_folder_with_a_mixture_is_valid_and_names_its_attacks(
    tiny: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    frame = uebench.run(
        attacks="none",
        mix="lsp:0.5,random_class:0.25",
        defenses="standard",
        dataset=tiny.name,
        epochs=1,
        out=out,
        quiet=True,
    )
    assert list(frame["status"]) == ["ok", "ok"]
    assert frame["attack_options"].iloc[1] == "lsp=0.5,random_class=0.25"
    assert [problem for finding in findings(out) for problem in finding.problems] == []
    assert "Mixture[lsp=0.5,random_class=0.25]" in (out / "leaderboard.md").read_text()
    assert "Mixture" in (out / "index.html").read_text()


def test_crafting_in_python_gives_the_poison_of_a_run(tiny: Dataset) -> None:
    poison = uebench.craft("mix[lsp=0.5,p5=0.5]", tiny, set={"p5.eps": 1}, quiet=True)
    (cell,) = cells(tiny, mix="lsp:0.5,p5[eps=1]:0.5", attacks="mix[lsp=0.5,p5=0.5,p5.eps=1]")
    assert poison.meta["recipe"] == cell.poison.recipe()
    assert len(poison) == len(tiny.train)


def test_a_share_that_poisons_no_image_is_refused_before_anything_runs(tiny: Dataset) -> None:
    with pytest.raises(UserError, match=r"the share 0\.001 of lsp poisons none of the 40"):
        cells(tiny, mix="p5:0.5,lsp:0.001")
    with pytest.raises(UserError, match=r"lsp poisons no image of the mixture with ratio 0\.05"):
        cells(tiny, mix="p5:0.5,lsp:0.05", ratio="0.05")


def test_the_same_mixture_twice_is_refused(tiny: Dataset) -> None:
    with pytest.raises(UserError, match="are the same here"):
        cells(tiny, attacks="mix[lsp=0.5,p5=0.5],mix[p5=0.5,lsp=0.5]")


def test_a_mixture_is_crafted_on_the_poisoned_images_alone_if_asked(
    tiny: Dataset, store: Store
) -> None:
    _, cell = cells(tiny, mix="lsp:0.5,p5:0.5", ratio="0.5", craft_on="subset")
    share = cell.poison.crafted_on
    assert share is not None
    assert cell.poison.parts[0].crafted_on == share
    mixed = fetch_poison(store, cell.poison, tiny.train)
    chosen = share.chosen(tiny.train.labels, tiny.fingerprint, 0)
    assert torch.equal(mixed.index, chosen.nonzero()[:, 0])
    assert replace(cell.poison, crafted_on=None).key != cell.poison.key
