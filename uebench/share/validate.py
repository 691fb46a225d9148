"""Whether somebody's results can be what they say: schema, hashes, ranges, keys and recipes.

Nothing is computed again; that a number is possible does not say that it is true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from .. import report
from ..common.errors import UserError
from ..common.json_file import RUN, AbsentFileError, check_size, read_run_json
from ..common.spec import format_spec, parse_spec
from ..report.records import read_records
from ..store.store import key_of
from .manifest import NAME, check_manifest

MOST_TOLD = 20
Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What one test of a folder found.

    Attributes:
        test: its name.
        status: `passed`, `failed` or `skipped`.
        text: what was found.
        problems: what is wrong, a sentence each.
    """

    test: str
    status: Literal["passed", "failed", "skipped"]
    text: str
    problems: tuple[str, ...] = ()


class NotResultsError(UserError):
    """The folder holds no results at all."""


def validate(folder: Path) -> list[Finding]:
    """Return what was found of a folder of results or a bundle.

    Raises:
        NotResultsError: there is no such folder, or no cells.csv in it.
    """
    if not (folder / "cells.csv").is_file():
        raise NotResultsError(
            f"{folder} has no cells.csv; give a results folder or what `uebench publish` wrote"
        )
    findings = [_files(folder)]
    try:
        check_size(folder / "cells.csv")
        cells = report.read_cells(folder)
        board = report.to_csv(report.leaderboards(cells))
    except ValueError as error:
        return [*findings, Finding("schema", "failed", "cells.csv", (str(error),))]
    findings.append(Finding("schema", "passed", f"{len(cells)} cells"))
    rows: list[Row] = [
        {str(k): None if pd.isna(v) else v for k, v in row.items()}
        for row in cells.to_dict("records")
    ]
    findings.append(_told("numbers", f"{len(rows)} cells", _impossible(rows)))
    findings.append(_leaderboard(folder, board))
    return [*findings, *_run(folder, rows), _records(folder, rows)]


def _run(folder: Path, rows: list[Row]) -> list[Finding]:
    """Return what was found of recipes and poisons, which `run.json` has."""
    try:
        told = read_run_json(folder, ("recipes", "poisons"))
    except AbsentFileError:
        return [Finding(name, "skipped", f"there is no {RUN}") for name in ("recipes", "poisons")]
    except ValueError as error:
        return [Finding("recipes", "failed", RUN, (str(error),))]
    recipes, poisons = told["recipes"], told["poisons"]
    return [
        _told("recipes", f"{len(recipes)} recipes", _recipes(rows, recipes)),
        _told("poisons", f"{len(poisons)} poisons", _poisons(rows, poisons)),
    ]


def _told(test: str, text: str, problems: list[str]) -> Finding:
    """Return a finding of these problems; there are none in what passes."""
    return Finding(test, "failed" if problems else "passed", text, tuple(problems))


def _files(folder: Path) -> Finding:
    """Return whether the files are those that were published."""
    if not (folder / NAME).is_file():
        return Finding("files", "skipped", f"there is no {NAME}: this was not published")
    try:
        return _told("files", NAME, check_manifest(folder))
    except (OSError, UnicodeDecodeError) as error:
        return Finding("files", "failed", NAME, (f"{NAME} cannot be read: {error}",))


def _impossible(rows: list[Row]) -> list[str]:
    """Return which accuracies no model can have, and which counts contradict each other."""
    wrong = []
    for row in (row for row in rows if row["status"] == "ok"):
        who = _who(row)
        for name, count in (("test_acc", row["n_test"]), ("test_acc_best", row["n_test"])):
            if row[name] is not None and count and not _is_share(row[name], count):
                wrong.append(f"{who}: {name} {row[name]} is no share of {count} test images")
        best, last = row["test_acc_best"], row["test_acc"]
        if best is not None and best < last - 1e-6:
            wrong.append(f"{who}: the best epoch's {best} is below the last one's {last}")
        if row["best_epoch"] and row["epochs"] and row["best_epoch"] > row["epochs"]:
            wrong.append(f"{who}: best epoch {row['best_epoch']} of {row['epochs']}")
        if not row["key"]:
            wrong.append(f"{who}: has no key")
    sizes: dict[str, set[int]] = {}
    for row in rows:
        if row["n_test"]:
            sizes.setdefault(row["dataset"], set()).add(row["n_test"])
    wrong += [
        f"{name} has test sets of {', '.join(map(str, sorted(found)))} images"
        for name, found in sizes.items()
        if len(found) > 1
    ]
    return wrong


def _is_share(accuracy: float, n: int) -> bool:
    """Return whether an accuracy is a whole number of n images, but for float32's rounding."""
    hits = accuracy * n
    return math.isclose(hits, round(hits), abs_tol=max(1e-6, 2e-7 * n))


def _who(row: Row) -> str:
    """Return a cell in a few words."""
    attack = f"{row['attack']}[{row['attack_options']}]" if row["attack_options"] else row["attack"]
    return f"{attack} under {row['defense']}, seed {row['seed']}"


def _leaderboard(folder: Path, board: str) -> Finding:
    """Return whether the leaderboard is that of the cells."""
    try:
        told = (folder / "leaderboard.csv").read_text()
    except (OSError, UnicodeDecodeError):
        return Finding("leaderboard", "skipped", "there is no leaderboard.csv")
    differ = [
        f"leaderboard.csv, line {number} is not what cells.csv gives: {mine[:120]!r}"
        for number, (mine, theirs) in enumerate(
            zip(told.splitlines(), board.splitlines(), strict=False), 1
        )
        if mine != theirs
    ]
    if len(told.splitlines()) != len(board.splitlines()):
        differ.append("leaderboard.csv has more or fewer lines than cells.csv gives")
    return _told("leaderboard", "leaderboard.csv is made of cells.csv", differ)


FIELDS = ("arch", "defense", "seed", "precision")
"""Columns that a recipe holds under the same name."""


def _bare(arch: Any) -> Any:
    """Return a network without what its key holds in another way: its form, its weights."""
    if not isinstance(arch, str):
        return arch
    try:
        name, options = parse_spec(arch)
    except ValueError:
        return arch
    apart = ("form", "weights", "sha256")
    return format_spec(name, {k: v for k, v in options.items() if k not in apart})


def _recipes(rows: list[Row], recipes: dict[str, Any]) -> list[str]:
    """Return which keys are not their recipe's hash, and which cells not their recipe's."""
    wrong = [
        f"the key {key[:16]} is not the hash of its recipe"
        for key, recipe in recipes.items()
        if not _hashes_to(recipe, key)
    ]
    for row in (row for row in rows if row["status"] == "ok"):
        recipe = recipes.get(row["key"])
        if not isinstance(recipe, dict):
            wrong.append(f"{_who(row)}: {RUN} has no recipe for its key {str(row['key'])[:16]}")
            continue
        poison = recipe.get("poison")
        protocol = recipe.get("protocol")
        of_recipe = {name: recipe.get(name) for name in FIELDS}
        of_recipe["epochs"] = protocol.get("epochs") if isinstance(protocol, dict) else None
        mine = {name: row[name] for name in FIELDS} | {"epochs": row["epochs"]}
        of_recipe["arch"], mine["arch"] = (_bare(m["arch"]) for m in (of_recipe, mine))
        if isinstance(poison, dict) and "attack" in poison:
            of_recipe["attack"], mine["attack"] = poison["attack"], row["attack"]
            of_recipe["ratio"], mine["ratio"] = recipe.get("ratio"), row["ratio"]
        elif isinstance(poison, dict) and "imported" not in poison:
            of_recipe["attack"], mine["attack"] = "none", row["attack"]
        wrong += [
            f"{_who(row)}: its {name} is {mine[name]!r}, its recipe's {of_recipe[name]!r}"
            for name in mine
            if mine[name] is not None and mine[name] != of_recipe[name]
        ]
    return wrong


def _hashes_to(recipe: Any, key: str) -> bool:
    """Return whether a key is a recipe's hash."""
    try:
        return key_of(recipe) == key
    except (TypeError, ValueError, RecursionError):
        return False


def _poisons(rows: list[Row], poisons: dict[str, Any]) -> list[str]:
    """Return which poisons are not their recipe's, exceed their budget, or have other hashes."""
    wrong, hashes = [], set()
    for key, poison in poisons.items():
        if not isinstance(poison, dict) or not _hashes_to(poison.get("recipe"), key):
            wrong.append(f"the poison {key[:16]} is not the hash of its recipe")
            continue
        hashes.add(poison.get("sha256"))
        wrong += _over_budget(key, poison)
    for row in rows:
        if row["poison_sha256"] and row["poison_sha256"] not in hashes:
            wrong.append(f"{_who(row)}: its poison {row['poison_sha256'][:16]} is in no record")
    return wrong


def _over_budget(key: str, poison: dict[str, Any]) -> list[str]:
    """Return whether what was measured on a poison exceeds its own budget."""
    match poison:
        case {"budget": {"norm": "linf", "eps": float(eps)}, "linf_max": float(most)}:
            allowed = math.floor(255 * eps + 0.5) + 1e-4
        case {
            "budget": {"norm": "l2", "eps": float(eps)},
            "l2_max": float(most),
            "l0_max": float(pixels),
        }:
            # rounding moves each changed value by up to half a level, three in a pixel
            allowed = eps + 0.5 / 255 * math.sqrt(3 * pixels) + 1e-4
        case _:
            return []
    if most <= allowed:
        return []
    return [f"the poison {key[:16]} measures {most:g}, its budget allows {allowed:g}"]


def _records(folder: Path, rows: list[Row]) -> Finding:
    """Return whether the models' records are of these cells and give the same accuracies."""
    path = folder / "records.json"
    if not path.is_file():
        return Finding("records", "skipped", "there is no records.json")
    by_key = {row["key"]: row for row in rows}
    wrong = []
    try:
        records = read_records(path)
    except ValueError as error:
        return _told("records", "", [str(error)])
    for key, record in records.items():
        total = sum(map(sum, record.confusion))
        hits = sum(counts[label] for label, counts in enumerate(record.confusion))
        row = by_key.get(key)
        if row is None:
            wrong.append(f"the record {key[:16]} is of no cell")
        elif not total or abs(hits / total - row["test_acc"]) > 1e-6:
            wrong.append(f"{_who(row)}: its confusion matrix has another accuracy")
    return _told("records", f"{len(records)} records", wrong)
