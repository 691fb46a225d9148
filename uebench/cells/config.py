"""The configuration of a matrix, as a YAML file or flags describe it: checked, and in its parts."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from ..common.errors import UserError
from ..common.mixtures import attacks_mixed, mixture_spec
from ..common.options import explain_value, validated
from ..common.spec import did_you_mean, normalise, parse_number, split_specs
from ..common.yaml_file import read_yaml
from .fields import MERGED, WHOLE, replace_field, spelled_out, under_protocol
from .table_spec import TableSpec

_A_RANGE = "write it like 0-2, which is 0, 1 and 2"


def _list(value: Any) -> Any:
    """Return a comma-separated string or a single number as a list."""
    if isinstance(value, str):
        return split_specs(value)
    return [value] if isinstance(value, Real) else value  # numpy's numbers are Real as well


def _seed_list(value: Any) -> Any:
    """Return seeds as `_list` does, with each range such as 0-2 spelled out."""
    values, seeds = _list(value), []
    if not isinstance(values, Iterable):
        return values
    for each in values:  # also those of a range or an array
        match = re.fullmatch(r"(\d{1,10})-(\d{1,10})", each) if isinstance(each, str) else None
        if match is None:
            if isinstance(each, str) and "-" in each.strip()[1:]:
                raise UserError(f"the range {each} has no whole numbers as its ends; {_A_RANGE}")
            seeds.append(each)
            continue
        first, last = map(int, match.groups())
        if not 0 <= last - first < _MOST_SEEDS:
            raise UserError(
                f"the range {each} must rise and have at most {_MOST_SEEDS:,} seeds; {_A_RANGE}"
            )
        seeds += range(first, last + 1)
    return seeds


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
    repeated = [f"{value}" for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise UserError(
            f"{', '.join(repeated)} is named more than once, which adds nothing; name it once"
        )
    return values


_MOST_SEEDS = 100_000
Specs = Annotated[list[str], BeforeValidator(_list), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[
    list[Seed], BeforeValidator(_seed_list), Field(min_length=1), AfterValidator(_distinct)
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
    mix: Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = Field(
        [], exclude=True
    )
    """Mixtures of several poisons in one training set, such as em:0.5,lsp:0.5, each with the shares
    of all training images that its attacks poison. They are added to the attacks."""
    victims: Specs = ["supervised"]
    """Who trains the target models: supervised, or others with options, such as
    simclr[epochs=100]."""
    arch: Annotated[list[str], BeforeValidator(_list_unless_empty)] = []
    """Target networks; by default the protocol's."""
    protocol: str = "quick"
    """A training protocol, such as quick or paper; `uebench list protocols` has them all."""
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

    @model_validator(mode="after")
    def _mixtures_are_attacks(self) -> Self:
        """Add the mixtures to the attacks, where everything else looks for them."""
        mixtures = [spec for spec in map(mixture_spec, self.mix) if spec not in self.attacks]
        self.attacks, self.mix = [*self.attacks, *mixtures], []
        return self


def config_names() -> list[str]:
    """Return the names of the configurations that are shipped with the suite."""
    return sorted(path.stem for path in _configs_folder().glob("*.yaml"))


def _configs_folder() -> Path:
    configs = importlib.import_module("uebench.configs")
    return Path(next(iter(configs.__path__)))


HOW = (
    *("out", "executor", "jobs", "time_limit", "stop_after", "deterministic", "device"),
    *("keep_models", "log", "detect", "detectors"),
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


OWN = ("attacks", "defenses", "victims", "dataset", "arch", "protocol", "matrices")
"""Fields that, without a configuration, start a matrix of the user's own from true defaults."""


def merged_fields(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration, some of them replaced: what `uebench run` means.

    Args:
        name: a YAML file or a shipped configuration. By default it is `quick`, unless a part of
            the matrix is given: who names one expects true defaults, and not a small matrix.
        given: the fields to replace. Single names in `set` and `protocol_options` are replaced.
    """
    own = name is None and any(given.get(field) is not None for field in OWN)
    content = {} if own else _valid_content(name or "quick")
    fields = under_protocol(spelled_out(content), given.get("protocol"))
    given = spelled_out(dict(given))
    for field, value in given.items():
        if field not in MERGED:
            fields = replace_field(fields, field, value)
    if {"attacks", "defenses", "victims"} & given.keys():
        fields = _without_absent_methods(fields)
    for field in MERGED:
        fields = replace_field(fields, field, given.get(field) or {})
    return fields


def _valid_content(name: str) -> dict[str, Any]:
    """Return the fields of a configuration as they are written, if they are valid by themselves.

    Raises:
        UserError: they are not; the message begins with the name of the file.
    """
    content = read_config(name)
    try:
        parts(make_config(content))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return content


def _without_absent_methods(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields without the options of methods that are no longer in the matrix.

    The configuration sets them; that flags then remove the method is not the user's mistake.
    """
    unset = [{**part, "set": {}} for part in fields.get("matrices") or []]
    present = method_names(
        make_config({**fields, "set": {}, "protocol_options": {}, "matrices": unset})
    )

    def known(values: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in values.items() if str(k).partition(".")[0] in present}

    matrices = [
        {**part, "set": known(part.get("set") or {})} for part in fields.get("matrices") or []
    ]
    return {**fields, "set": known(fields.get("set") or {}), "matrices": matrices}


def make_config(fields: dict[str, Any]) -> Config:
    """Return a checked configuration, with the replacements under its protocol applied.

    Raises:
        UserError: fields are unknown or values are bad; the message names all of them.
    """
    return validated(Config, under_protocol(spelled_out(fields)), noun="field")


def checked_seeds(seeds: Any) -> list[int]:
    """Return seeds that are given as a list, a number, or a text such as `0,1,2` or `0-2`.

    Raises:
        UserError: one of them is no seed, or is given twice.
    """
    try:
        return TypeAdapter(Seeds).validate_python(seeds)
    except ValidationError as error:
        raise UserError(explain_value(error, "seeds", Seeds)) from None


def checked_seed(seed: Any) -> int:
    """Return a seed as Python's int, which is the same in a key whoever counted: Python or numpy.

    Raises:
        UserError: it is not a whole number in the range of seeds.
    """
    try:
        return TypeAdapter(Seed).validate_python(seed)
    except ValidationError as error:
        raise UserError(explain_value(error, "seed", Seed)) from None


def parts(config: Config) -> list[Config]:
    """Return the parts of a configuration, each as a configuration; itself if it has none.

    Raises:
        UserError: a part has an unknown field or a bad value.
    """
    if not config.matrices:
        return [config]
    whole = config.model_dump(exclude=set(WHOLE))
    configs = []
    for number, part in enumerate(config.matrices, 1):
        merged = {name: {**whole[name], **(part.get(name) or {})} for name in MERGED}
        try:
            if misplaced := [name for name in WHOLE if name in part]:
                raise UserError(f"{misplaced[0]} belongs to the whole configuration, not to a part")
            configs.append(make_config({**whole, **part, **merged}))
        except ValueError as error:
            raise UserError(f"matrices, part {number}: {error}") from None
    return configs


def dataset_specs(config: Config) -> list[str]:
    """Return the data sets of all parts, each once, in the order that `plan` expects."""
    return list(dict.fromkeys(spec for part in parts(config) for spec in part.dataset))


def method_names(config: Config) -> list[str]:
    """Return the names of all attacks, also those in mixtures, defenses and victims of all parts.

    Supervised training is left out, because its options are the protocol's.
    """
    specs = [
        spec for part in parts(config) for spec in (*part.attacks, *part.defenses, *part.victims)
    ]
    specs = [spec for spec in specs if spec != "supervised"]
    names = (name for spec in specs for name in (spec_name(spec), *attacks_mixed(spec)))
    return list(dict.fromkeys(names))


def spec_name(spec: str) -> str:
    """Return the name of the method that a spec describes, without its options."""
    return normalise(spec.partition("[")[0])


def method_overrides(config: Config, known: list[str]) -> dict[str, dict[str, Any]]:
    """Return the options that `--set em.rounds=5` and the like give, by method.

    Args:
        config: a configuration with the field `set`.
        known: the methods of all its parts.

    Raises:
        UserError: a name is not METHOD.OPTION, or its method does not occur in the matrix.
    """
    overrides: dict[str, dict[str, Any]] = {}
    for key, value in config.set.items():
        method, dot, option = str(key).partition(".")
        method, option = normalise(method), normalise(option)
        if not dot or not option:
            raise UserError(f"set {key!r} is not METHOD.OPTION; write it like em.rounds=5")
        if method not in known:
            raise UserError(
                f"set {key}: {method} is not in this matrix{did_you_mean(method, known)}; "
                f"it has {', '.join(known)}"
            )
        overrides.setdefault(method, {})[option] = value
    return overrides


def options_set(spec: str, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the options that are set elsewhere for an attack, or for those that it mixes."""
    own = dict(overrides.get(spec_name(spec), {}))
    for name in attacks_mixed(spec):
        own |= {f"{name}.{option}": value for option, value in overrides.get(name, {}).items()}
    return own
