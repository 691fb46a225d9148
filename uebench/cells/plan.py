"""What to run: a configuration from YAML and flags, and the cells that it means, in a fixed order.

`plan()` also resolves what the paper ties to the poison or to the protocol into numbers, such as
the half budget of adversarial training, so that they enter the keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..common.errors import UserError
from ..common.spec import did_you_mean, format_options, normalise
from ..data.dataset import Dataset
from ..learn.protocol import Protocol, named_protocol
from ..methods.asked import Asked
from ..methods.base import Attack, Defense, Facts
from ..methods.imported import ImportedPoison, bind
from ..methods.registry import build_attack, build_defense
from ..models import parse_arch
from ..store.store import Store
from .cell import Cell, DatasetRef, PoisonRef, Share
from .config import (
    Config,
    config_names,
    dataset_specs,
    make_config,
    method_names,
    parts,
    read_config,
    spec_name,
)

__all__ = [
    "Config",
    "config_names",
    "dataset_specs",
    "make_config",
    "plan",
    "read_config",
    "resolve_precision",
    "table_titles",
]


MOST_CELLS = 100_000
"""Most cells of one matrix."""


def resolve_precision(asked: str, device: str) -> Any:
    """Return fp32 or bf16: bf16 by itself only where the machine computes in it.

    On a CPU that is AMX or AVX-512's bf16. With the latter alone (AMD Zen 4, torch 2.14, one
    thread) a training step takes 0.76 of its time in fp32 with `resnet8`, 0.57 with `resnet18`.

    Raises:
        ValueError: the cells go to GPUs of other machines, and nothing here tells what those have.
    """
    if asked != "auto":
        return asked
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            "precision=auto cannot be told for GPUs that this machine does not have; add "
            "--set protocol.precision=bf16, or fp32 for GPUs before Ampere"
        )
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    in_hardware = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if in_hardware else "fp32"


def plan(
    config: Config,
    datasets: Sequence[tuple[Dataset | DatasetRef, DatasetRef]],
    device: str,
    store: Store | None = None,
    absent: list[str] | None = None,
) -> list[Cell]:
    """Return the cells of a configuration, each once, in the order of its parts and lists.

    Args:
        config: what to run.
        datasets: the data sets of `dataset_specs(config)`, in that order.
        device: what the precision is resolved for.
        store: says what imported poisons are; by default the user's.
        absent: where missing files of weights are noted, whose cells then have keys that no store
            holds; none: a missing file is an error.

    Raises:
        KeyError, ValueError: an unknown name, a bad option or class, before anything is computed.
    """
    store = store or Store()
    by_spec = dict(zip(dataset_specs(config), datasets, strict=True))
    known = method_names(config)
    cells: dict[Any, Cell] = {}
    _check_size(config)
    for part in parts(config):
        overrides = method_overrides(part, known)
        for spec in part.dataset:
            for cell in _cells(part, overrides, *by_spec[spec], device, store, absent):
                cells.setdefault((cell.key, cell.ratio, cell.describe()), cell)
    return list(cells.values())


def _cells(
    config: Config,
    overrides: dict[str, dict[str, Any]],
    dataset: Dataset | DatasetRef,
    ref: DatasetRef,
    device: str,
    store: Store,
    absent: list[str] | None,
) -> Iterator[Cell]:
    """Yield the cells of one part on one data set, in the order of its lists."""
    attacks = [build_attack(s, overrides.get(spec_name(s))) for s in config.attacks]
    defenses = [build_defense(s, overrides.get(spec_name(s))) for s in config.defenses]
    archs = [parse_arch(arch, absent)[0] for arch in config.arch]
    family = ref.name.partition("[")[0]
    protocol = _protocol(config, family)
    surrogate = parse_arch(protocol.surrogate, absent)[0]
    facts = Facts(family, ref.n_classes, ref.shape, protocol.epochs, surrogate)
    labels = class_labels(config.classes, dataset)
    bound = [(a, bind(a, store, ref.name, ref.fingerprint)) for a in attacks]
    beside = [normalise(name) for name in config.clean_beside]
    for arch in archs or [parse_arch(protocol.arch, absent)[0]]:
        for ratio in config.ratio:
            for asked, attack in bound:
                for defense in defenses:
                    pair = _pair(attack, defense, ref, facts, protocol, device)
                    pair = replace(pair, attack_options=asked.changed_text)
                    if defense.info.name in beside and not pair.poison.is_clean:
                        yield from _seeded(
                            replace(_clean_beside(pair, defense, facts), arch=arch), config
                        )
                    for cell in _seeded(pair, config):
                        cell = replace(cell, arch=arch, ratio=ratio, classes=labels)
                        subset = config.craft_on == "subset"
                        yield _crafted_on_its_share(cell) if subset else cell


def _protocol(config: Config, family: str) -> Protocol:
    """Return the protocol of a part for a data set, with its epochs times what the part says."""
    protocol = named_protocol(config.protocol, family, **config.protocol_options)
    epochs = max(1, math.floor(protocol.epochs * config.times_epochs + 0.5))
    return protocol.model_copy(update={"epochs": epochs})


def _clean_beside(pair: Cell, defense: Asked[Defense], facts: Facts) -> Cell:
    """Return the clean cell whose defense is resolved as for the attack that it stands beside.

    What the attack's budget changes in the defense is shown among its options.
    """
    clean = build_attack("none").resolve(facts)
    usual = defense.resolve(facts).options()
    moved = {k: v for k, v in pair.defense.options().items() if v != usual[k]}
    shown = format_options(
        {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in moved.items()}
    )
    return replace(
        pair,
        poison=replace(pair.poison, attack=clean),
        attack_options="",
        defense_options=",".join(filter(None, (pair.defense_options, shown))),
    )


def _check_size(config: Config) -> None:
    """Refuse a matrix that nobody could run, before its cells are built."""
    n = sum(
        math.prod(
            (
                *(len(part.dataset), max(1, len(part.arch))),
                *(len(part.attacks), len(part.defenses)),
                *(len(part.seeds), len(part.poison_seeds), len(part.ratio)),
            )
        )
        for part in parts(config)
    )
    if n > MOST_CELLS:
        raise UserError(
            f"this matrix has {n:,} cells, at most {MOST_CELLS:,} are planned; split it into "
            "several"
        )


def _pair(
    attack: Asked[Attack],
    defense: Asked[Defense],
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


def method_overrides(config: Config, known: list[str]) -> dict[str, dict[str, Any]]:
    """Return the options of `--set em.rounds=5` by method; `known` are those of all parts.

    Raises:
        ValueError: not METHOD.OPTION, or a method that this matrix does not have.
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


def class_labels(wanted: list[str], dataset: Dataset | DatasetRef) -> tuple[int, ...]:
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
            raise UserError(
                f"{dataset.name} has no class {text!r}{did_you_mean(text, names)}; it has {shown}"
            )
    return tuple(sorted(labels))


def table_titles(cells: list[Cell]) -> dict[str, str]:
    """Return how the methods of a plan are called in tables."""
    methods: list[Any] = [m for cell in cells for m in (cell.poison.attack, cell.defense)]
    return {method.info.name: method.info.title for method in methods}
