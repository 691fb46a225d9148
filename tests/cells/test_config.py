"""Configurations of several parts: what flags and protocols replace, and where."""

import re
from pathlib import Path

import pytest

from uebench.cells.cell import Cell, dataset_ref
from uebench.cells.config import (
    dataset_specs,
    make_config,
    merged_fields,
    method_names,
    parts,
)
from uebench.cells.fields import replace_field
from uebench.cells.plan import plan
from uebench.common.errors import UserError
from uebench.data import Dataset

PARTED = {
    "attacks": "lsp",
    "defenses": "standard",
    "matrices": [{"ratio": [0.25, 0.5]}, {"classes": ["1"], "seeds": [3]}],
}


def cells(dataset: Dataset, **fields: object) -> list[Cell]:
    config = make_config({"protocol_options": {"epochs": 4}, **fields})
    return plan(config, [(dataset, dataset_ref(dataset))], "cpu")


def told(planned: list[Cell]) -> list[tuple[float, tuple[int, ...], int]]:
    return [(cell.ratio, cell.classes, cell.seed) for cell in planned]


def test_parts_follow_each_other_and_inherit_the_whole(tiny: Dataset) -> None:
    assert told(cells(tiny, **PARTED)) == [(0.25, (), 0), (0.5, (), 0), (1.0, (1,), 3)]


def test_the_same_cell_of_two_parts_is_one(tiny: Dataset) -> None:
    both = {**PARTED, "matrices": [{"seeds": [0, 1]}, {"seeds": [1, 2]}]}
    assert [cell.seed for cell in cells(tiny, **both)] == [0, 1, 2]


def test_a_flag_replaces_a_field_only_in_the_parts_that_set_it(tiny: Dataset) -> None:
    assert told(cells(tiny, **replace_field(PARTED, "ratio", "0.75")))[0] == (0.75, (), 0)
    assert told(cells(tiny, **replace_field(PARTED, "ratio", "0.75")))[1][0] == 1.0
    seeds = [seed for _, _, seed in told(cells(tiny, **replace_field(PARTED, "seeds", "7")))]
    assert seeds == [7, 7, 7], "what no part is about is replaced in all"


def test_a_flag_that_no_part_sets_applies_to_all_parts(tiny: Dataset) -> None:
    replaced = replace_field(PARTED, "poison_seeds", "5")
    assert {cell.poison.seed for cell in cells(tiny, **replaced)} == {5}
    assert PARTED["matrices"] == [{"ratio": [0.25, 0.5]}, {"classes": ["1"], "seeds": [3]}]


def test_options_of_parts_add_to_those_of_the_whole(tiny: Dataset) -> None:
    given = {**PARTED, "set": {"lsp.eps": 1, "lsp.patch": 4}}
    given["matrices"] = [{}, {"set": {"lsp.eps": 2}}]
    assert [c.attack_options for c in cells(tiny, **given)] == ["eps=1,patch=4", "eps=2,patch=4"]
    flagged = replace_field(given, "set", {"lsp.eps": "3"})
    assert [c.attack_options for c in cells(tiny, **flagged)] == ["eps=3,patch=4"]


def test_longer_training_is_a_multiple_of_whatever_the_protocol_has(tiny: Dataset) -> None:
    longer = {**PARTED, "matrices": [{}, {"times_epochs": 1.5}]}
    assert [cell.protocol.epochs for cell in cells(tiny, **longer)] == [4, 6]
    one = {**longer, "protocol_options": {"epochs": 1}}
    assert [cell.protocol.epochs for cell in cells(tiny, **one)] == [1, 2]


def test_clean_models_are_trained_as_next_to_each_attack(tiny: Dataset) -> None:
    planned = cells(
        tiny, attacks="em,lsp[eps=1]", defenses="standard,at", clean_beside=["standard", "at"]
    )
    clean = [(c.defense.info.name, c.defense_options) for c in planned if c.poison.is_clean]
    assert clean == [("standard", ""), ("at", ""), ("at", "norm=l2,radius=0.5,step=0.1")]
    beside = {c.poison.is_clean: c.defense for c in planned if "l2" in str(c.defense)}
    assert beside[True] == beside[False]


def test_fields_under_a_protocol_apply_when_it_is_chosen(tiny: Dataset) -> None:
    fields = {**PARTED, "under": {"quick": {"seeds": [9]}, "paper": {"attacks": "em"}}}
    assert {c.seed for c in cells(tiny, **fields)} == {9}
    assert method_names(make_config({**fields, "protocol": "paper"})) == ["em", "standard"]


def test_epochs_and_fields_of_the_protocol_have_short_forms_everywhere(tiny: Dataset) -> None:
    short = {
        **PARTED,
        "epochs": 2,
        "set": {"protocol.lr": 0.5, "lsp.eps": 1},
        "matrices": [{}, {"epochs": 3, "set": {"protocol.lr": 0.25}}],
    }
    config = make_config(short)
    planned = plan(config, [(tiny, dataset_ref(tiny))], "cpu")
    assert [(c.protocol.epochs, c.protocol.lr) for c in planned] == [(2, 0.5), (3, 0.25)]
    assert {c.attack_options for c in planned} == {"eps=1"}
    assert make_config(config.model_dump()) == config, "run.json can be read again"
    ruled = make_config({**PARTED, "under": {"quick": {"epochs": 1, "set": {"protocol.lr": 1}}}})
    assert ruled.protocol_options == {"lr": 1, "epochs": 1}


def test_data_sets_of_all_parts() -> None:
    config = make_config({"matrices": [{"dataset": ["a", "b"]}, {"dataset": "a"}, {}]})
    assert dataset_specs(config) == ["a", "b", "synthetic"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"matrices": 3}, "matrices must be a list of parts"),
        ({"matrices": [3]}, "matrices must be a list of parts"),
        ({"dataset": ["a", "b", "a"]}, "a is named more than once"),
        ({"matrices": [{"set": [1]}]}, "set must be names and values"),
        ({"matrices": [{}, {"ratoi": 1}]}, "part 2: no field ratoi (did you mean ratio?)"),
        ({"matrices": [{"title": "x"}]}, "part 1: title belongs to the whole"),
        ({"under": {"quick": 3}}, "under must map protocols to fields"),
        ({"set": "em.rounds=3"}, "set must be names and values"),
        ({"times_epochs": 0}, "times_epochs must be a number in (0, 100], got 0"),
        ({"table": {"rows": "atack"}}, "unknown axis atack (did you mean attack?)"),
        ({"table": {"number": "2", "size": 3}}, "table"),
    ],
)
def test_bad_parts_are_refused_with_a_sentence(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as error:
        parts(make_config(fields))
    assert told in str(error.value)


def test_an_option_of_an_attack_in_no_part_is_refused(tiny: Dataset) -> None:
    with pytest.raises(ValueError, match="em is not in this matrix"):
        cells(tiny, **{**PARTED, "set": {"em.rounds": 3}})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("defences: [standard]", "no field defences (did you mean defenses?)"),
        ("seeds: [a]", "seeds must be"),
        ("set: 3", "set must be names and values"),
        ("matrices: [{ratio: 3}]", "matrices, part 1: ratio"),
    ],
)
def test_what_a_file_has_wrong_is_said_with_its_name(line: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(line)
    with pytest.raises(UserError, match=re.escape(f"{file}: {told}")):
        merged_fields(str(file), {})
    file.write_text("seeds: [1]")
    with pytest.raises(UserError, match=r"^no field defences"):
        make_config(merged_fields(str(file), {"defences": "standard"}))
