"""Check the recipes in run.json, and what it says about data sets, methods and failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cells.cell import seedless_key
from ..cells.config import dataset_specs, make_config
from ..common.json_file import RUN
from ..common.spec import format_spec, parse_number, parse_spec, printable, split_path
from ..data import load_dataset
from ..data.catalog import DATASETS
from ..learn.protocol import times_as_many
from ..methods.mixture import MixedPoison
from ..methods.registry import KINDS, methods
from ..report.cells import SUPERVISED_VICTIM
from ..report.records import DatasetFacts
from .contents import CellValues, Contents, Remarks, Unchecked, about, key_or_none, who

_SHARED = ("arch", "defense", "seed", "precision")
"""Columns that a recipe has under the same name."""
_MOST_VALUES = 2**24
"""Pixels of the largest synthetic data set that is generated again, which takes seconds."""


def check_recipes(contents: Contents) -> Remarks:
    """Yield the keys that are not the hash of their recipe, and the rows that contradict theirs."""
    recipes = contents.run.recipes
    for key, recipe in recipes.items():
        if key_or_none(recipe) != key:
            yield f"the key {key[:16]} is not the hash of its recipe"
    yield from (
        f"the recipe {key[:16]} belongs to no cell"
        for key in recipes.keys() - {row["key"] for row in contents.rows}
    )
    for row in contents.rows:
        own = recipes.get(str(row["key"]))
        if own is None:
            yield f"{who(row)}: {RUN} has no recipe for its key {str(row['key'])[:16]}"
        elif own.get("what") != "fault":
            yield from _check_row(contents, row, own)


def _check_row(contents: Contents, row: CellValues, recipe: Mapping[str, Any]) -> Remarks:
    poison, protocol = recipe["poison"], recipe["protocol"]
    facts = contents.run.datasets.get(row["dataset"], DatasetFacts())
    of_recipe = {name: recipe.get(name) for name in _SHARED}
    options = recipe.get("victim_options", {})
    epochs = options.get("epochs", protocol.get("epochs"))
    of_recipe |= {"epochs": epochs, "recipe": seedless_key(recipe)}
    of_recipe["victim"] = recipe.get("victim", SUPERVISED_VICTIM)
    of_row = {name: row[name] for name in of_recipe}
    of_recipe["arch"], of_row["arch"] = (_bare(each["arch"]) for each in (of_recipe, of_row))
    if "attack" in poison:
        of_recipe |= {"attack": poison["attack"], "poison_seed": poison["seed"]}
    elif "imported" not in poison:
        of_recipe["attack"] = "none"
    if "what" in poison:  # clean data has no poisoned share
        names = (
            [facts.class_names[label] for label in recipe["classes"]] if facts.class_names else []
        )
        of_recipe |= {"ratio": recipe["ratio"], "classes": ",".join(names)}
    of_recipe["data set"] = poison["dataset"]
    of_row |= {name: row[name] for name in of_recipe if name in row}
    of_row["data set"] = facts.fingerprint
    of_row["victim"], given_victim = parse_spec(row["victim"] or SUPERVISED_VICTIM)
    yield from (
        f"{who(row)}: its {name} is {value!r}, but its recipe has {of_recipe[name]!r}"
        for name, value in of_row.items()
        if value not in (None, "") and value != of_recipe[name]
    )
    yield from about(who(row), differing_options(given_victim, options))
    for kind, part in (("attack", poison), ("defense", recipe)):
        text = row[f"{kind}_options"]
        given = parse_spec(f"x[{text}]").options if text else {}
        yield from about(who(row), differing_options(given, part.get("options", {})))
    yield from _check_epochs(row)


def _check_epochs(row: CellValues) -> Remarks:
    """Say if the protocol's epochs times the defense's `times_epochs` are not those of the row."""
    options = parse_spec(f"x[{row['defense_options']}]").options if row["defense_options"] else {}
    usual, trained = row["protocol_epochs"], row["epochs"]
    if "times_epochs" in options and usual is None:
        yield f"{who(row)}: it has the option times_epochs, but no protocol_epochs"
    if usual is None or trained is None:
        return
    factor = float(parse_number(options.get("times_epochs", "1")))
    if times_as_many(usual, factor) != trained:
        yield (
            f"{who(row)}: {usual} epochs of the protocol times {factor:g} are not the {trained} "
            "that it was trained for"
        )


def differing_options(given: Mapping[str, str], resolved: Mapping[str, Any]) -> Remarks:
    """Yield the options of a method, as texts, that its recipe has with another value."""
    for name, value in given.items():
        recorded = resolved.get(name)
        if isinstance(recorded, float):
            number = float(parse_number(value))
            agrees = abs(number - recorded) <= 1e-3 * abs(recorded)  # tables show a few digits
        else:
            agrees = recorded is None or str(recorded).lower() == value.lower()
        if not agrees:
            yield f"its option {name} is {value}, but its recipe has {recorded!r}"


def _bare(arch: Any) -> Any:
    """Return a network without the options that its recipe states differently, such as weights."""
    try:
        name, options = parse_spec(arch)
    except (AttributeError, ValueError):
        return arch
    omitted = ("form", "weights", "sha256")
    return format_spec(name, {k: v for k, v in options.items() if k not in omitted})


def check_run(contents: Contents) -> Remarks:
    """Yield what run.json says about data sets, methods and failures and others contradict."""
    run, rows = contents.run, contents.rows
    config = make_config(run.config)
    names = dict.fromkeys(str(row["dataset"]) for row in rows)
    if list(run.datasets) != list(names):
        yield f"{RUN} describes the data sets {list(run.datasets)}, cells.csv {list(names)}"
    for spec, (name, facts) in zip(dataset_specs(config), run.datasets.items(), strict=True):
        yield from _check_name(spec, name)
        yield from _check_dataset(name, facts, [row for row in rows if row["dataset"] == name])
    yield from _check_methods(contents)
    failed = {str(row["key"]): row for row in rows if row["status"] == "failed"}
    if failed.keys() != run.failures.keys():
        yield f"the failures in {RUN} are not the rows of cells.csv that failed"
    for row in rows:
        error = run.failures.get(str(row["key"]), {}).get("error", "")
        if (row["status"] == "failed") != bool(row["error"]) or row["error"] not in error:
            yield f"{who(row)}: its error is not the one in {RUN}"


def _check_name(spec: str, name: str) -> Remarks:
    """Yield whether a data set has another name than its place in the configuration gives it."""
    kind, colon, rest = spec.strip().partition(":")
    path, options = split_path(rest if colon else kind)
    name_path, name_options = split_path(name)
    own = {"npz": Path(path).stem, "folder": Path(path).name}.get(kind) if colon else path
    same_options = (
        parse_spec(f"x{name_options}").options.items() <= parse_spec(f"x{options}").options.items()
    )
    if (own and printable(own) != name_path) or not same_options:
        yield f"the data set {spec} of the configuration is called {name}"


def _check_dataset(name: str, facts: DatasetFacts, rows: list[CellValues]) -> Remarks:
    """Yield what contradicts the catalogue, or the images where they can be generated here."""
    head, _, options = name.partition("[")
    known = DATASETS.get(head)
    sizes = {(row["n_train"], row["n_test"]) for row in rows if row["defense"] == "standard"}
    sizes -= {(None, None)}
    if len(sizes) > 1:
        yield f"{name} has training sets of different sizes under the defense standard"
    if known is not None and known.shape is not None and "size" not in options:
        shape, k, n = list(known.shape), known.n_classes, known.n_images
        if "n_classes" not in options and (facts.shape, len(facts.class_names)) != (shape, k):
            yield f"{name} does not have the {k} classes and the shape {shape} of {head}"
        digits = list(map(str, range(len(facts.class_names))))
        if known.class_names and facts.class_names not in (list(known.class_names), digits):
            yield f"the classes of {name} are not those of {head}"
        if n[0] and not options and sizes - {n}:
            yield f"{head} has {n[0]:,} training and {n[1]:,} test images, but {name} has others"
    if head == "synthetic":
        yield from _check_synthetic(name, facts, sizes)
    else:
        yield Unchecked(f"the images of {name}, which are not here")


def _check_synthetic(name: str, facts: DatasetFacts, sizes: set[tuple[int, int]]) -> Remarks:
    """Generate a synthetic data set again, and yield whether it is another one."""
    n_values = sum(max(sizes, default=(0, 0))) * facts.shape[1] * facts.shape[2]
    if n_values > _MOST_VALUES:
        yield Unchecked(f"the images of {name}, which take long to generate")
        return
    dataset = load_dataset(name)
    known = DatasetFacts(
        class_names=list(dataset.class_names),
        fingerprint=dataset.fingerprint,
        shape=list(dataset.shape),
    )
    if known != facts or sizes - {(len(dataset.train), len(dataset.test))}:
        yield f"{name} is another data set than {RUN} and cells.csv describe"


def _check_methods(contents: Contents) -> Remarks:
    run = contents.run
    used = {str(row[kind]) for row in contents.rows for kind in ("attack", "defense")}
    used |= {parse_spec(row["victim"]).name for row in contents.rows if row["victim"]}
    if used != run.methods.keys():
        yield f"{RUN} names the methods {', '.join(run.methods)}, not those of cells.csv"
    here = {name: cls.info for kind in KINDS for name, cls in methods(kind).items()}
    here[MixedPoison.info.name] = MixedPoison.info
    for name, facts in run.methods.items():
        info = here.get(name)
        if info is not None and (info.title, info.source) == (facts.title, facts.source):
            continue
        if info is not None and info.origin == "built-in" and contents.is_of_this_version:
            yield f"{name} is called {facts.title!r}, of {facts.source!r}, in {RUN}"
        else:
            yield Unchecked(f"title and source of the method {name}")
