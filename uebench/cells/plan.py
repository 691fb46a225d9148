"""What to run: a configuration from YAML and flags, and the cells that it means, in a fixed order.

`plan()` also resolves what the paper ties to the poison or to the protocol into numbers, such as
the half budget of adversarial training, so that they enter the keys.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch

from ..common.errors import MethodError, UserError
from ..common.spec import did_you_mean, format_options, normalise
from ..data.dataset import Dataset
from ..learn.protocol import Protocol, named_protocol
from ..methods.asked import Asked
from ..methods.base import Attack, Defense, Facts
from ..methods.faults import blamed
from ..methods.imported import ImportedPoison, bind
from ..methods.registry import build_attack, build_defense
from ..models import parse_arch
from ..store.store import Store, canonical
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
from .failure import Failure

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
    setting = Setting.of(ref, _protocol(config, ref.name.partition("[")[0]), device, absent)
    labels = class_labels(config.classes, dataset)
    bound = [(a, bind(a, store, ref.name, ref.fingerprint)) for a in attacks]
    beside = [normalise(name) for name in config.clean_beside]
    poisons: dict[Any, PoisonRef] = {}

    def shared(cell: Cell) -> Cell:
        """Let cells share one object for one poison, so that its recipe is made once."""
        ref = cell.poison
        known = poisons.setdefault((id(ref.attack), ref.seed, ref.crafted_on), ref)
        return replace(cell, poison=known)

    crafted = [(asked, setting.poison(attack)) for asked, attack in bound]
    clean = setting.poison(build_attack("none"))
    pairs = [
        [_options_shown(setting.cell(poison, defense), asked, defense) for defense in defenses]
        for asked, poison in crafted
    ]
    for arch in archs or [parse_arch(setting.protocol.arch, absent)[0]]:
        for ratio in config.ratio:
            for row in pairs:
                for defense, pair in zip(defenses, row, strict=True):
                    if defense.info.name in beside and not pair.poison.is_clean:
                        alone = _clean_beside(pair, defense, setting, clean)
                        yield from map(shared, _seeded(replace(alone, arch=arch), config))
                    for cell in _seeded(pair, config):
                        cell = replace(cell, arch=arch, ratio=ratio, classes=labels)
                        subset = config.craft_on == "subset"
                        yield shared(_crafted_on_its_share(cell) if subset else cell)


@dataclass(frozen=True)
class Setting:
    """What the methods of a cell are resolved for: data set, protocol and precision."""

    ref: DatasetRef
    facts: Facts
    protocol: Protocol
    precision: Literal["fp32", "bf16"]

    @staticmethod
    def of(
        ref: DatasetRef, protocol: Protocol, device: str, absent: list[str] | None = None
    ) -> Setting:
        """Return the setting of a protocol on a data set.

        Args:
            ref: the data set.
            protocol: how target models are trained, and which surrogate attacks use.
            device: what the precision is resolved for.
            absent: see `plan`.
        """
        family = ref.name.partition("[")[0]
        surrogate = parse_arch(protocol.surrogate, absent)[0]
        facts = Facts(family, ref.n_classes, ref.shape, protocol.epochs, surrogate)
        return Setting(ref, facts, protocol, resolve_precision(protocol.precision, device))

    def poison(self, attack: Asked[Attack], seed: int = 0) -> PoisonRef | Broken:
        """Return the poison of an attack here, or why the attack cannot be resolved."""
        try:
            return self.poison_or_raise(attack, seed)
        except MethodError as error:
            asked = PoisonRef(self.ref, attack.method, seed, self.precision)
            return Broken(asked, _failure(error))

    def poison_or_raise(self, attack: Asked[Attack], seed: int = 0) -> PoisonRef:
        """Return the poison of an attack here.

        Raises:
            UserError: the attack refuses its options.
            MethodError: the attack's own code breaks.
        """
        poison = PoisonRef(self.ref, attack.resolve(self.facts), seed, self.precision)
        with blamed(poison.attack, "budget"):
            poison.attack.budget(self.ref.shape)
        return poison

    def cell(self, poison: PoisonRef | Broken, defense: Asked[Defense]) -> Cell:
        """Return a poison against a defense; a method that breaks is the cell's fault."""
        if isinstance(poison, Broken):
            return self._faulty(poison.asked, defense, poison.why)
        try:
            return self.cell_or_raise(poison, defense)
        except MethodError as error:
            return self._faulty(poison, defense, _failure(error))

    def cell_or_raise(self, poison: PoisonRef, defense: Asked[Defense]) -> Cell:
        """Return a poison against a defense, with everything that depends on the other resolved.

        Raises:
            UserError: the defense refuses its options.
            MethodError: the own code of one of them breaks, which its recipe and cost are asked
                for here too, so that nothing breaks later in the middle of a run.
        """
        facts = self.facts
        if not poison.is_clean:
            norm, eps = poison.attack.budget(self.ref.shape)
            facts = replace(facts, norm=norm, eps=eps)
        trained = defense.resolve(facts)
        with blamed(trained, "adjust"):
            protocol = trained.adjust(self.protocol)
        with blamed(trained, "effort"):
            trained.effort()
        with blamed(trained, "options"):
            trained.options()
        with blamed(poison.attack, "options"):
            poison.attack.options()
        with blamed(trained, "recipe"):
            canonical(trained.recipe())
        with blamed(poison.attack, "recipe"):
            canonical(poison.recipe())
        return self._pair(poison, trained, protocol)

    def _faulty(self, poison: PoisonRef, defense: Asked[Defense], why: Failure) -> Cell:
        """Return the cell of methods of which one broke."""
        return replace(self._pair(poison, defense.method, self.protocol), fault=why)

    def _pair(self, poison: PoisonRef, defense: Defense, protocol: Protocol) -> Cell:
        return Cell(
            poison=poison,
            ratio=1.0,
            classes=(),
            defense=defense,
            arch=self.protocol.arch,
            protocol=protocol,
            precision=self.precision,
            seed=0,
        )


class Broken(NamedTuple):
    """A poison whose attack broke while it was resolved."""

    asked: PoisonRef
    """The attack as it was asked for."""
    why: Failure


def _failure(error: MethodError) -> Failure:
    """Return a method's fault, which names its file and line already."""
    return Failure(str(error), "".join(traceback.format_exception(error)))


def _options_shown(cell: Cell, attack: Asked[Attack], defense: Asked[Defense]) -> Cell:
    """Return a cell with the options that tables show; none where the method cannot say them."""
    shown = []
    for asked in (attack, defense):
        try:
            with blamed(asked.method, "options"):
                shown.append(asked.changed_text)
        except MethodError as error:
            shown.append("")
            cell = cell if cell.fault else replace(cell, fault=_failure(error))
    return replace(cell, attack_options=shown[0], defense_options=shown[1])


def _protocol(config: Config, family: str) -> Protocol:
    """Return the protocol of a part for a data set, with its epochs times what the part says."""
    protocol = named_protocol(config.protocol, family, **config.protocol_options)
    epochs = max(1, math.floor(protocol.epochs * config.times_epochs + 0.5))
    return protocol.model_copy(update={"epochs": epochs})


def _clean_beside(
    pair: Cell, defense: Asked[Defense], setting: Setting, clean: PoisonRef | Broken
) -> Cell:
    """Return the clean cell whose defense is resolved as for the attack that it stands beside.

    Tables show those of its options that the attack's budget changes.
    """
    assert isinstance(clean, PoisonRef), "the suite's own attack `none` does not break"
    shown = ""
    if pair.fault is None:
        usual = defense.resolve(setting.facts).options()
        moved = {k: v for k, v in pair.defense.options().items() if v != usual[k]}
        shown = format_options(
            {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in moved.items()}
        )
    return replace(
        pair,
        poison=clean,
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
