"""Check that a folder's records agree with themselves, with the cells and with their recipes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..cells.cell import LATER_FIELDS, TRAINER_VERSION, PoisonRef
from ..cells.determinism import limited_by_poison
from ..cells.results import measured
from ..common.json_file import RUN
from ..common.provenance import origins
from ..common.spec import parse_spec
from ..common.text import one_line
from ..data.poison import Budget, BudgetNorm
from ..learn.loops import n_batches
from ..learn.protocol import Protocol
from ..report.records import CellRecord, origin_in_words
from .check_cells import unversioned
from .check_recipes import differing_options
from .contents import CellValues, Contents, Remarks, Unchecked, about, as_recorded, key_or_none, who

_UNKNOWABLE = "losses, times, memory and machines: `uebench verify` computes cells again"
_HASHES = "hashes of poisons and how visible they are: they follow from images that are not here"

_MEASURED_IF_ASKED = (
    ("robust", "robust_acc"),
    ("recovery", "dfr_acc"),
    ("recovery", "weight_noise_acc"),
)
"""Switches of the protocol, and the columns that only they fill."""


def check_records(contents: Contents) -> Remarks:
    """Yield the records that belong to no cell, and those that contradict their cell or recipe."""
    finished = {str(row["key"]): row for row in contents.rows if row["status"] == "ok"}
    yield from (
        f"the record {key[:16]} belongs to no cell"
        for key in contents.records
        if key not in finished
    )
    for key, row in finished.items():
        record = contents.records.get(key)
        if row["origin"] != origin_in_words(contents.run.reused.get(key, {})):
            yield f"{who(row)}: its origin is {row['origin']!r}, and {RUN} names another one"
        if record is None:
            yield f"{who(row)}: records.json has no record of it"
            continue
        yield from _check_row(row, record)
        yield from _check_confusion(contents, row, record)
        recipe = contents.run.recipes.get(key)
        if isinstance(recipe, dict):
            yield from _check_curve(row, record, recipe)
            yield from _check_origin(contents, row, record, recipe)
    dumped = {key: dict(record) for key, record in contents.records.items()}
    if _by_cell(contents.raw.get("origins", [])) != _by_cell(origins(dumped)):
        yield f"the origins in {RUN} are not those of the records"
    yield Unchecked(_UNKNOWABLE)


def _by_cell(groups: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the origin of each cell; hiding private paths may have made two groups equal."""
    bare = [({k: v for k, v in group.items() if k != "cells"}, group["cells"]) for group in groups]
    return {key: origin for origin, cells in bare for key in cells}


def _check_row(row: CellValues, record: CellRecord) -> Remarks:
    if row["record_sha256"] not in ("", record.sha256):
        yield f"{who(row)}: its entry in records.json is not the one that the run wrote"
    for name, expected in measured(dict(record)).items():
        in_row, value = as_recorded(row[name]), as_recorded(expected)
        is_older = name in ("chance", "n_poisoned") and in_row in (None, "")
        if in_row != value and not is_older and not (value in (None, "") and in_row in (None, "")):
            yield f"{who(row)}: its {name} is {in_row!r}, but its record has {value!r}"


def _check_confusion(contents: Contents, row: CellValues, record: CellRecord) -> Remarks:
    confusion = record.confusion
    total, hits = confusion.total, confusion.correct
    facts = contents.run.datasets.get(row["dataset"])
    if not total or abs(hits / total - row["test_acc"]) > 1e-6:
        yield f"{who(row)}: its confusion matrix gives another accuracy"
    elif total != row["n_test"]:
        yield f"{who(row)}: its confusion matrix counts {total} images, not {row['n_test']}"
    if facts is not None and len(confusion) != len(facts.class_names):
        yield f"{who(row)}: its confusion matrix has {len(confusion)} classes"


def _check_curve(row: CellValues, record: CellRecord, recipe: Mapping[str, Any]) -> Remarks:
    """Yield what a curve shows differently from the row, the record or the protocol."""
    if "victim" in recipe:
        yield from _check_accuracies(row, record)
        return
    fields: dict[str, Any] = recipe["protocol"]
    named = {name: value for name, value in fields.items() if name in Protocol.model_fields}
    try:
        protocol = Protocol.model_validate(LATER_FIELDS | named)
    except ValidationError:
        yield Unchecked(f"{who(row)}: its curve, as its protocol is of another version")
        return
    curve, epochs = record.curve, range(1, protocol.epochs + 1)
    tested = [e for e in epochs if e % protocol.eval_every == 0 or e == protocol.epochs]
    evaluated = ["test_acc"] + ["train_acc"] * protocol.train_curve
    expected = {"epoch": list(epochs), **dict.fromkeys(evaluated, tested)}
    epochs_of = (
        {
            name: [e for e, value in zip(curve["epoch"], column, strict=True) if value is not None]
            for name, column in curve.items()
            if name not in ("loss", "lr")
        }
        if curve.get("epoch")
        else {}
    )
    if epochs_of != expected or None in (*curve.get("loss", [None]), *curve.get("lr", [None])):
        yield f"{who(row)}: its curve does not have the epochs and columns of its protocol"
        return
    yield from _check_accuracies(row, record)
    yield from _check_steps(row, record, recipe, protocol)


def _check_accuracies(row: CellValues, record: CellRecord) -> Remarks:
    """Yield the accuracies of a row that its curve contradicts, whoever trained the model."""
    curve = record.curve
    if not curve.get("epoch") or (curve.get("test_acc") or [None])[-1] is None:
        yield f"{who(row)}: its curve does not end with an accuracy"
        return
    tested = [
        (epoch, value)
        for epoch, value in zip(curve["epoch"], curve["test_acc"], strict=True)
        if value is not None
    ]
    accuracies = [value for _, value in tested]
    of_curve = {
        "test_acc": accuracies[-1],
        "test_acc_best": max(accuracies),
        "best_epoch": tested[accuracies.index(max(accuracies))][0],
        **({"train_acc": curve["train_acc"][-1]} if "train_acc" in curve else {}),
    }
    for name, value in of_curve.items():
        if as_recorded(row[name]) != value:
            yield f"{who(row)}: its curve gives {name} {value}, not {row[name]}"
    if not all(0 <= value <= 1 for value in accuracies):
        yield f"{who(row)}: its curve has accuracies outside [0, 1]"


def _check_steps(
    row: CellValues, record: CellRecord, recipe: Mapping[str, Any], protocol: Protocol
) -> Remarks:
    n, epochs = row["n_train"] or 0, protocol.epochs
    steps = n_batches(n, protocol.batch_size)
    rates = [as_recorded(protocol.learning_rate((e + 1) * steps - 1, steps)) for e in range(epochs)]
    if recipe.get("trainer") == TRAINER_VERSION and rates != record.curve["lr"]:
        yield f"{who(row)}: its learning rates are not those of its protocol"
    speed, seconds = record.images_per_second, row["train_seconds"]
    if speed and seconds and epochs * n / speed > seconds * (1 + 1e-4):
        yield f"{who(row)}: at {speed} images per second it took longer than {seconds} s"
    if not 0 <= (record.augment_share or 0) <= 1 or (record.prepare_seconds or 0) < 0:
        yield f"{who(row)}: its costs are not possible"


def _check_origin(
    contents: Contents, row: CellValues, record: CellRecord, recipe: Mapping[str, Any]
) -> Remarks:
    """Yield what a record says about its origin that its row, recipe or poison contradict."""
    poison = recipe.get("poison")
    poison = poison if isinstance(poison, dict) else {}
    crafted = contents.poison_of(row) or {} if "what" in poison else {"sha256": ""}
    seeds = {"training": row["seed"], "poison": row["poison_seed"]}
    expected = {
        "poison_sha256": crafted.get("sha256"),
        "craft_seconds": crafted.get("craft_seconds", 0.0),
    }
    for name, value in expected.items():
        if as_recorded(row[name]) != as_recorded(value):
            yield f"{who(row)}: its {name} is {row[name]!r}, but its poison's is {value!r}"
    for asked, column in _MEASURED_IF_ASKED:
        if (row[column] is not None) != bool(recipe.get("protocol", {}).get(asked)):
            yield f"{who(row)}: its protocol asks for {column} if, and only if, the row has none"
    facts = {
        "precision": row["precision"],
        "seeds": seeds,
        "data": poison.get("dataset"),
        "poison": crafted.get("sha256"),
    }
    dump = dict(record)
    yield from about(who(row), _contradictions(dump, facts))
    own = _own_determinism(dump)
    if own and dump.get("determinism") != limited_by_poison(own, crafted.get("determinism")):
        yield f"{who(row)}: its determinism does not follow from its device"


def _contradictions(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Remarks:
    """Yield what the provenance of a cell or poison says differently from its record."""
    origin = record.get("provenance")
    if origin is None:
        yield Unchecked("its provenance, which an older version did not record")
        return
    machine = origin.get("machine") if isinstance(origin, dict) else None
    if not isinstance(machine, dict) or not isinstance(origin, dict):
        yield "its provenance names no machine"
        return
    expected = {**facts, "versions": record.get("versions")}
    yield from (
        f"its provenance has {name} {origin.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if origin.get(name) != value
    )
    if machine.get("device") != record.get("device"):
        yield f"its provenance names the device {machine.get('device')!r}"


def _own_determinism(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a CPU promises about the bits of a record; None for other devices."""
    origin = record.get("provenance")
    machine = origin.get("machine") if isinstance(origin, dict) else None
    if not isinstance(machine, dict) or machine.get("device") != "cpu":
        return None
    threads = machine.get("threads")
    reasons = [] if threads == 1 else [f"{threads} threads"]
    return {"bit_identical": not reasons, "on": "CPUs of this type", "not_promised": reasons}


class _Claim(BaseModel):
    """The budget that a poison claims to keep; without a radius if it bounds nothing."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    norm: BudgetNorm
    eps: Annotated[float, Field(gt=0)] | None


_Amount = Annotated[float, Field(ge=0)]


class _Measurement(BaseModel):
    """What is measured on every poison; linf in levels of 255, l2 in the pixel range [0, 1]."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    budget: _Claim
    linf_mean: _Amount
    linf_max: Annotated[float, Field(ge=0, le=255)]
    l2_mean: _Amount
    l2_max: _Amount
    l0_mean: _Amount
    l0_max: _Amount
    psnr_mean: float | None
    ssim_mean: Annotated[float, Field(ge=-1, le=1)]
    changed_share: Annotated[float, Field(ge=0, le=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def check_poisons(contents: Contents, refs: Sequence[PoisonRef]) -> Remarks:
    """Yield the poisons that contradict their recipe, their budget or the cells.

    Args:
        contents: the folder.
        refs: the poisons that run.json describes; empty if they cannot be planned here.
    """
    planned = {unversioned(ref.recipe()): ref for ref in refs}
    hashes = set()
    for key, poison in ((k, each) for k, records in contents.poisons.items() for each in records):
        recipe = poison.get("recipe")
        if not isinstance(recipe, dict) or key_or_none(recipe) != key:
            yield f"the key of the poison {key[:16]} is not the hash of its recipe"
            continue
        hashes.add(poison.get("sha256"))
        ref = planned.get(unversioned(recipe))
        yield from about(f"the poison {key[:16]}", _check_poison(contents, poison, recipe, ref))
    for row in contents.rows:
        if row["poison_sha256"] and row["poison_sha256"] not in hashes:
            yield f"{who(row)}: its poison {row['poison_sha256'][:16]} has no record"
    used = {key_or_none(recipe.get("poison")) for recipe in contents.run.recipes.values()}
    yield from (
        f"the poison {key[:16]} belongs to no cell" for key in contents.poisons if key not in used
    )
    if contents.run.poisons:
        yield Unchecked(_HASHES)


def _check_poison(
    contents: Contents, poison: Mapping[str, Any], recipe: Mapping[str, Any], ref: PoisonRef | None
) -> Remarks:
    try:
        facts = _Measurement.model_validate(poison)
    except ValidationError as error:
        for each in error.errors():
            place = ".".join(map(str, each["loc"]))
            yield f"its {place} is not a measurement ({one_line(each['msg'])})"
        return
    if "imported" in recipe:
        if recipe["imported"] != facts.sha256:
            yield "its sha256 is not the one in its recipe"
    else:
        known = {
            "precision": recipe.get("precision"),
            "data": recipe.get("dataset"),
            "seeds": {"poison": recipe.get("seed")},
        }
        yield from _contradictions(poison, known)
        own = _own_determinism(poison)
        if own and poison.get("determinism") != own:
            yield "its determinism does not follow from its device"
        if not isinstance(poison.get("craft_seconds"), float) or poison["craft_seconds"] < 0:
            yield f"its craft_seconds are {poison.get('craft_seconds')!r}"
        if ref is None:
            yield Unchecked("its budget against its recipe, as its attack cannot be planned here")
        elif ref.attack.budget(ref.dataset.shape)._asdict() != facts.budget.model_dump():
            yield f"its budget is {facts.budget}, but its recipe gives another one"
        name, options = parse_spec(poison["spec"])
        if name != recipe["attack"]:
            yield f"its spec is {poison['spec']!r}, but its attack is {recipe['attack']!r}"
        yield from differing_options(options, recipe["options"])
    shapes = [
        d.shape for d in contents.run.datasets.values() if d.fingerprint == recipe.get("dataset")
    ]
    if shapes and len(shapes[0]) == 3:
        yield from _check_norms(facts, (shapes[0][0], shapes[0][1], shapes[0][2]))


def _check_norms(facts: _Measurement, shape: tuple[int, int, int]) -> Remarks:
    """Yield the norms that exceed the budget, or that no image of this shape can have."""
    channels, height, width = shape
    # rounding to 8 bits moves each channel of a changed pixel by up to half a level
    changed = (channels, int(facts.l0_max), 1)
    allowed = Budget(facts.budget.norm, facts.budget.eps).allowed(changed) + 1e-4
    largest = getattr(facts, f"{facts.budget.norm}_max", 0)
    if largest > allowed:
        yield f"it has a norm of {largest:g}, but its budget allows {allowed:g}"
    level, slack = facts.linf_max / 255, 1e-5
    quietest = 20 * math.log10(math.sqrt(math.prod(shape)) / facts.l2_max) if facts.l2_max else 0
    possible = (
        facts.linf_max.is_integer() and facts.l0_max.is_integer(),
        facts.l0_max <= height * width,
        all(getattr(facts, f"{norm}_mean") <= getattr(facts, f"{norm}_max") + slack
            for norm in ("linf", "l2", "l0")),
        level - slack <= facts.l2_max <= level * math.sqrt(channels * facts.l0_max) + slack,
        facts.l0_mean <= facts.l0_max * facts.changed_share + slack,
        facts.psnr_mean is None or facts.psnr_mean >= quietest - 1e-3,
    )  # fmt: skip
    if not all(possible):
        yield "its measurements contradict each other"
