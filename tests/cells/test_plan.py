"""Plans: order, keys, and what is resolved into numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from uebench.cells.cell import Cell, dataset_ref
from uebench.cells.config import config_names, make_config, read_config
from uebench.cells.plan import class_labels, plan, resolve_precision
from uebench.cells.results import row
from uebench.common.errors import UserError
from uebench.data import Dataset
from uebench.learn.protocol import Protocol
from uebench.methods.base import Defense
from uebench.methods.registry import find


def cells(dataset: Dataset, **fields: object) -> list[Cell]:
    given = {"attacks": ["none", "lsp"], "defenses": ["standard", "at"], **fields}
    return plan(make_config(given), [(dataset, dataset_ref(dataset))], "cpu")


def test_the_order_is_that_of_the_lists(tiny: Dataset) -> None:
    planned = cells(tiny, seeds="0,1", attacks="lsp,none")
    told = [(c.poison.attack.info.name, c.defense.info.name, c.seed) for c in planned]
    assert told == [
        (attack, defense, seed)
        for attack in ("lsp", "none")
        for defense in ("standard", "at")
        for seed in (0, 1)
    ]


def test_half_the_budget_is_resolved_and_enters_the_key(tiny: Dataset) -> None:
    planned = cells(tiny, attacks="none,lsp[eps=1],em[eps=16/255]")
    at = [c.defense for c in planned if c.defense.info.name == "at"]
    told = [(d.norm, round(d.radius, 6)) for d in at]  # type: ignore[attr-defined]
    assert told == [("linf", 0.015686), ("l2", 0.5), ("linf", 0.031373)]
    clean, *others = cells(tiny, attacks="none,ops,cuda", defenses="at")
    assert [c.defense for c in others] == [clean.defense] * 2, "pixels are no radius"
    assert all(c.defense_options == "" for c in planned), "tables show what was asked for"


def test_what_changes_a_number_changes_the_key_and_nothing_else_does(tiny: Dataset) -> None:
    (base,) = cells(tiny, attacks="lsp", defenses="ueraser")
    other = "fp32" if base.precision == "bf16" else "bf16"
    changed = [
        *cells(tiny, attacks="lsp[eps=1]", defenses="ueraser"),
        *cells(tiny, attacks="lsp", defenses="ueraser[repeats=4]"),
        *cells(tiny, attacks="lsp", defenses="ueraser", seeds="1"),
        *cells(tiny, attacks="lsp", defenses="ueraser", poison_seeds="1"),
        *cells(tiny, attacks="lsp", defenses="ueraser", arch="resnet18"),
        *cells(tiny, attacks="lsp", defenses="ueraser", ratio="0.5"),
        *cells(tiny, attacks="lsp", defenses="ueraser", classes="1"),
        *cells(tiny, attacks="lsp", defenses="ueraser", protocol_options={"lr": 0.05}),
        *cells(tiny, attacks="lsp", defenses="ueraser", protocol_options={"precision": other}),
        replace(
            base, poison=replace(base.poison, dataset=replace(base.poison.dataset, fingerprint="x"))
        ),
    ]
    keys = [base.key, *(c.key for c in changed)]
    assert len(set(keys)) == len(keys)
    renamed = replace(base.poison.dataset, name="/elsewhere/copy")
    same = replace(base, poison=replace(base.poison, dataset=renamed), defense_options="shown")
    assert same.key == base.key


def test_a_raised_version_makes_cells_stale(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = cells(tiny, attacks="lsp", defenses="iss")
    key, poison = before.key, before.poison.key
    monkeypatch.setattr(type(before.defense), "version", before.defense.version + 1)
    (after,) = cells(tiny, attacks="lsp", defenses="iss")  # an object computes its key once
    assert after.key != key
    assert after.poison.key == poison
    attack = before.poison.attack
    monkeypatch.setattr(type(attack), "version", attack.version + 1)
    (after,) = cells(tiny, attacks="lsp", defenses="iss")
    assert after.poison.key != poison


def test_only_poisons_are_planned_for_each_poison_seed(tiny: Dataset) -> None:
    planned = cells(tiny, defenses="standard", seeds="0,1", poison_seeds="3,4")
    told = [(c.poison.attack.info.name, c.seed, c.poison.seed) for c in planned]
    assert told == [
        *(("none", seed, 3) for seed in (0, 1)),
        *(("lsp", seed, poison_seed) for seed in (0, 1) for poison_seed in (3, 4)),
    ]


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_that_only_emulates_bf16_computes_in_fp32(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )
    assert resolve_precision("auto", "cuda:0") == expected
    assert resolve_precision("fp32", "cuda:0") == "fp32"


def test_clean_data_is_one_poison_whatever_the_ratio(tiny: Dataset) -> None:
    planned = cells(tiny, attacks="none", defenses="standard", ratio="0.5,1", poison_seeds="0,1")
    assert len(planned) == 2
    assert planned[0].key == planned[1].key


def test_clean_data_is_planned_for_each_list_of_classes_that_a_table_shows(tiny: Dataset) -> None:
    parts = [{"classes": ["0"]}, {"classes": ["1"]}]
    planned = cells(tiny, attacks="none,lsp", defenses="standard", matrices=parts)
    assert [(c.poison.attack.info.name, c.classes) for c in planned] == [
        *(("none", (0,)), ("lsp", (0,))),
        *(("none", (1,)), ("lsp", (1,))),
    ]
    assert len({cell.key for cell in planned}) == 3, "which are one computation"


def test_a_victim_does_not_depend_on_the_defense_that_is_named_first(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halved(_: Defense, protocol: Protocol) -> Protocol:
        return protocol.model_copy(update={"batch_size": protocol.batch_size // 2})

    monkeypatch.setattr(find("defense", "iss"), "adjust", halved)
    keys = [
        {cell.key for cell in cells(tiny, attacks="none", defenses=order, victims="simclr")}
        for order in ("standard,iss", "iss,standard")
    ]
    assert keys[0] == keys[1]


def test_a_defense_may_have_epochs_of_its_own_in_the_same_table(tiny: Dataset) -> None:
    asked = ["standard", "ueraser", "ueraser[times_epochs=2.5]"]
    standard, usual, longer = cells(tiny, attacks="lsp", defenses=asked, epochs=10)
    (same,) = cells(tiny, attacks="lsp", defenses="ueraser", epochs=25)
    assert [c.protocol.epochs for c in (standard, usual, longer)] == [10, 10, 25]
    assert longer.key == same.key, "one computation under two names"
    assert longer.defense.adversarial_epochs == 6, "a quarter of its own epochs"  # type: ignore[attr-defined]
    rows = [row(c, None, None) for c in (standard, usual, longer)]
    assert [r["epochs"] for r in rows] == [10, 10, 25]
    assert [r["protocol_epochs"] for r in rows] == [None, None, 10]
    assert rows[2]["defense_options"] == "times_epochs=2.5"
    back = Cell.from_json(longer.to_json())
    assert (back.key, back.protocol.epochs) == (longer.key, 25), "they are not multiplied again"


def test_epochs_that_nothing_would_read_and_warm_ups_that_fill_them_are_refused(
    tiny: Dataset,
) -> None:
    with pytest.raises(UserError, match="victim simclr does not train for these; leave it out"):
        cells(tiny, attacks="none", defenses="iss[times_epochs=2]", victims="simclr")
    with pytest.raises(UserError, match="warmup_epochs=2 leaves none of the 1 epochs"):
        cells(
            tiny,
            defenses="iss[times_epochs=0.1]",
            protocol_options={"warmup_epochs": 2, "epochs": 10},
        )


def test_cells_travel_as_plain_data(tiny: Dataset) -> None:
    for cell in cells(tiny, classes="1", ratio="1/4"):
        back = Cell.from_json(cell.to_json())
        assert back.key == cell.key
        assert back.poison.key == cell.poison.key


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"attacks": "lspp"}, "did you mean lsp"),
        ({"defenses": "iss[quality=100]"}, "in [1, 95]"),
        ({"protocol": "papr"}, "did you mean paper"),
        ({"protocol_options": {"epoch": 3}}, "did you mean epochs"),
        ({"arch": "resnet81"}, "did you mean resnet8"),
        ({"arch": "resnet9[width=0]"}, "width must be a whole number in [1, 1024], got 0"),
        ({"classes": "plain squre"}, "did you mean plain square"),
        ({"set": {"em.rounds": 3}}, "em is not in this matrix"),
        ({"set": {"rounds": 3}}, "METHOD.OPTION"),
        ({"ratio": "1.5"}, "ratio must be a list of values, each a number in [0, 1], got 1.5"),
        (
            {"seeds": "x"},
            "seeds must be a list of values, each a whole number in [0, 2147483648), got x",
        ),
        ({"attaks": "em"}, "did you mean attacks"),
        ({"attacks": ""}, "attacks names nothing; give at least one"),
        ({"classes": ""}, "nothing is named"),
        ({"arch": " , "}, "nothing is named"),
        ({"seeds": "0,1,0"}, "0 is named more than once"),
        ({"poison_seeds": [2, 2]}, "2 is named more than once"),
        ({"ratio": "1/2,0.5"}, "0.5 is named more than once"),
        ({"classes": ["plain square", 1]}, "the classes plain square and 1 are the same"),
        ({"attacks": "lsp,lsp[patch=4]"}, "the attacks lsp and lsp[patch=4] are the same"),
        ({"defenses": "iss,standard,iss"}, "the defenses iss and iss are the same"),
        ({"arch": "resnet8,resnet8[width=16]"}, "the networks resnet8 and resnet8[width=16] are"),
        ({"ratio": 0.001}, "n_classes=2,size=16] has 40 training images, and poison"),
        ({"ratio": "0.03", "classes": "0"}, "training images of class 0, and poison seed 0"),
        ({"epochs": 2, "set": {"protocol.epochs": 3}}, "epochs is 2, but the protocol's epochs"),
    ],
)
def test_bad_plans_are_refused_with_a_sentence(
    fields: dict[str, object], told: str, tiny: Dataset
) -> None:
    with pytest.raises((ValueError, KeyError)) as error:
        cells(tiny, **fields)
    assert told in str(error.value)


def test_a_share_of_nothing_is_refused_only_where_something_is_poisoned(tiny: Dataset) -> None:
    assert len(cells(tiny, ratio="0,0.001", attacks="none", defenses="standard")) == 2
    assert [c.ratio for c in cells(tiny, ratio="0", attacks="lsp", defenses="standard")] == [0]


def test_class_names_and_numbers(tiny: Dataset) -> None:
    assert class_labels(["1", tiny.class_names[0]], tiny) == (0, 1)


def test_configurations(tmp_path: Path) -> None:
    assert "quick" in config_names()
    assert read_config("quick")["dataset"].startswith("synthetic")
    path = tmp_path / "my.yaml"
    path.write_text("attacks: [lsp]\n")
    assert read_config(str(path)) == {"attacks": ["lsp"]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "is not YAML (line"),
        ("just words", "not contain names"),
        ("- 1", "not contain names"),
    ],
)
def test_bad_configuration_files(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"YAML|names") as error:
        read_config(str(path))
    assert told in str(error.value)


def test_missing_configurations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean quick"):
        read_config("quik")
    with pytest.raises(ValueError, match="no such file"):
        read_config(str(tmp_path / "none.yaml"))


def test_an_image_too_small_to_be_mirrored_is_refused_before_anything_runs(tiny: Dataset) -> None:
    options = {"crop_padding": 64, "crop_fill": "reflect"}
    with pytest.raises(ValueError, match=r"set crop_padding to \d+ or less, or crop_fill=zero"):
        cells(tiny, protocol_options=options)


def test_a_network_of_timm_can_also_be_the_surrogate(tiny: Dataset) -> None:
    vit = "timm:vit_tiny_patch16_224[depth=1,patch_size=4]"
    (cell,) = cells(tiny, attacks="em", defenses="standard", protocol_options={"surrogate": vit})
    assert cell.poison.recipe()["options"]["surrogate"] == vit
