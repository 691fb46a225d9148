"""Repeat the cells of a plan for each victim, resolved for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..common.errors import MethodError, UserError
from ..methods.asked import Asked
from ..methods.base import Facts
from ..methods.checked import victim_effort_of
from ..methods.faults import blamed
from ..methods.registry import build_victim
from ..methods.source import source_of
from ..methods.victim import Victim
from ..store.store import canonical
from .cell import SUPERVISED, Cell
from .config import spec_name
from .failure import failure
from .refusals import check_distinct


def by_victim(
    cells: Sequence[Cell],
    specs: Sequence[str],
    overrides: Mapping[str, Mapping[str, Any]],
    facts: Facts,
) -> Iterator[Cell]:
    """Yield all cells once for each of the victims, in the order in which these are named.

    Args:
        cells: the cells of supervised training on one data set.
        specs: the victims, such as `simclr[epochs=100]`.
        overrides: options that are set elsewhere, by method.
        facts: the data set and the protocol as it is before any defense adjusts it, so that a
            victim does not depend on the defenses beside which it is named.

    Raises:
        UserError: a victim is unknown, its options are bad, or a defense or network makes no sense
            under it. A victim that raises any other exception makes its cells fail instead.
    """
    asked = [build_victim(spec, overrides.get(spec_name(spec))) for spec in specs]
    for each in asked:
        source_of(each.method)  # before its own code runs, which may change what it refers to
    if not cells:
        return
    check_distinct("victims", specs, [_resolved(each, facts)[0] for each in asked])
    for each in asked:
        victim, fault = _resolved(each, facts)
        for cell in cells:
            if victim == SUPERVISED:
                yield cell
                continue
            trained = replace(cell, victim=victim, fault=cell.fault or fault)
            if trained.fault is None:
                trained = _checked(trained, facts)
            yield replace(trained, victim_options=each.changed_text)


def _resolved(asked: Asked[Victim], facts: Facts) -> tuple[Victim, Any]:
    """Return a victim and why it cannot be resolved, None if it can."""
    try:
        victim = asked.resolve(facts)
        with blamed(victim, "recipe"):
            canonical(victim.recipe())
    except MethodError as error:
        return asked.method, failure(error)
    return victim, None


def _checked(cell: Cell, facts: Facts) -> Cell:
    """Return a cell that its victim accepts; it holds the fault if the victim's code fails.

    Raises:
        UserError: the victim refuses the network or the defense, or trains for its own epochs and
            the defense wants to multiply the protocol's.
    """
    try:
        _check_epochs(cell)
        with blamed(cell.victim, "check"):
            cell.victim.check(cell.arch, cell.defense, facts)
        with blamed(cell.victim, "effort"):
            victim_effort_of(cell.victim, cell.protocol)
    except MethodError as error:
        return replace(cell, fault=failure(error))
    return cell


def _check_epochs(cell: Cell) -> None:
    """Refuse `times_epochs` where nothing reads the protocol's epochs.

    Raises:
        UserError: the victim does not read them.
    """
    reads = cell.victim.reads
    if cell.defense.times_epochs != 1 and reads is not None and "epochs" not in reads:
        raise UserError(
            f"times_epochs of defense {cell.defense.info.name} multiplies the protocol's epochs, "
            f"but victim {cell.victim.info.name} does not train for these; leave it out, or set "
            "the victim's own epochs"
        )
