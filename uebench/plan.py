"""What to run: a configuration from YAML and flags, and the cells that it means, in a fixed order.

`plan()` also resolves what the paper ties to the poison or to the protocol into numbers, such as
the half budget of adversarial training, so that they enter the keys.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .api import Attack, Defense, Facts
from .cell import Cell, DatasetRef, PoisonRef, Share
from .data.dataset import Dataset
from .imported import ImportedPoison
from .importing.names import bind
from .models import parse_arch
from .protocol import Protocol, named_protocol
from .registry import build_attack, build_defense
from .spec import did_you_mean, normalise, parse_number, split_specs
from .store import Store
from .yaml_file import read_yaml


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


MOST_CELLS = 100_000
"""Most cells of one matrix."""


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
    """quick, sprint or paper."""
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
            raise ValueError(
                f"unknown configuration {name!r}{did_you_mean(name, known)}; known: "
                f"{', '.join(known)}, or give the path of a .yaml file"
            )
        path = _configs_folder() / f"{name}.yaml"
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no names and values; write lines like `attacks: [em, lsp]`")
    return {str(key): value for key, value in content.items()}


def make_config(fields: dict[str, Any]) -> Config:
    """Return a checked configuration.

    Raises:
        ValueError: unknown fields or bad values, all of them at once.
    """
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        told = []
        for problem in error.errors():
            key = str(problem["loc"][0]) if problem["loc"] else "configuration"
            if problem["type"] == "extra_forbidden":
                known = list(Config.model_fields)
                told.append(
                    f"no field {key}{did_you_mean(key, known)}; there are {', '.join(known)}"
                )
            else:
                text = str(problem["msg"]).removeprefix("Value error, ")
                told.append(
                    f"{key}: {text[0].lower()}{text[1:]}, got {str(problem['input'])[:60]!r}"
                )
        raise ValueError("; ".join(dict.fromkeys(told))) from None


def resolve_precision(asked: str, device: str) -> Any:
    """Return fp32 or bf16: bf16 by itself only where the machine computes in it."""
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def plan(
    config: Config,
    datasets: list[tuple[Dataset, DatasetRef]],
    device: str,
    store: Store | None = None,
) -> list[Cell]:
    """Return the cells of a configuration, each once, in the order of its lists.

    The store, by default the user's, says what imported poisons are.

    Raises:
        KeyError, ValueError: an unknown name, a bad option or class, before anything is computed.
    """
    overrides = method_overrides(config)
    attacks = [build_attack(s, overrides.get(_name(s))) for s in config.attacks]
    defenses = [build_defense(s, overrides.get(_name(s))) for s in config.defenses]
    archs = [parse_arch(arch)[0] for arch in config.arch]
    _check_size(config, len(datasets))
    cells: dict[Any, Cell] = {}
    store = store or Store()
    for dataset, ref in datasets:
        family = ref.name.partition("[")[0]
        protocol = named_protocol(config.protocol, family, **config.protocol_options)
        surrogate = parse_arch(protocol.surrogate)[0]
        facts = Facts(family, ref.n_classes, ref.shape, protocol.epochs, surrogate)
        labels = class_labels(config.classes, dataset)
        bound = [(a, bind(a, store, ref.name, ref.fingerprint)) for a in attacks]
        for arch in archs or [parse_arch(protocol.arch)[0]]:
            for ratio in config.ratio:
                for asked, attack in bound:
                    for defense in defenses:
                        pair = _pair(attack, defense, ref, facts, protocol, device)
                        for cell in _seeded(pair, config):
                            cell = replace(
                                cell,
                                arch=arch,
                                ratio=ratio,
                                classes=labels,
                                attack_options=asked.changed_text,
                            )
                            if config.craft_on == "subset":
                                cell = _crafted_on_its_share(cell)
                            cells.setdefault((cell.key, ratio, cell.describe()), cell)
    return list(cells.values())


def _check_size(config: Config, n_datasets: int) -> None:
    """Refuse a matrix that nobody could run, before its cells are built."""
    n = math.prod(
        (
            n_datasets,
            max(1, len(config.arch)),
            *(len(config.attacks), len(config.defenses)),
            *(len(config.seeds), len(config.poison_seeds), len(config.ratio)),
        )
    )
    if n > MOST_CELLS:
        raise ValueError(
            f"this matrix has {n:,} cells, at most {MOST_CELLS:,} are planned; split it into "
            "several"
        )


def _pair(
    attack: Attack,
    defense: Defense,
    ref: DatasetRef,
    facts: Facts,
    protocol: Protocol,
    device: str,
) -> Cell:
    """Return one attack against one defense, with all that depends on the other resolved."""
    crafted = attack.resolve(facts)
    if crafted.info.name != "none":
        norm, eps = crafted.budget(ref.shape)
        facts = replace(facts, norm=norm, eps=eps)
    trained = defense.resolve(facts)
    precision = resolve_precision(protocol.precision, device)
    return Cell(
        poison=PoisonRef(ref, crafted, 0, precision),
        ratio=1.0,
        classes=(),
        defense=trained,
        arch=protocol.arch,
        protocol=trained.adjust(protocol),
        precision=precision,
        seed=0,
        defense_options=defense.changed_text,
    )


def _seeded(cell: Cell, config: Config) -> Iterator[Cell]:
    """Yield a cell for each training seed and poison seed; clean data has one poison."""
    for seed in config.seeds:
        for poison_seed in config.poison_seeds[: 1 if cell.poison.is_clean else None]:
            yield replace(cell, seed=seed, poison=replace(cell.poison, seed=poison_seed))


def _crafted_on_its_share(cell: Cell) -> Cell:
    """Return the cell with a poison that is crafted on the images that are poisoned alone."""
    share = Share(cell.ratio, cell.classes)
    if share == Share() or not share.ratio or isinstance(cell.poison.attack, ImportedPoison):
        return cell
    shown = ",".join(filter(None, (cell.attack_options, "craft_on=subset")))
    poison = replace(cell.poison, crafted_on=share)
    return replace(cell, poison=poison, attack_options=shown)


def _name(spec: str) -> str:
    """Return the name that a spec begins with."""
    return normalise(spec.partition("[")[0])


def method_overrides(config: Config) -> dict[str, dict[str, Any]]:
    """Return the options of `--set em.rounds=5` by method.

    Raises:
        ValueError: not METHOD.OPTION, or a method that this matrix does not have.
    """
    overrides: dict[str, dict[str, Any]] = {}
    used = [_name(spec) for spec in [*config.attacks, *config.defenses]]
    for key, value in config.set.items():
        method, dot, option = str(key).partition(".")
        method, option = normalise(method), normalise(option)
        if not dot or not option:
            raise ValueError(f"set {key!r} is not METHOD.OPTION; write it like em.rounds=5")
        if method not in used:
            raise ValueError(
                f"set {key}: {method} is not in this matrix{did_you_mean(method, used)}; "
                f"it has {', '.join(used)}"
            )
        overrides.setdefault(method, {})[option] = value
    return overrides


def class_labels(wanted: list[str], dataset: Dataset) -> tuple[int, ...]:
    """Return the labels of classes given by name or number.

    Raises:
        ValueError: no such class, with the nearest name.
    """
    names = list(dataset.class_names)
    labels = set()
    for text in wanted:
        if text in names:
            labels.add(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            labels.add(int(text))
        else:
            shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            raise ValueError(
                f"{dataset.name} has no class {text!r}{did_you_mean(text, names)}; it has {shown}"
            )
    return tuple(sorted(labels))


def table_titles(cells: list[Cell]) -> dict[str, str]:
    """Return how the methods of a plan are called in tables."""
    methods: list[Any] = [m for cell in cells for m in (cell.poison.attack, cell.defense)]
    return {method.info.name: method.info.title for method in methods}
