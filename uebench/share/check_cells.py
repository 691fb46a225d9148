"""Compare the rows of cells.csv with the matrix that run.json describes.

The configuration in run.json is planned again, which needs no data: run.json holds the names,
classes and fingerprints of the data sets. So names, options, seeds and the number of rows are not
taken from labels.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..cells.cell import Cell, DatasetRef
from ..cells.config import dataset_specs, make_config
from ..cells.plan import plan
from ..cells.results import measured
from ..cells.results import row as row_of
from ..common.errors import UserError
from ..common.json_file import RUN
from ..common.names import MIXTURE
from ..common.spec import IMPORTED, PURIFIED, parse_spec
from ..methods.registry import KINDS, broken, methods
from ..report.records import RunFacts
from .contents import CellValues, Contents, Remarks, Unchecked, who

_VERSIONS = ("trainer", "crafter", "version", "arch_version", "source")
"""Entries of recipes that change with the code; `source` is the hash of a plug-in."""
_ALWAYS = ("poison.attack", "poison.dataset", "poison.seed", "poison.imported", "protocol.epochs")
"""Entries of recipes that mean the same in all versions, like those that are not nested."""


def cells_of(run: RunFacts, without: Collection[str] = ()) -> list[Cell]:
    """Return the cells of the matrix that run.json describes, in the order of their rows.

    Args:
        run: the content of run.json.
        without: methods whose cells are left out.

    Raises:
        UserError: the configuration or a data set is not described as a run does it, or the cells
            cannot be planned here, because a plug-in or an imported poison is missing.
    """
    config = make_config(run.config)
    if without:
        config = make_config(_remaining(config.model_dump(), without))
    refs = [
        DatasetRef(
            name,
            facts.fingerprint,
            len(facts.class_names),
            _shape(name, facts.shape),
            tuple(facts.class_names),
        )
        for name, facts in run.datasets.items()
    ]
    if len(refs) != len(dataset_specs(config)):
        raise UserError(f"it describes {len(refs)} data sets, and its configuration names others")
    if config.protocol_options.get("precision", "auto") != "auto":
        return plan(config, [(ref, ref) for ref in refs], "cpu")
    # `auto` depended on the machine of the run, so the recipes say what it became
    used = {str(recipe.get("precision")) for recipe in run.recipes.values()} & {"fp32", "bf16"}
    plans = []
    for precision in sorted(used) or ["fp32"]:
        options = {**config.protocol_options, "precision": precision}
        resolved = config.model_copy(update={"protocol_options": options})
        plans.append(plan(resolved, [(ref, ref) for ref in refs], "cpu"))
    return max(plans, key=lambda cells: sum(cell.key in run.recipes for cell in cells))


def _remaining(config: Mapping[str, Any], without: Collection[str]) -> dict[str, Any]:
    """Return a configuration without some methods, and without matrices that are then empty."""
    asked = {
        kind: [spec for spec in config[kind] if parse_spec(spec).name not in without]
        for kind in ("attacks", "defenses", "victims")
        if config.get(kind)
    }
    if config.get("matrices"):
        matrices = (_remaining(each, without) for each in config["matrices"])
        asked["matrices"] = [each for each in matrices if _has_cells(each)]
    return {**config, **asked}


def _has_cells(config: Mapping[str, Any]) -> bool:
    return all(config.get(kind, True) for kind in ("attacks", "defenses", "victims"))


def absent_methods(run: RunFacts) -> dict[str, str]:
    """Return the methods of a run that are not installed here, and where each came from."""
    here = {name for kind in KINDS for name in methods(kind)} | {MIXTURE}
    return {
        name: facts.origin
        for name, facts in run.methods.items()
        if name not in here and not name.startswith((IMPORTED, PURIFIED))
    }


def how_to_get(absent: Mapping[str, str]) -> str:
    """Return in words which methods are not installed here, and how to get them."""
    sentences = [
        f"{name} is not installed here: {_came_from(origin)}" for name, origin in absent.items()
    ]
    if absent and (plugins := broken()):
        faults = "; ".join(f"{plugin.origin} ({plugin.error})" for plugin in plugins)
        sentences.append(f"plug-ins that could not be loaded: {faults}")
    return "; ".join(sentences)


def _came_from(origin: str) -> str:
    if origin.startswith("entry point"):
        return f"it came from the {origin}, so install that package"
    if origin == "session":
        return "it was defined in a Python session, so add --plugin FILE with its code"
    if origin:
        return f"it came from the {origin}, so add --plugin FILE"
    return "nothing says where it came from; install its package, or add --plugin FILE"


def planned_or_none(run: RunFacts) -> list[Cell] | None:
    """Return the cells of `cells_of`, or None if they cannot be planned here."""
    try:
        return cells_of(run)
    except UserError:
        return None


def _shape(name: str, shape: list[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"it gives {name} the shape {shape}, which is not that of an image")
    return (shape[0], shape[1], shape[2])


def planned_columns(cell: Cell) -> CellValues:
    """Return the columns of a cell's row that follow from the plan alone."""
    others = ("status", "error", "record_sha256", "origin", *measured({"device": ""}))
    return {name: value for name, value in row_of(cell, None, None).items() if name not in others}


def paired(contents: Contents, cells: list[Cell]) -> tuple[list[Cell | None], list[Cell]]:
    """Return the planned cell of each row, None where there is none, and the cells of no row.

    A cell and a row belong together if their recipes agree in all but the versions of methods;
    else if all that tables show of them is the same.
    """
    rows, run = contents.rows, contents.run
    shown_of_cells = [_shown(planned_columns(cell)) for cell in cells]
    shown_of_rows = [_shown(row) for row in rows]
    recipes_of_cells = [unversioned(cell.recipe()) for cell in cells]
    recipes_of_rows = [unversioned(run.recipes.get(str(row["key"]), {})) for row in rows]
    partners: list[Cell | None] = [None] * len(rows)
    free = set(range(len(cells)))
    for ours, theirs in ((recipes_of_cells, recipes_of_rows), (shown_of_cells, shown_of_rows)):
        by_identity: dict[str, list[int]] = defaultdict(list)
        for number in sorted(free):
            by_identity[ours[number]].append(number)
        for place in (place for place, partner in enumerate(partners) if partner is None):
            numbers = by_identity[theirs[place]]
            if numbers:
                # cells of clean data share a recipe, whatever ratio their rows show
                alike = [n for n in numbers if shown_of_cells[n] == shown_of_rows[place]]
                chosen = (alike or numbers)[0]
                numbers.remove(chosen)
                free.remove(chosen)
                partners[place] = cells[chosen]
    return partners, [cells[number] for number in sorted(free)]


def _shown(columns: CellValues) -> str:
    names = ("dataset", "arch", "protocol", "attack", "attack_options", "defense", "ratio")
    more = ("defense_options", "classes", "seed", "poison_seed", "precision", "victim")
    return json.dumps([columns.get(name) for name in (*names, *more)])


def unversioned(recipe: Mapping[str, Any]) -> str:
    """Return a text that is equal for recipes that differ in versions of methods alone."""
    values = {k: v for k, v in flat(recipe) if k.rpartition(".")[2] not in _VERSIONS}
    return json.dumps(values, sort_keys=True)


def check_cells(contents: Contents, cells: list[Cell]) -> Remarks:
    """Yield what cells.csv shows differently from what run.json describes, and what it lacks."""
    partners, absent = paired(contents, cells)
    n_older, changed = 0, Counter[str]()
    for row, cell in zip(contents.rows, partners, strict=True):
        if cell is None:
            yield f"{who(row)}: {RUN} describes no such cell"
            continue
        expected = planned_columns(cell)
        recorded = contents.run.recipes.get(str(row["key"]), {})
        is_faulty = cell.fault is not None or recorded.get("what") == "fault"
        if cell.key != row["key"] and (is_faulty or not contents.is_of_this_version):
            n_older += 1
            del expected["key"], expected["recipe"]
            for name, is_fixed, text in _differences(row, {} if is_faulty else recorded, cell):
                changed[name] += not is_fixed
                yield from [f"{who(row)}: {text}"] * is_fixed
        yield from (
            f"{who(row)}: its {name} is {row[name]!r}, but {RUN} describes {value!r}"
            for name, value in expected.items()
            if row[name] != value and not _is_lacking(contents, name)
        )
    yield from (
        f"{RUN} describes the cell {cell.describe()}, but cells.csv has no row for it"
        for cell in absent
    )
    places = {id(cell): place for place, cell in enumerate(cells)}
    order = [places[id(cell)] for cell in partners if cell is not None]
    if order != sorted(order):
        yield f"the rows of cells.csv are not in the order that {RUN} describes"
    if n_older:
        yield Unchecked(f"{n_older} keys against the versions of the methods installed here")
    yield from (
        Unchecked(f"{name} of {n} recipes, where this version has another default")
        for name, n in (+changed).items()
    )


def _is_lacking(contents: Contents, name: str) -> bool:
    """Return whether an older version wrote the folder, which did not know a column."""
    column = contents.cells[name]
    return not contents.is_of_this_version and bool((column.isna() | (column == "")).all())


def _differences(
    row: CellValues, recorded: Mapping[str, Any], cell: Cell
) -> Iterator[tuple[str, bool, str]]:
    """Yield how a recipe of another version of uebench differs from today's, entry by entry.

    The second value is whether the entry means the same in all versions, or was given by the user:
    then the difference is a problem. Defaults of methods and protocols may have changed since.
    """
    before, now = dict(flat(recorded)), dict(flat(cell.recipe()))
    given = {
        *(f"poison.options.{name}" for name in _given(row["attack_options"])),
        *(f"options.{name}" for name in _given(row["defense_options"])),
    }
    for name in sorted({*before, *now}) if before else ():
        if before.get(name) != now.get(name) and name.rpartition(".")[2] not in _VERSIONS:
            text = f"its recipe has {name} {before.get(name)!r}, {RUN} {now.get(name)!r}"
            yield name, "." not in name or name in _ALWAYS or name in given, text


def _given(options: str) -> list[str]:
    try:
        return list(parse_spec(f"x[{options}]").options) if options else []
    except UserError:
        return []


def flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a recipe with their dotted names."""
    for name, value in recipe.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.loads(json.dumps(value))  # tuples become lists
