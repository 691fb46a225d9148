"""Whether a cell gives the same bits again, and what the record says where nobody can promise it.

On a CPU a cell computes in one thread with kernels of a fixed order, so it is bit-identical on
machines of one type. On a GPU some kernels add up in whatever order their threads arrive:
`--deterministic` takes those that do not, which are slower, and keeps the names of operations that
have none.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from ..store.store import Store
from .cell import Cell
from .records import Records

NO_DETERMINISTIC = "does not have a deterministic implementation"
"""What torch says of an operation that it can only compute in any order."""
CUBLAS = ":4096:8"
"""Workspaces with which cuBLAS adds up in a fixed order (NVIDIA's documentation of cuBLAS)."""

_state: dict[str, Any] = {"on": False, "exceptions": []}


@contextlib.contextmanager
def determinism(device: torch.device | str, asked: bool) -> Iterator[None]:
    """Compute inside with deterministic kernels where that was asked for and is not so anyway."""
    if not asked or torch.device(device).type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS)  # read when cuBLAS starts
    was_on = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    exceptions: list[str] = []
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, *rest: Any, **named: Any) -> None:
            text = str(message)
            if NO_DETERMINISTIC not in text:
                shown(message, *rest, **named)
            elif (name := text.partition(" ")[0]) not in exceptions:
                exceptions.append(name)

        warnings.filterwarnings("always", message=f".*{NO_DETERMINISTIC}")
        warnings.showwarning = show
        torch.use_deterministic_algorithms(True, warn_only=True)
        _state.update(on=True, exceptions=exceptions)
        try:
            yield
        finally:
            _state.update(on=False, exceptions=[])
            torch.use_deterministic_algorithms(was_on, warn_only=only_warned)


def promise(device: torch.device | str) -> dict[str, Any]:
    """Return what a record says: whether the same bits come again, and what stands against it."""
    if torch.device(device).type == "cpu":
        held = torch.get_num_threads() == 1
        return {
            "bit_identical": held,
            "on": "CPUs of this type",
            "not_promised": [] if held else [f"{torch.get_num_threads()} threads"],
        }
    against = list(_state["exceptions"]) if _state["on"] else ["kernels chosen for speed"]
    if _state["on"] and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (CUBLAS, ":16:8"):
        against.append(f"CUBLAS_WORKSPACE_CONFIG={os.environ['CUBLAS_WORKSPACE_CONFIG']}")
    return {
        "bit_identical": not against,
        "on": "GPUs of this type, with this version of torch",
        "not_promised": against,
    }


def also(own: dict[str, Any], poisons: Any) -> dict[str, Any]:
    """Return a cell's promise, held back by what its poison's record does not promise."""
    if not isinstance(poisons, dict) or poisons.get("bit_identical", True):
        return own
    against = [f"its poison: {reason}" for reason in poisons.get("not_promised", [])]
    return {**own, "bit_identical": False, "not_promised": [*own["not_promised"], *against]}


def unpromised(cells: list[Cell], store: Store | Records) -> int:
    """Return how many known cells may not give the same bits again, as their records say."""
    records = map(Records.of(store).cell, cells)
    promises = [record.get("determinism", {}) for record in records if record is not None]
    return sum(not promised.get("bit_identical", False) for promised in promises)
