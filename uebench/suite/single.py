"""Craft one poison or train one target model from Python, without a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..cells.by_victim import by_victim
from ..cells.cell import PoisonRef, dataset_ref
from ..cells.compute import fetch_poison, train_cell, training_run
from ..cells.config import checked_seed, make_config, method_overrides, options_set, spec_name
from ..cells.plan import Setting
from ..common.errors import MethodError
from ..common.mixtures import attacks_mixed
from ..data import Dataset
from ..data.load import as_dataset
from ..data.poison import Poison, PoisonError, check_fits, measure, n_changed, poisoned
from ..execute.devices import usable_devices
from ..execute.progress import step_display
from ..learn.protocol import Protocol, named_protocol, with_fields
from ..learn.threads import one_thread
from ..methods.asked import Asked
from ..methods.base import Attack
from ..methods.imported import bind, imported_class
from ..methods.registry import build_attack, build_defense
from ..store.store import Store


def craft(
    attack: str,
    dataset: Dataset | str,
    *,
    seed: int = 0,
    protocol: str = "quick",
    set: Mapping[str, Any] | None = None,
    device: str = "auto",
    store: Store | None = None,
    quiet: bool = False,
) -> Poison:
    """Craft a poison from a data set's training images, or load it if it was crafted before.

    Poisons are kept in the store by attack, options, seed and data. It is the poison that
    `uebench run` crafts under the same protocol.

    Args:
        attack: a spec such as `lsp` or `em[eps=16/255]`.
        dataset: a data set or its name.
        seed: seed of the attack.
        protocol: the protocol whose surrogate network is the attack's default.
        set: options of the attack or of the protocol, as `--set` of `uebench run` sets them, such
            as `{"em.rounds": 5}` or `{"protocol.surrogate": "resnet18"}`.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        store: where poisons are kept; by default `$UEBENCH_HOME` or the platform's cache folder.
        quiet: whether to hide progress.

    Raises:
        UserError: a name is unknown or an option is bad.
        MethodError: the attack raised an exception or exceeded its budget.
    """
    device, loaded, store = usable_devices(device)[0], as_dataset(dataset), store or Store()
    ref = crafted_ref(attack, loaded, seed, protocol, set or {}, device, store)
    with one_thread(device), step_display(f"craft {ref.attack.info.name}", quiet) as show:
        poison = fetch_poison(store, ref, loaded.train, device, show)
    return replace(poison, dataset=loaded)


def crafted_ref(
    attack: str,
    dataset: Dataset,
    seed: int,
    protocol: str,
    set: Mapping[str, Any],
    device: str,
    store: Store,
) -> PoisonRef:
    """Return the poison that an attack crafts from a data set, whether or not it was crafted.

    Args:
        attack: its spec.
        dataset: the clean data set.
        seed: seed of the attack.
        protocol: the protocol whose surrogate network is the attack's default.
        set: options of the attack or of the protocol, by their names with a dot.
        device: the device for which the precision is resolved.
        store: where imported poisons are kept.

    Raises:
        UserError: a name is unknown or an option is bad.
        MethodError: the attack raised an exception.
    """
    seed = checked_seed(seed)
    config = make_config({"attacks": [attack], "protocol": protocol, "set": dict(set)})
    overrides = method_overrides(config, [spec_name(attack), *attacks_mixed(attack)])
    ref = dataset_ref(dataset)
    chosen = named_protocol(protocol, ref.family, **config.protocol_options)
    asked = build_attack(attack, options_set(attack, overrides))
    bound = bind(asked, store, ref.name, ref.fingerprint)
    return Setting.of(ref, chosen, device).poison_or_raise(bound, seed)


def train(
    poison: Poison,
    defense: str,
    dataset: Dataset | str,
    *,
    victim: str = "supervised",
    arch: str | None = None,
    protocol: str | Protocol = "quick",
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    **protocol_options: Any,
) -> dict[str, Any]:
    """Train a target model on a poison under a defense, and return its record.

    The poison may come from `craft`, from a file or from anywhere else. Nothing is stored. If the
    poison records no budget, adversarial training takes half of the measured linf norm.

    Args:
        poison: the poisoned images; training images that it does not cover stay clean.
        defense: a spec such as `ueraser`.
        dataset: the data set with the test images, or its name.
        victim: who trains the target model, such as `simclr[epochs=100]`.
        arch: the target network; by default the protocol's.
        protocol: a protocol or its name.
        seed: seed of the training.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        quiet: whether to hide progress.
        **protocol_options: fields of the protocol to change, such as `epochs=5`.

    Returns:
        test_acc, test_acc_best and train_acc in [0, 1], and best_epoch; curve, confusion and
        train_seconds; n_poisoned, the number of training images that the poison changes; with
        `robust=True` also robust_acc, robust_norm and robust_radius.

    Raises:
        UserError: a name is unknown, an option is bad, or the poison does not fit the data set or
            has other labels.
        MethodError: the defense or the victim raised an exception.
    """
    device, seed = usable_devices(device)[0], checked_seed(seed)
    loaded = as_dataset(dataset)
    _check_trainable(poison, loaded)
    data_ref = dataset_ref(loaded)
    chosen = _with_options(protocol, data_ref.family, protocol_options)
    setting = Setting.of(data_ref, chosen, device)
    ref = setting.poison_or_raise(_attack_of(poison, loaded))
    cell = replace(setting.cell_or_raise(ref, build_defense(defense)), seed=seed)
    if arch is not None:
        cell = replace(cell, arch=arch)
    (cell,) = by_victim([cell], [victim], {}, setting.facts)
    if cell.fault is not None:
        raise MethodError(cell.fault.error)
    title = f"train under {cell.defense.info.name}"
    with one_thread(device), step_display(title, quiet) as show:
        run = training_run(cell, device, progress=show)
        data = poisoned(loaded.train, poison)
        n_poisoned = n_changed(loaded.train.images, data.images)
        return train_cell(cell, data, loaded, run) | {"n_poisoned": n_poisoned}


def _with_options(protocol: str | Protocol, family: str, options: Mapping[str, Any]) -> Protocol:
    """Return a protocol, given by itself or by name, with some of its fields changed."""
    if isinstance(protocol, Protocol):
        return with_fields(protocol, **options)
    return named_protocol(protocol, family, **options)


def _check_trainable(poison: Poison, dataset: Dataset) -> None:
    """Refuse a poison that training would not use as its owner expects.

    Raises:
        PoisonError: it is not a Poison, does not fit the data set, or has labels of its own.
    """
    if not isinstance(poison, Poison):
        raise PoisonError(
            f"a uebench.Poison is needed, got a {type(poison).__name__}; get one from "
            "uebench.craft, or make it: uebench.Poison(images, labels, index)"
        )
    check_fits(poison, dataset.train, dataset.name)
    labels = dataset.train.labels[poison.index]
    if differing := int((labels != poison.labels).sum()):
        raise PoisonError(
            f"{differing} of the poison's {len(poison)} labels differ from those of "
            f"{dataset.name}, and training replaces images alone; give the data set's own labels, "
            "dataset.train.labels[index], or a data set that has the other ones"
        )


def _attack_of(poison: Poison, dataset: Dataset) -> Asked[Attack]:
    """Return a stand-in for the attack that made a poison, with the poison's budget.

    The training depends on the attack only by its budget: the recorded one, or else the measured
    linf norm. A poison that changes no image counts as clean data.
    """
    given = imported_class("imported:given")
    match poison.meta.get("budget"):
        case {"norm": "linf" | "l2" | "l0" as norm, "eps": float() | int() as eps} if eps > 0:
            return Asked(given.model_validate({"norm": norm, "eps": eps}))
        case {"norm": "none"}:
            return Asked(given.model_validate({"norm": "none", "eps": 1.0}))
    measured = measure(dataset.train.images, poison.images, poison.index)
    levels = measured.linf.max().item()
    if not levels:
        return build_attack("none")
    return Asked(given.model_validate({"norm": "linf", "eps": levels / 255}))
