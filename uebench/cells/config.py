"""A configuration: the matrix that a YAML file or flags describe, checked, and the parts of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..common.errors import UserError
from ..common.options import validated
from ..common.spec import did_you_mean, normalise, parse_number, split_specs
from ..common.yaml_file import read_yaml
from .table_spec import TableSpec


def _list(value: Any) -> Any:
    """Return a comma-separated text or a lone value as a list."""
    if isinstance(value, str):
        return split_specs(value)
    return [value] if isinstance(value, (int, float)) else value


Specs = Annotated[list[str], BeforeValidator(_list), Field(min_length=1)]
Seeds = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]], BeforeValidator(_list), Field(min_length=1)
]
Ratio = Annotated[float, BeforeValidator(parse_number), Field(ge=0, le=1)]


class Config(BaseModel):
    """A matrix of cells, as a YAML file or the flags of `uebench run` describe it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    title: str = ""
    """What the table shows."""
    dataset: Annotated[
        list[str],
        BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
        Field(min_length=1),
    ] = ["synthetic"]
    """One or several data sets."""
    attacks: Specs = ["none", "em", "lsp", "ar"]
    """Attacks with options, such as em[eps=16/255]."""
    defenses: Specs = ["standard", "ueraser", "iss", "at"]
    """Defenses with options, such as iss[quality=30]."""
    arch: Annotated[list[str], BeforeValidator(_list)] = []
    """Target networks; none: the protocol's."""
    protocol: str = "quick"
    """quick, sprint, paper or transfer."""
    protocol_options: dict[str, Any] = {}
    """Fields of the protocol that are changed, such as epochs."""
    seeds: Seeds = [0]
    """Training seeds; one cell each."""
    poison_seeds: Seeds = [0]
    """Seeds that poisons are crafted from; one poison and one cell each."""
    ratio: Annotated[list[Ratio], BeforeValidator(_list), Field(min_length=1)] = [1.0]
    """Share of the training images that is poisoned."""
    classes: Annotated[list[str], BeforeValidator(lambda v: [str(x) for x in _list(v)])] = []
    """Names or numbers of the classes that are poisoned; none: all."""
    craft_on: Literal["all", "subset"] = "all"
    """Whether attacks see all training images, of which some are then poisoned as in public code,
    or only those that are poisoned."""
    set: dict[str, Any] = {}
    """Options for every mention of a method, such as em.rounds: 5."""
    clean_beside: Annotated[list[str], BeforeValidator(_list)] = []
    """Defenses that also train on clean data, as they are resolved for each attack: AT with half
    of that attack's budget."""
    times_epochs: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Times the protocol's epochs: 1.5 makes 300 of 200, and 18 of 12."""
    matrices: list[dict[str, Any]] = []
    """Parts, each a matrix of its own: what a part says replaces the field of the whole, but `set`
    and `protocol_options`, to which it adds."""
    under: dict[str, dict[str, Any]] = {}
    """Fields by the name of the protocol that replaces them: smaller attacks and networks under
    quick. They are put in their places when a configuration is made."""
    table: TableSpec | None = None
    """Rows and columns of the table that `uebench table` prints; none: attacks and defenses."""


def config_names() -> list[str]:
    """Return the names of the configurations that come with the suite."""
    return sorted(path.stem for path in _configs_folder().glob("*.yaml"))


def _configs_folder() -> Path:
    """Return where the suite's configurations lie."""
    configs = importlib.import_module("uebench.configs")
    return Path(next(iter(configs.__path__)))


def read_config(name: str) -> dict[str, Any]:
    """Return the content of a configuration: a file's path, or the name of one of the suite's.

    Raises:
        ValueError: no such file, or it is not YAML of names and values.
    """
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
        raise UserError(f"{path} holds no names and values; write lines like `attacks: [em, lsp]`")
    return {str(key): value for key, value in content.items()}


def make_config(fields: dict[str, Any]) -> Config:
    """Return a checked configuration.

    Raises:
        ValueError: unknown fields or bad values, all of them at once.
    """
    check_mappings(fields)
    return validated(Config, under_protocol(fields), noun="field")


MERGED = ("set", "protocol_options")
"""Fields of names and values, of which single names are replaced."""
LOCAL = ("ratio", "classes")
"""Fields that are replaced only in the parts that say them, where the whole does not."""
WHOLE = ("title", "matrices", "under", "table")
"""Fields that a part has not."""


def check_mappings(fields: dict[str, Any]) -> None:
    """Refuse a configuration whose fields of names and values are something else.

    Raises:
        ValueError: the first one that is.
    """
    matrices, rules = fields.get("matrices") or [], fields.get("under") or {}
    if not isinstance(matrices, list) or not all(isinstance(part, dict) for part in matrices):
        raise UserError(
            f"matrices must be a list of fields such as [{{ratio: 0.5}}], got {matrices!r}"
        )
    if not isinstance(rules, dict) or not all(isinstance(rule, dict) for rule in rules.values()):
        raise UserError(
            f"under must be fields by protocol such as {{quick: {{arch: resnet8}}}}, got {rules!r}"
        )
    for said in (fields, *matrices, *rules.values()):
        for name in MERGED:
            value = said.get(name) or {}
            if not isinstance(value, dict):
                raise UserError(f"{name} must be names and values such as {{a: 1}}, got {value!r}")


def replace_field(fields: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return a configuration's fields with one replaced in the whole and in every part.

    The poisoned share and classes are what a part is about where it alone says them: they are
    replaced there, and the other parts stay as they are.
    """
    parts = [dict(part) for part in fields.get("matrices") or []]
    if name in MERGED:
        for part in parts:
            part[name] = {k: v for k, v in (part.get(name) or {}).items() if k not in value}
        merged = {**(fields.get(name) or {}), **value}
        return {**fields, name: merged, **({"matrices": parts} if parts else {})}
    said = [part for part in parts if name in part]
    for part in said:
        part[name] = value
    if name not in LOCAL or name in fields or not said:
        fields = {**fields, name: value}
    return {**fields, "matrices": parts} if parts else fields


def under_protocol(fields: dict[str, Any], protocol: str | None = None) -> dict[str, Any]:
    """Return the fields as they are under their protocol, or under the one that is given."""
    rules = fields.get("under") or {}
    fields = {key: value for key, value in fields.items() if key != "under"}
    chosen = rules.get(str(protocol or fields.get("protocol", "quick"))) or {}
    for name, value in chosen.items():
        fields = replace_field(fields, name, value)
    return fields


def parts(config: Config) -> list[Config]:
    """Return the matrices that a configuration is made of: its parts, or itself.

    Raises:
        ValueError: a part has an unknown field or a bad value.
    """
    if not config.matrices:
        return [config]
    whole = config.model_dump(exclude=set(WHOLE))
    made = []
    for number, part in enumerate(config.matrices, 1):
        merged = {name: {**whole[name], **(part.get(name) or {})} for name in MERGED}
        try:
            if kept := [name for name in WHOLE if name in part]:
                raise UserError(f"{kept[0]} belongs to the whole configuration, not to a part")
            made.append(make_config({**whole, **part, **merged}))
        except ValueError as error:
            raise UserError(f"matrices, part {number}: {error}") from None
    return made


def dataset_specs(config: Config) -> list[str]:
    """Return the data sets of all parts, each once, in the order in which `plan` takes them."""
    return list(dict.fromkeys(spec for part in parts(config) for spec in part.dataset))


def method_names(config: Config) -> list[str]:
    """Return the names of all attacks and defenses of all parts."""
    specs = [spec for part in parts(config) for spec in (*part.attacks, *part.defenses)]
    return list(dict.fromkeys(spec_name(spec) for spec in specs))


def spec_name(spec: str) -> str:
    """Return the name that a spec begins with."""
    return normalise(spec.partition("[")[0])
