"""The global random generators, which no method may use or seed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

DRAW = "draw with generator=run.rng, device=run.device; numpy: seed it from run.rng"
"""How to fix a method that uses them."""


def reseeded(seed: int) -> tuple[Any, ...]:
    """Seed the global generators; return their states."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 a method might use it
    random.seed(seed)
    return states()


def states() -> tuple[Any, ...]:
    """Return the states of torch's and numpy's generators, in a form that can be compared.

    Python's own is left out, since checkers of shapes and types draw from it. If a method draws
    from it, two runs give different poisons.
    """
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), name, np.asarray(keys).tobytes(), rest


@contextlib.contextmanager
def restored_generators() -> Iterator[None]:
    """Restore the states of the global generators afterwards."""
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
        random.setstate(saved[2])
