"""Plan a matrix: turn a configuration into cells, in a fixed order.

`plan()` also resolves the options that depend on the poison or on the protocol, such as the half
budget of adversarial training, into numbers, so that these enter the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch

from ..augment.geometry import check_mirror
from ..common.errors import MethodError, UserError
from ..common.options import option_texts
from ..common.spec import did_you_mean, normalise
from ..common.text import distinct_titles
from ..data.dataset import Dataset
from ..learn.protocol import Protocol, named_protocol
from ..methods.asked import Asked
from ..methods.base import Attack, Defense, Facts
from ..methods.checked import adjusted_by, budget_of, defense_effort_of
from ..methods.faults import blamed
from ..methods.imported import ImportedPoison, bind
from ..methods.mixture import mixed
from ..methods.registry import build_attack, build_defense
from ..methods.source import code_read_once, source_of
from ..models import parse_arch
from ..store.store import Store, canonical
from .by_victim import by_victim
from .cell import Cell, DatasetRef, PoisonRef, Share
from .config import (
    Config,
    dataset_specs,
    method_names,
    method_overrides,
    options_set,
    parts,
    spec_name,
)
from .failure import Failure, failure
from .purified import with_purified_sets
from .refusals import (
    check_distinct,
    check_mixtures,
    check_n_cells,
    check_shares,
    may_repeat,
)


def resolve_precision(asked: str, device: str) -> Any:
    """Return fp32 or bf16; `auto` means bf16 if the device computes it in hardware.

    On a CPU that takes AMX or AVX-512's bf16. With the latter alone (AMD Zen 4, torch 2.14, one
    thread) a training step takes 0.76 of its time in fp32 with `resnet8`, 0.57 with `resnet18`.

    Raises:
        UserError: the precision is `auto` and the cells go to GPUs of other machines.
    """
    if asked != "auto":
        return asked
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            "precision=auto cannot be resolved for GPUs of other machines; add "
            "--set protocol.precision=bf16, or fp32 for GPUs older than Ampere"
        )
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    in_hardware = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if in_hardware else "fp32"


ON_SUBSET = "craft_on=subset"
"""What is added to the options of an attack that saw only the poisoned images."""


@code_read_once()
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
        device: the device for which the precision is resolved.
        store: where imported poisons are looked up; by default the user's store.
        absent: a list to which missing files of weights are added; their cells get keys that no
            store holds. By default a missing file is an error.

    Raises:
        UserError: a name is unknown, or an option or class is bad. A method that raises an
            exception makes its own cells fail instead; see `Cell.fault`.
    """
    store = store or Store()
    by_spec = dict(zip(dataset_specs(config), datasets, strict=True))
    known = method_names(config)
    cells: dict[Any, Cell] = {}
    check_n_cells(config)
    for part in parts(config):
        overrides = method_overrides(part, known)
        for spec in part.dataset:
            dataset, ref = by_spec[spec]
            setting = Setting.of(ref, _protocol(part, ref.family), device, absent)
            planned = _cells(part, overrides, dataset, setting, store, absent)
            supervised = list(with_purified_sets(planned, store))
            for cell in by_victim(supervised, part.victims, overrides, setting.facts):
                cells.setdefault((cell.key, cell.ratio, cell.classes, cell.describe()), cell)
    return list(cells.values())


def _cells(
    config: Config,
    overrides: dict[str, dict[str, Any]],
    dataset: Dataset | DatasetRef,
    setting: Setting,
    store: Store,
    absent: list[str] | None,
) -> Iterator[Cell]:
    """Yield the cells of one part on one data set, in the order of its lists."""
    ref = setting.ref
    attacks = [build_attack(s, options_set(s, overrides)) for s in config.attacks]
    defenses = [build_defense(s, overrides.get(spec_name(s))) for s in config.defenses]
    for method in [*(m for a in attacks for m in mixed(a.method)), *(d.method for d in defenses)]:
        source_of(method)  # before its own code runs, which may change what it refers to
    typed = config.arch or [setting.protocol.arch]
    archs = [parse_arch(arch, absent)[0] for arch in typed]
    check_distinct("networks", typed, archs)
    labels = class_labels(config.classes, dataset)
    if isinstance(dataset, Dataset):
        check_shares(config, labels, dataset)
    bound = [(a, bind(a, store, ref.name, ref.fingerprint)) for a in attacks]
    with_clean_beside = [normalise(name) for name in config.clean_beside]
    poisons: dict[Any, PoisonRef] = {}

    def shared(cell: Cell) -> Cell:
        """Make all cells of a poison share one object, so that its recipe is computed once."""
        ref = cell.poison
        first = poisons.setdefault((id(ref.attack), ref.seed, ref.crafted_on), ref)
        return replace(cell, poison=first)

    crafted = [(asked, setting.poison(attack)) for asked, attack in bound]
    if isinstance(dataset, Dataset):
        check_mixtures([poison for _, poison in crafted], config, labels, dataset)
    clean = setting.poison(build_attack("none"))
    pairs = [
        [_options_shown(setting.cell(poison, defense), asked, defense) for defense in defenses]
        for asked, poison in crafted
    ]
    if may_repeat(config.attacks) or may_repeat(config.defenses):
        keys = [[cell.key for cell in row] for row in pairs]
        check_distinct("attacks", config.attacks, keys)
        check_distinct("defenses", config.defenses, [*zip(*keys, strict=True)])
    for arch in archs:
        for ratio in config.ratio:
            for row in pairs:
                for defense, pair in zip(defenses, row, strict=True):
                    if defense.info.name in with_clean_beside and not pair.poison.is_clean:
                        alone = _clean_beside(pair, defense, setting, clean)
                        yield from map(shared, _seeded(replace(alone, arch=arch), config))
                    for cell in _seeded(pair, config):
                        cell = replace(cell, arch=arch, ratio=ratio, classes=labels)
                        subset = config.craft_on == "subset"
                        yield shared(_crafted_on_its_share(cell) if subset else cell)


@dataclass(frozen=True)
class Setting:
    """The data set, protocol and precision for which methods are resolved."""

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
            protocol: how target models are trained, and which surrogate the attacks use.
            device: the device for which the precision is resolved.
            absent: see `plan`.
        """
        surrogate = parse_arch(protocol.surrogate, absent)[0]
        facts = Facts(
            *(ref.family, ref.n_classes, ref.shape, protocol.epochs, surrogate),
            batch_size=protocol.batch_size,
            flip=protocol.flip,
        )
        return Setting(ref, facts, protocol, resolve_precision(protocol.precision, device))

    def poison(self, attack: Asked[Attack], seed: int = 0) -> PoisonRef | Unresolved:
        """Return an attack's poison in this setting, or why the attack cannot be resolved."""
        try:
            return self.poison_or_raise(attack, seed)
        except MethodError as error:
            asked = PoisonRef(self.ref, attack.method, seed, self.precision)
            return Unresolved(asked, failure(error))

    def poison_or_raise(self, attack: Asked[Attack], seed: int = 0) -> PoisonRef:
        """Return an attack's poison in this setting.

        Raises:
            UserError: the attack refuses its options.
            MethodError: the attack raises any other exception.
        """
        poison = PoisonRef(self.ref, attack.resolve(self.facts), seed, self.precision)
        with blamed(poison.attack, "budget"):
            budget_of(poison.attack, self.ref.shape)
        return poison

    def cell(self, poison: PoisonRef | Unresolved, defense: Asked[Defense]) -> Cell:
        """Return the cell of a poison and a defense; it holds the fault if a method fails."""
        if isinstance(poison, Unresolved):
            return self._faulty(poison.asked, defense, poison.why)
        try:
            return self.cell_or_raise(poison, defense)
        except MethodError as error:
            return self._faulty(poison, defense, failure(error))

    def cell_or_raise(self, poison: PoisonRef, defense: Asked[Defense]) -> Cell:
        """Return the cell of a poison and a defense that is resolved for it.

        Everything that later steps ask of the methods is called here once, so that a method which
        fails does so while the matrix is planned, and not in the middle of a run.

        Raises:
            UserError: the defense refuses its options.
            MethodError: a method raises any other exception.
        """
        facts = self.facts
        if not poison.is_clean:
            norm, eps = poison.attack.budget(self.ref.shape).ball
            facts = replace(facts, norm=norm, eps=eps)
        trained = defense.resolve(facts)
        with blamed(trained, "adjust"):
            protocol = adjusted_by(trained, self.protocol)
        with blamed(trained, "effort"):
            defense_effort_of(trained)
        with blamed(trained, "options"):
            trained.options()
        with blamed(poison.attack, "options"):
            poison.attack.options()
        with blamed(trained, "recipe"):
            canonical(trained.recipe())
        with blamed(poison.attack, "recipe"):
            canonical(poison.recipe())
        if protocol.crop_fill == "reflect":
            check_mirror(protocol.crop_padding, *self.ref.shape[1:])
        return self._pair(poison, trained, protocol)

    def _faulty(self, poison: PoisonRef, defense: Asked[Defense], why: Failure) -> Cell:
        """Return the cell of two methods of which one failed."""
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
            usual_epochs=self.protocol.epochs,
        )


class Unresolved(NamedTuple):
    """A poison whose attack failed while it was resolved."""

    asked: PoisonRef
    """The poison with the attack as the user asked for it."""
    why: Failure


def _options_shown(cell: Cell, attack: Asked[Attack], defense: Asked[Defense]) -> Cell:
    """Return a cell with the options that tables show; if `options` fails, the cell does."""
    texts = []
    for asked in (attack, defense):
        try:
            with blamed(asked.method, "options"):
                texts.append(asked.changed_text)
        except MethodError as error:
            texts.append("")
            cell = cell if cell.fault else replace(cell, fault=failure(error))
    return replace(cell, attack_options=texts[0], defense_options=texts[1])


def _protocol(config: Config, family: str) -> Protocol:
    """Return a part's protocol for a data set, with the part's factor on its epochs applied."""
    protocol = named_protocol(config.protocol, family, **config.protocol_options)
    return protocol.lengthened(config.times_epochs)


def _clean_beside(
    pair: Cell, defense: Asked[Defense], setting: Setting, clean: PoisonRef | Unresolved
) -> Cell:
    """Return the clean cell of a defense that is resolved as for the attack of a pair.

    Its options in tables include those that the attack's budget changes.
    """
    assert isinstance(clean, PoisonRef), "the suite's own attack `none` does not fail"
    changed = ""
    if pair.fault is None:
        on_clean = defense.resolve(setting.facts).options()
        differing = {k: v for k, v in pair.defense.options().items() if v != on_clean[k]}
        changed = option_texts(
            {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in differing.items()},
            type(pair.defense).model_fields,
        )
    return replace(
        pair,
        poison=clean,
        attack_options="",
        defense_options=",".join(filter(None, (pair.defense_options, changed))),
    )


def _seeded(cell: Cell, config: Config) -> Iterator[Cell]:
    """Yield a cell for each training seed and poison seed; clean data needs one poison seed."""
    for seed in config.seeds:
        for poison_seed in config.poison_seeds[: 1 if cell.poison.is_clean else None]:
            poison = cell.poison  # kept if it has this seed, and with it its cached recipe
            if poison.seed != poison_seed:
                poison = replace(poison, seed=poison_seed)
            yield replace(cell, seed=seed, poison=poison)


def _crafted_on_its_share(cell: Cell) -> Cell:
    """Return the cell with a poison that is crafted only on the images that are poisoned."""
    share = Share(cell.ratio, cell.classes)
    if share == Share() or not share.ratio or isinstance(cell.poison.attack, ImportedPoison):
        return cell
    options = ",".join(filter(None, (cell.attack_options, ON_SUBSET)))
    poison = replace(cell.poison, crafted_on=share)
    return replace(cell, poison=poison, attack_options=options)


def class_labels(classes: list[str], dataset: Dataset | DatasetRef) -> tuple[int, ...]:
    """Return the labels of classes that are given by name or number.

    Raises:
        UserError: there is no such class; the message suggests the nearest name.
    """
    names = list(dataset.class_names)
    labels = []
    for text in classes:
        if text in names:
            labels.append(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            labels.append(int(text))
        else:
            first = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            raise UserError(
                f"{dataset.name} has no class {text!r}{did_you_mean(text, names)}; it has {first}, "
                f"and the numbers 0 to {len(names) - 1} stand for them"
            )
    check_distinct("classes", classes, labels)
    return tuple(sorted(labels))


def table_titles(cells: list[Cell]) -> dict[str, str]:
    """Return what tables call the methods of a plan, by name."""
    return distinct_titles({m.info.name: m.info.title for cell in cells for m in cell.methods})
