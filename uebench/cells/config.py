"""The configuration of a matrix, as a YAML file or flags describe it: checked, and in its parts."""

from __future__ import annotations

import importlib
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from ..common.errors import UserError
from ..common.options import explain_value, validated
from ..common.spec import did_you_mean, normalise, parse_number, split_specs
from ..common.yaml_file import read_yaml
from .table_spec import TableSpec


def _list(value: Any) -> Any:
    """Return a comma-separated string or a single number as a list."""
    if isinstance(value, str):
        return split_specs(value)
    return [value] if isinstance(value, Real) else value  # numpy's numbers are Real as well


def _list_unless_empty(value: Any) -> Any:
    """Return a list as `_list` does, but refuse a text that names nothing.

    An empty list means the default. An empty text is more likely a shell variable that is not set,
    and `--classes ""` must not poison all classes.
    """
    values = _list(value)
    if isinstance(value, str) and not values:
        raise UserError("nothing is named; leave it out for the default, or name at least one")
    return values


def _distinct(values: list[Any]) -> list[Any]:
    """Return the values if each of them is named once."""
    repeated = [f"{value}" for value in dict.fromkeys(values) if values.count(value) > 1]
    if repeated:
        raise UserError(
            f"{', '.join(repeated)} is named more than once, which adds nothing; name it once"
        )
    return values


Specs = Annotated[list[str], BeforeValidator(_list), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[
    list[Seed], BeforeValidator(_list), Field(min_length=1), AfterValidator(_distinct)
]
Ratio = Annotated[float, BeforeValidator(parse_number), Field(ge=0, le=1)]


class Config(BaseModel):
    """A matrix of cells, as a YAML file or the flags of `uebench run` describe it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    title: str = ""
    """Title of the table."""
    dataset: Annotated[
        list[str],
        BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
        Field(min_length=1),
        AfterValidator(_distinct),
    ] = ["synthetic"]
    """One or more data sets."""
    attacks: Specs = ["none", "em", "lsp", "ar"]
    """Attacks with options, such as em[eps=16/255]."""
    defenses: Specs = ["standard", "ueraser", "iss", "at"]
    """Defenses with options, such as iss[quality=30]."""
    arch: Annotated[list[str], BeforeValidator(_list_unless_empty)] = []
    """Target networks; by default the protocol's."""
    protocol: str = "quick"
    """quick, sprint, paper or transfer."""
    protocol_options: dict[str, Any] = {}
    """Fields of the protocol to change, such as lr."""
    epochs: int | None = None
    """Training epochs of the target models; the same as `epochs` in `protocol_options`."""
    seeds: Seeds = [0]
    """Training seeds; each adds a cell."""
    poison_seeds: Seeds = [0]
    """Seeds that poisons are crafted from; each adds a poison and a cell."""
    ratio: Annotated[
        list[Ratio], BeforeValidator(_list), Field(min_length=1), AfterValidator(_distinct)
    ] = [1.0]
    """Share of the training images that is poisoned."""
    classes: Annotated[
        list[str], BeforeValidator(lambda v: [str(x) for x in _list_unless_empty(v)])
    ] = []
    """Names or numbers of the poisoned classes; by default all."""
    craft_on: Literal["all", "subset"] = "all"
    """Whether attacks see all training images, of which a share is then poisoned (as in public
    code), or only the images that will be poisoned."""
    set: dict[str, Any] = {}
    """Options for every mention of a method, such as em.rounds: 5, or of the protocol, such as
    protocol.lr: 0.05."""
    clean_beside: Annotated[list[str], BeforeValidator(_list)] = []
    """Defenses that are also trained on clean data once for each attack, with the options that they
    resolve to for that attack. For example, AT takes half of the attack's budget."""
    times_epochs: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Factor on the protocol's epochs: 1.5 turns 200 epochs into 300, and 12 into 18."""
    matrices: list[dict[str, Any]] = []
    """Parts of the configuration, each a matrix of its own. A part's fields replace those of the
    whole configuration, except `set` and `protocol_options`, which are merged."""
    under: dict[str, dict[str, Any]] = {}
    """Fields to replace under a protocol, by its name, such as smaller attacks and networks under
    `quick`. They are applied when the configuration is made."""
    table: TableSpec | None = None
    """Rows and columns of the table that `uebench table` prints; by default attacks and
    defenses."""


def config_names() -> list[str]:
    """Return the names of the configurations that are shipped with the suite."""
    return sorted(path.stem for path in _configs_folder().glob("*.yaml"))


def _configs_folder() -> Path:
    configs = importlib.import_module("uebench.configs")
    return Path(next(iter(configs.__path__)))


HOW = (
    *("out", "executor", "jobs", "time_limit", "stop_after", "deterministic", "device"),
    *("data_dir", "download", "plugin", "reuse", "dry_run", "quiet", "json", "compare"),
)
"""Flags of `uebench run` that do not describe the matrix, but how it is computed and printed."""


def read_config(name: str) -> dict[str, Any]:
    """Read a matrix from the path of a YAML file or by the name of a shipped one.

    Raises:
        UserError: there is no such file, or it does not contain YAML names and values.
    """
    return {key: value for key, value in _read(name).items() if key not in HOW}


def read_how(name: str) -> dict[str, Any]:
    """Read from a configuration how its matrix is run: the fields of `HOW` that it sets.

    Raises:
        UserError: there is no such file, or it does not contain YAML names and values.
    """
    return {key: value for key, value in _read(name).items() if key in HOW}


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = config_names()
        if name not in known:
            raise UserError(
                f"unknown configuration {name!r}{did_you_mean(name, known)}; known: "
                f"{', '.join(known)}, or give the path of a .yaml file"
            )
        path = _configs_folder() / f"{name}.yaml"
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path} does not contain names and values; write lines such as `attacks: [em, lsp]`"
        )
    return {str(key): value for key, value in content.items()}


def make_config(fields: dict[str, Any]) -> Config:
    """Return a checked configuration, with the replacements under its protocol applied.

    Raises:
        UserError: fields are unknown or values are bad; the message names all of them.
    """
    return validated(Config, under_protocol(spelled_out(fields)), noun="field")


def checked_seed(seed: Any) -> int:
    """Return a seed as Python's int, which is the same in a key whoever counted: Python or numpy.

    Raises:
        UserError: it is not a whole number in the range of seeds.
    """
    try:
        return TypeAdapter(Seed).validate_python(seed)
    except ValidationError as error:
        raise UserError(explain_value(error, "seed", Seed)) from None


MERGED = ("set", "protocol_options")
"""Fields that hold names and values; a replacement changes single names and keeps the others."""
LOCAL = ("ratio", "classes")
"""Fields that, if only some parts set them, are replaced in those parts alone."""
_WHOLE = ("title", "matrices", "under", "table")
"""Fields of the whole configuration that a part must not set."""


def spelled_out(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with each short form in its place, as it must be before they are merged.

    `epochs: 30` and `set: {protocol.lr: 0.1}` move to `protocol_options`, in the whole
    configuration, in its parts and in its rules.

    Raises:
        UserError: a field that must hold names and values does not, or the epochs are given twice.
    """
    _check_mappings(fields)
    result = _spelled_out(fields)
    if parts := fields.get("matrices"):
        result["matrices"] = [_spelled_out(part) for part in parts]
    if rules := fields.get("under"):
        result["under"] = {name: _spelled_out(rule) for name, rule in rules.items()}
    return result


def _spelled_out(fields: dict[str, Any]) -> dict[str, Any]:
    given = {str(name): value for name, value in (fields.get("set") or {}).items()}
    prefix = "protocol."
    short = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    protocol = {**(fields.get("protocol_options") or {}), **short}
    epochs = fields.get("epochs")
    if epochs is not None:
        if str(protocol.get("epochs", epochs)) != str(epochs):
            raise UserError(
                f"epochs is {epochs}, but the protocol's epochs are set to {protocol['epochs']}; "
                "give one of the two"
            )
        protocol["epochs"] = epochs
    result = {name: value for name, value in fields.items() if name != "epochs"}
    if short:
        result["set"] = {n: v for n, v in given.items() if not n.startswith(prefix)}
    return {**result, "protocol_options": protocol} if protocol else result


def _check_mappings(fields: dict[str, Any]) -> None:
    """Check that the fields which must hold names and values do so, before they are merged.

    Raises:
        UserError: one of them holds something else.
    """
    matrices, rules = fields.get("matrices") or [], fields.get("under") or {}
    if not isinstance(matrices, list) or not all(isinstance(part, dict) for part in matrices):
        raise UserError(
            f"matrices must be a list of parts such as [{{ratio: 0.5}}], got {matrices!r}"
        )
    if not isinstance(rules, dict) or not all(isinstance(rule, dict) for rule in rules.values()):
        raise UserError(
            f"under must map protocols to fields, such as {{quick: {{arch: resnet8}}}}, "
            f"got {rules!r}"
        )
    for source in (fields, *matrices, *rules.values()):
        for name in MERGED:
            value = source.get(name) or {}
            if not isinstance(value, dict):
                raise UserError(f"{name} must be names and values such as {{a: 1}}, got {value!r}")


def replace_field(fields: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return a configuration's fields with one of them replaced in the whole and in every part.

    If only some parts set the poisoned share or the poisoned classes, these parts are about them:
    the field is replaced there, and the other parts stay as they are.
    """
    parts = [dict(part) for part in fields.get("matrices") or []]
    if name in MERGED:
        for part in parts:
            part[name] = {k: v for k, v in (part.get(name) or {}).items() if k not in value}
        merged = {**(fields.get(name) or {}), **value}
        return {**fields, name: merged, **({"matrices": parts} if parts else {})}
    own = [part for part in parts if name in part]
    for part in own:
        part[name] = value
    if name not in LOCAL or name in fields or not own:
        fields = {**fields, name: value}
    return {**fields, "matrices": parts} if parts else fields


def under_protocol(fields: dict[str, Any], protocol: str | None = None) -> dict[str, Any]:
    """Return the fields with the replacements under their protocol, or a given one, applied."""
    rules = fields.get("under") or {}
    fields = {key: value for key, value in fields.items() if key != "under"}
    chosen = rules.get(str(protocol or fields.get("protocol", "quick"))) or {}
    for name, value in chosen.items():
        fields = replace_field(fields, name, value)
    return fields


def parts(config: Config) -> list[Config]:
    """Return the parts of a configuration, each as a configuration; itself if it has none.

    Raises:
        UserError: a part has an unknown field or a bad value.
    """
    if not config.matrices:
        return [config]
    whole = config.model_dump(exclude=set(_WHOLE))
    configs = []
    for number, part in enumerate(config.matrices, 1):
        merged = {name: {**whole[name], **(part.get(name) or {})} for name in MERGED}
        try:
            if misplaced := [name for name in _WHOLE if name in part]:
                raise UserError(f"{misplaced[0]} belongs to the whole configuration, not to a part")
            configs.append(make_config({**whole, **part, **merged}))
        except ValueError as error:
            raise UserError(f"matrices, part {number}: {error}") from None
    return configs


def dataset_specs(config: Config) -> list[str]:
    """Return the data sets of all parts, each once, in the order that `plan` expects."""
    return list(dict.fromkeys(spec for part in parts(config) for spec in part.dataset))


def method_names(config: Config) -> list[str]:
    """Return the names of all attacks and defenses of all parts."""
    specs = [spec for part in parts(config) for spec in (*part.attacks, *part.defenses)]
    return list(dict.fromkeys(spec_name(spec) for spec in specs))


def spec_name(spec: str) -> str:
    """Return the name of the method that a spec describes, without its options."""
    return normalise(spec.partition("[")[0])
