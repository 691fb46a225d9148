"""The Python API for one poison and one target model, outside a matrix: `craft` and `train`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from ..cells.cell import PoisonRef, dataset_ref
from ..cells.compute import fetch_poison
from ..cells.plan import resolve_precision
from ..data import Dataset, load_dataset
from ..data.poison import Poison, measure, poisoned
from ..execute.devices import usable_devices
from ..learn.protocol import Protocol, named_protocol
from ..learn.threads import one_thread
from ..methods.base import Facts
from ..methods.faults import blamed
from ..methods.imported import bind
from ..methods.registry import build_attack, build_defense
from ..methods.run import Run
from ..models import parse_arch
from ..store.store import Store, seed_of
from ..victims.robust import ball_of, robust_record
from ..victims.supervised import train_model


def craft(
    attack: str,
    dataset: Dataset | str,
    *,
    seed: int = 0,
    protocol: str = "paper",
    device: str = "auto",
    store: Store | None = None,
    quiet: bool = True,
) -> Poison:
    """Return the poison that an attack makes of a data set's training images.

    It is kept in the store: the same attack, options, seed and data give the same poison at once.

    Args:
        attack: a spec such as `lsp` or `em[eps=16/255]`.
        dataset: a data set or its name.
        seed: what the poison is crafted from.
        protocol: whose surrogate network an attack takes that is not told another one.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        store: where it is kept; by default `$UEBENCH_HOME` or the platform's cache folder.
        quiet: show no progress.

    Raises:
        KeyError, ValueError: an unknown name, a bad option, or a budget that is not kept.
    """
    device = usable_devices(device)[0]
    loaded = load_dataset(dataset) if isinstance(dataset, str) else dataset
    family = loaded.name.partition("[")[0]
    chosen = named_protocol(protocol, family)
    surrogate = parse_arch(chosen.surrogate)[0]
    facts = Facts(family, loaded.n_classes, loaded.shape, chosen.epochs, surrogate)
    store = store or Store()
    asked = bind(build_attack(attack), store, loaded.name, loaded.fingerprint)
    made = asked.resolve(facts)
    precision = resolve_precision(chosen.precision, device)
    ref = PoisonRef(dataset_ref(loaded), made, seed, precision)

    def told(share: float, text: str) -> None:
        if not quiet:
            print(f"{made.info.name}: {share:.0%} {text}", file=sys.stderr, flush=True)

    with one_thread(device), blamed(made, "craft"):
        return fetch_poison(store, ref, loaded.train, device, told)


def train(
    poison: Poison,
    defense: str,
    dataset: Dataset | str,
    *,
    arch: str | None = None,
    protocol: str | Protocol = "quick",
    seed: int = 0,
    device: str = "auto",
    **protocol_options: Any,
) -> dict[str, Any]:
    """Return the record of a target model trained on a poison under a defense.

    The poison may come from `craft`, from a file or from anywhere else. Nothing is kept. Where no
    budget is recorded with it, adversarial training takes half of the linf that it measures.

    Args:
        poison: the poisoned images; training images that it does not cover stay clean.
        defense: a spec such as `ueraser`.
        dataset: where the test set and the class names come from.
        arch: the target network; by default the protocol's.
        protocol: its name, or one of your own.
        seed: seed of the training.
        device: `auto`, `cpu`, `cuda` or `cuda:0`.
        **protocol_options: fields of the protocol that are changed, such as `epochs=5`.

    Returns:
        test_acc, test_acc_best, best_epoch, train_acc in [0, 1]; curve, confusion, train_seconds;
        with `robust=True` robust_acc, robust_norm and robust_radius.
    """
    device = usable_devices(device)[0]
    loaded = load_dataset(dataset) if isinstance(dataset, str) else dataset
    family = loaded.name.partition("[")[0]
    if isinstance(protocol, Protocol):
        chosen = Protocol.model_validate(protocol.model_dump() | protocol_options)
    else:
        chosen = named_protocol(protocol, family, **protocol_options)
    facts = Facts(family, loaded.n_classes, loaded.shape, chosen.epochs, chosen.surrogate)
    facts = replace(facts, **_budget_of(poison, loaded))
    made = build_defense(defense).resolve(facts)
    data = poisoned(loaded.train, poison)
    work = Run(
        shape=loaded.shape,
        n_classes=loaded.n_classes,
        seed=seed_of("train", seed),
        device=device,
        epochs=chosen.epochs,
        precision=resolve_precision(chosen.precision, device),
    )
    with one_thread(device):
        data = made.prepare(data.to(device), work)
        trained = train_model(
            data, loaded.test.to(device), arch or chosen.arch, made.adjust(chosen), made, work
        )
        if not chosen.robust:
            return trained.record
        norm, radius = ball_of(made, facts.norm, facts.eps)
        judged = robust_record(trained.model, loaded.test.to(device), norm, radius, work)
    return trained.record | judged


def _budget_of(poison: Poison, dataset: Dataset) -> dict[str, Any]:
    """Return norm and eps of a poison: as recorded, else its measured linf; nothing if clean."""
    match poison.meta.get("budget"):
        case {"norm": "linf" | "l2" as norm, "eps": float(eps)} if eps > 0:
            return {"norm": norm, "eps": eps}
    measured = measure(dataset.train.images, poison.images, poison.index)
    levels = measured.linf.max().item()
    return {"norm": "linf", "eps": levels / 255} if levels else {}
