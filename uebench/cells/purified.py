"""The cells of purified sets: they exist only for the poisons that the sets were made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..methods.purified import PurifiedSet, bound_to, not_purified
from ..store.store import Store
from .cell import Cell


def with_purified_sets(cells: Iterable[Cell], store: Store) -> Iterator[Cell]:
    """Yield cells with the content of their purified sets; leave out those that have none.

    A purified set belongs to one poison, all of whose images were purified. So it has no cell for
    another attack, poison seed or share of poisoned images, nor for clean data.

    Raises:
        UnknownNameError: a purified set has no cell at all.
    """
    used: dict[str, bool] = {}
    for cell in cells:
        if not isinstance(cell.defense, PurifiedSet):
            yield cell
            continue
        name = cell.defense.info.name
        whole = cell.fault is None and cell.ratio == 1 and not cell.classes
        bound = bound_to(cell.defense, store, cell.poison.key) if whole else None
        used[name] = used.get(name, False) or bound is not None
        if bound is not None:
            yield replace(cell, defense=bound)
    for name, is_used in used.items():
        if not is_used:
            raise not_purified(name, store)
