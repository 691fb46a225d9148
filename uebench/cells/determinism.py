"""Make cells reproducible bit for bit where that is possible, and record where it is not.

On a CPU a cell computes in one thread with kernels that add in a fixed order, so its numbers are
identical on all machines of one type. On a GPU some kernels add in whatever order their threads
arrive. `--deterministic` selects slower kernels with a fixed order, and records the operations that
have no such kernel.
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
"""Part of torch's warning about an operation that has no kernel with a fixed order."""
CUBLAS = ":4096:8"
"""Workspaces with which cuBLAS adds in a fixed order (NVIDIA's documentation of cuBLAS)."""

_state: dict[str, Any] = {"on": False, "exceptions": []}


@contextlib.contextmanager
def determinism(device: torch.device | str, asked: bool) -> Iterator[None]:
    """Use deterministic kernels inside if they were requested; CPU kernels always are."""
    if not asked or torch.device(device).type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS)  # cuBLAS reads it when it starts
    was_on = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    exceptions: list[str] = []
    with warnings.catch_warnings():
        show_other = warnings.showwarning

        def show(message: Warning | str, *rest: Any, **named: Any) -> None:
            text = str(message)
            if NO_DETERMINISTIC not in text:
                show_other(message, *rest, **named)
            elif (name := text.partition(" ")[0]) not in exceptions:
                exceptions.append(name)

        # torch only warns about such operations, so that a run completes and names them all
        warnings.filterwarnings("always", message=f".*{NO_DETERMINISTIC}")
        warnings.showwarning = show
        torch.use_deterministic_algorithms(True, warn_only=True)
        _state.update(on=True, exceptions=exceptions)
        try:
            yield
        finally:
            _state.update(on=False, exceptions=[])
            torch.use_deterministic_algorithms(was_on, warn_only=only_warned)


def reproducibility(device: torch.device | str) -> dict[str, Any]:
    """Return a record's entry: whether the numbers are reproducible bit for bit, or why not."""
    if torch.device(device).type == "cpu":
        n_threads = torch.get_num_threads()
        return {
            "bit_identical": n_threads == 1,
            "on": "CPUs of this type",
            "not_promised": [] if n_threads == 1 else [f"{n_threads} threads"],
        }
    reasons = list(_state["exceptions"]) if _state["on"] else ["kernels chosen for speed"]
    if _state["on"] and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (CUBLAS, ":16:8"):
        reasons.append(f"CUBLAS_WORKSPACE_CONFIG={os.environ['CUBLAS_WORKSPACE_CONFIG']}")
    return {
        "bit_identical": not reasons,
        "on": "GPUs of this type, with this version of torch",
        "not_promised": reasons,
    }


def limited_by_poison(own: dict[str, Any], poison: Any) -> dict[str, Any]:
    """Return a cell's entry, extended by the reasons why its poison is not reproducible."""
    if not isinstance(poison, dict) or poison.get("bit_identical", True):
        return own
    reasons = [f"its poison: {reason}" for reason in poison.get("not_promised", [])]
    return {**own, "bit_identical": False, "not_promised": [*own["not_promised"], *reasons]}


def n_irreproducible(cells: list[Cell], source: Store | Records) -> int:
    """Return how many computed cells may not be reproducible bit for bit."""
    records = map(Records.of(source).cell, cells)
    entries = [record.get("determinism", {}) for record in records if record is not None]
    return sum(not entry.get("bit_identical", False) for entry in entries)
