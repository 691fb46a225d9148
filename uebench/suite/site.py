"""Build the website of results folders: `uebench site`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cells.cell import LATER_FIELDS
from ..cells.plan import ON_SUBSET
from ..cells.results import OutputError
from ..common.drafts import clear_drafts, replaced_folder
from ..common.errors import MethodError, UserError
from ..common.spec import format_spec, parse_number
from ..common.text import comma_parts, escaped
from ..learn.protocol import PROTOCOLS, Protocol
from ..methods.checked import adjusted_by
from ..methods.faults import blamed
from ..methods.meanings import known_meanings
from ..methods.registry import KINDS, build_defense, known_titles, methods
from ..report import Results
from ..report.groups import CellRow, plain_rows
from ..report.site import Site, is_site, site_files
from ..share.merge import merged, results_folders
from .listing import describe


def build_site(paths: Sequence[Path | str], out: Path) -> list[str]:
    """Write the site of the results folders at some paths, all of it or nothing; return its files.

    Other files in `out`, such as the documentation in `docs`, stay there.

    Raises:
        UserError: as for `merged`, or `out` cannot take a site.
        ConflictError: records of several folders disagree.
    """
    folders = results_folders(paths)
    check_out(out, [*folders, *map(Path, paths)])
    described = [{"kind": kind, **describe(kind, name)} for kind in KINDS for name in methods(kind)]
    results = merged(paths).results(out, known_titles())
    site = Site(
        results,
        known_meanings(),
        described,
        {str(row["key"]): command for row in plain_rows(results.cells)
         if (command := command_of(results, row))},
        [escaped(folder) for folder in folders],
        (out / "docs" / "index.html").is_file(),
    )  # fmt: skip
    names = []
    with replaced_folder(out, is_site) as draft:
        for name, content in site_files(site):
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            names.append(name)
    return names


def check_out(out: Path, sources: Sequence[Path]) -> None:
    """Check that a site may be written into a folder.

    Raises:
        OutputError: it holds results or another website, or it cannot be created.
    """
    if out.resolve() in (source.resolve() for source in sources):
        raise OutputError(
            f"--out {escaped(out)} is one of the folders with the results; choose another folder"
        )
    try:
        clear_drafts(out.resolve())  # a kill may have left the former site to restore
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {escaped(out)} cannot be created: {error.strerror or error}; choose another "
            "folder"
        ) from None
    if (out / "index.html").exists() and not (out / "assets" / "data.js").exists():
        raise OutputError(
            f"--out {escaped(out)} holds an index.html that `uebench site` did not write; choose "
            "another folder"
        )


def command_of(results: Results, row: CellRow) -> str:
    """Return the command that computes one cell, and has its key; empty if it cannot be given.

    The fields of the protocol that its recipe does not share with the named protocol of this
    version are set one by one, and so is the surrogate.
    """
    recipe = results.run.recipes.get(row["key"], {})
    specs = results.run.config.get("dataset", [])
    datasets = dict(zip(results.run.datasets, specs, strict=False))
    name = row["protocol"].partition("[")[0]
    if not recipe or name not in PROTOCOLS or len(datasets) != len(specs):
        return ""
    usual = PROTOCOLS[name].model_dump()
    wanted = _protocol_fields(recipe) | {"precision": row["precision"] or usual["precision"]}
    if row["protocol_epochs"] is not None:
        wanted["epochs"] = row["protocol_epochs"]  # the defense multiplies them again
    changed = {key: value for key, value in wanted.items() if usual.get(key, value) != value}
    adjusted = _adjusted(row, PROTOCOLS[name], changed)
    options = comma_parts(row["attack_options"])
    on_subset = ON_SUBSET in options
    attack_options = ",".join(text for text in options if text != ON_SUBSET)
    attack_options = _exact(attack_options, results.options(row["key"], "attack"))
    defense_options = _exact(row["defense_options"], results.options(row["key"], "defense"))
    words: list[str] = [
        "uebench",
        "run",
        "--dataset",
        str(datasets.get(row["dataset"], row["dataset"])),
    ]
    words += ["--arch", row["arch"], "--protocol", name]
    for key, value in changed.items():
        words += ["--set", f"protocol.{key}={_typed(value)}"] if key not in adjusted else []
    words += ["--attacks", format_spec(row["attack"], attack_options)]
    words += ["--defenses", format_spec(row["defense"], defense_options)]
    words += ["--victims", row["victim"]] if row["victim"] else []
    words += ["--seeds", str(row["seed"]), "--poison-seeds", str(row["poison_seed"] or 0)]
    if row["attack"] != "none":
        words += ["--ratio", repr(row["ratio"])] if row["ratio"] != 1 else []
        words += ["--classes", row["classes"]] if row["classes"] else []
        words += ["--craft-on", "subset"] if on_subset else []
    return shlex.join([*words, "--out", "results/again"])


def _exact(options: str, recorded: Mapping[str, Any]) -> str:
    """Return options with all digits of the numbers that tables shorten, such as eps=1/7."""
    parts = []
    for part in comma_parts(options):
        name, _, text = part.partition("=")
        value = recorded.get(name)
        exact = not isinstance(value, float) or float(parse_number(text)) == value
        parts.append(part if exact else f"{name}={value!r}")
    return ",".join(parts)


def _adjusted(row: CellRow, protocol: Protocol, changed: Mapping[str, Any]) -> set[str]:
    """Return the changed fields that the defense sets by itself, so that nobody has to set them."""
    in_name = row["protocol"].partition("[")[2]
    set_by_user = {text.partition("=")[0] for text in in_name.removesuffix("]").split(",")}
    set_by_user.add("epochs")
    try:
        defense = build_defense(format_spec(row["defense"], row["defense_options"])).method
        with blamed(defense, "adjust"):
            fields = adjusted_by(defense, protocol).model_dump()
    except (UserError, MethodError):
        return set()  # it is not installed, or has changed
    return {
        key for key, value in changed.items() if key not in set_by_user and fields[key] == value
    }


def _typed(value: Any) -> str:
    """Return a field of a protocol as it is typed: unlike options, they take no fractions."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _protocol_fields(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the protocol's fields of a cell's recipe, with those that recipes leave out."""
    protocol, poison = recipe.get("protocol"), recipe.get("poison")
    fields = LATER_FIELDS | dict(protocol) if isinstance(protocol, dict) else {}
    options = poison.get("options") if isinstance(poison, dict) else None
    surrogates = {
        value
        for name, value in (options if isinstance(options, dict) else {}).items()
        if name.rpartition(".")[2] == "surrogate"
    }
    return fields | ({"surrogate": surrogates.pop()} if len(surrogates) == 1 else {})
