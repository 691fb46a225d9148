"""Select cells by the names or specs of their attacks and defenses."""

from collections.abc import Callable, Sequence

import pandas as pd

from ..common.errors import UserError
from ..common.spec import did_you_mean, normalise
from ..common.text import comma_parts
from .groups import CellRow, MethodSpec, plain_rows, the_attack, the_defense


def selected(
    cells: pd.DataFrame, attacks: Sequence[str] = (), defenses: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the cells of some attacks and defenses; naming none selects all.

    Args:
        cells: as `read_cells` returns them.
        attacks: names, which select every form of an attack, or specs such as `em[eps=16/255]`,
            which select that form.
        defenses: likewise.

    Raises:
        UserError: no cell has an attack or a defense of such a name.
    """
    rows = plain_rows(cells)
    keep = [True] * len(rows)
    for kind, wanted, of in (
        ("attack", attacks, the_attack),
        ("defense", defenses, the_defense),
    ):
        if wanted:
            matching = _matching(kind, wanted, rows, of)
            keep = [kept and of(row) in matching for kept, row in zip(keep, rows, strict=True)]
    return cells[keep].reset_index(drop=True)


def _matching(
    kind: str, wanted: Sequence[str], rows: Sequence[CellRow], of: Callable[[CellRow], MethodSpec]
) -> set[MethodSpec]:
    """Return the methods of cells that are named."""
    present = dict.fromkeys(of(row) for row in rows)
    matching: set[MethodSpec] = set()
    for text in wanted:
        name, bracket, options = text.strip().partition("[")
        asked = set(comma_parts(options.removesuffix("]")))
        named = {
            method
            for method in present
            if method.name == normalise(name)
            and (not bracket or set(comma_parts(method.options)) == asked)
        }
        if not named:
            names = [str(method) for method in present]
            raise UserError(
                f"no cell has the {kind} {text}{did_you_mean(text, names)}; there are "
                f"{', '.join(names)}"
            )
        matching |= named
    return matching
