"""Checkpoints save the state of a long loop, so that it can be resumed if its process is killed.

A checkpoint is an entry of the store and is read with the same checks as any other. It holds the
state of everything that the loop changes, the random generators, and facts such as a curve; on a
CPU the resumed loop gives the same result to the last bit. It belongs to one cell, poison or
network, to the versions of the suite and torch, and to the type of machine, and is removed when
that entry is finished. Saving takes less than a hundredth of the time: the longer it takes, the
less often it is done.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..common.errors import UserError
from ..common.provenance import machine
from ..common.version import __version__
from ..store.arrays import total_memory
from ..store.store import Store, StoreError, canonical, key_of

log = logging.getLogger(__name__)
INTERVAL = "UEBENCH_CHECKPOINT_S"
"""Environment variable: seconds between checkpoints; 0 saves after every step, `off` never."""
DEFAULT_INTERVAL_S = 60.0
COST = 0.01
"""Largest share of the time that goes into saving."""
MEMORY_SHARE = 8
"""A state that exceeds this fraction of the memory (1/8) is not saved, since saving copies it."""
KIND = "checkpoint"
CHECKPOINT_FORMAT = 2
"""Increase it when the way that a state is packed changes; older checkpoints are then ignored."""
MISFITS = (KeyError, ValueError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError)
"""What loading raises if the state in an entry belongs to another loop or is no state at all."""


@runtime_checkable
class Stateful(Protocol):
    """Something that a loop changes: a network, an optimizer, or any object with these methods."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Replace the state with a saved one."""


class Unfinished(NamedTuple):
    """The entry of the store that is being computed and that a checkpoint belongs to."""

    store: Store
    kind: str
    key: str
    device: str

    def owner(self) -> str:
        """Return the prefix of the keys of its checkpoints."""
        parts = {
            "kind": self.kind,
            "key": self.key,
            "suite": __version__,
            "torch": torch.__version__,
            # a loop that is resumed on another type of machine would round differently
            "machine": canonical(machine(self.device)),
            "format": CHECKPOINT_FORMAT,
        }
        return key_of(parts)[:40]

    def forget(self) -> None:
        """Remove its checkpoints, once the entry is finished."""
        for step in _steps(self.store, f"{self.owner()}-"):
            self.store.remove(KIND, step)


def interval() -> float | None:
    """Return the seconds between two checkpoints, or None for no checkpoints.

    Raises:
        UserError: the environment variable holds anything else.
    """
    text = os.environ.get(INTERVAL, "").strip().lower()
    if text == "off":
        return None
    try:
        seconds = float(text) if text else DEFAULT_INTERVAL_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(
            f"{INTERVAL} must be a number of seconds (0 or more) or off, got {text[:40]!r}; unset "
            f"it for the default of {DEFAULT_INTERVAL_S:g}"
        )
    return seconds


class Checkpoint:
    """The saved state of one loop; `Run.checkpoint` creates it.

    Attributes:
        facts: tensors and plain values that are saved and restored, such as a curve. A fact that is
            set before the loop is its initial value if nothing has been saved.
        resumed: number of steps that earlier processes have done; 0 if the loop starts afresh.
    """

    def __init__(
        self, target: Unfinished | None, name: str, rng: torch.Generator, parts: dict[str, Any]
    ) -> None:
        self.facts: dict[str, Any] = {}
        self.resumed = 0
        self._rng = rng
        self._parts = parts
        for part, value in parts.items():
            if not isinstance(value, (Tensor, Stateful)):
                raise TypeError(
                    f"{part} of the checkpoint {name!r} is a {type(value).__name__}; give tensors "
                    "or objects with state_dict and load_state_dict, and put plain values into "
                    "facts"
                )
        self._every_s = interval()
        self._target = target if self._every_s is not None else None
        if self._target is not None:
            self._prefix = f"{self._target.owner()}-{key_of({'name': name})[:16]}-"
            self._name = name
            self._resume(self._target.store)
        self._due = time.monotonic() + (self._every_s or 0.0)

    def steps(self, total: int) -> Iterator[int]:
        """Yield the steps that are still to be done, counted from 0, and save between them.

        A step counts as done when the loop asks for the next one.
        """
        for step in range(self.resumed, total):
            yield step
            if self._target is None:
                continue
            if step == self.resumed:
                for _ in tensors_in(self._state()):  # refuse a bad state now, not in an hour
                    pass
            if time.monotonic() >= self._due:
                self._save(self._target, step + 1)

    def _state(self) -> dict[str, Any]:
        """Return everything that the loop depends on."""
        state = {
            "parts": {
                name: part if isinstance(part, Tensor) else part.state_dict()
                for name, part in self._parts.items()
            },
            "facts": self.facts,
            "rng": self._rng.get_state(),
            "global_rng": torch.get_rng_state(),
        }
        if self._rng.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self._rng.device)
        return state

    def _save(self, target: Unfinished, step: int) -> None:
        """Save the state after `step` steps; if the disk is full, go on without checkpoints."""
        start = time.monotonic()
        state = self._state()
        if sum(tensor.nbytes for tensor in tensors_in(state)) > total_memory() / MEMORY_SHARE:
            log.warning(
                "not saving checkpoints of %s: its state needs more than 1/%d of the memory",
                self._name,
                MEMORY_SHARE,
            )
            self._target = None
            return
        record = {
            "what": f"{self._name}, step {step}",
            "leads_to": [target.kind, target.key],
            "step": step,
        }
        try:
            target.store.write(KIND, f"{self._prefix}{step:09d}", record, {"state": pack(state)})
            for older in _steps(target.store, self._prefix):
                if older < f"{self._prefix}{step:09d}":
                    target.store.remove(KIND, older)
        except StoreError as error:
            log.warning("not saving checkpoints of %s: %s", self._name, error)
            self._target = None
        now = time.monotonic()
        # wait so long that this much saving is at most COST of the time
        wait = max(self._every_s, (now - start) / COST) if self._every_s else 0.0
        self._due = now + wait

    def _resume(self, store: Store) -> None:
        """Restore the newest state that is intact."""
        for key in reversed(_steps(store, self._prefix)):
            entry = store.read(KIND, key)
            if entry is None:
                continue  # it is damaged, but an older one may be intact
            tensors, record = entry
            try:
                self._restore(unpack(tensors["state"]))
            except MISFITS as error:
                store.remove(KIND, key)
                # the parts may have been restored by half, so the loop cannot just start afresh
                raise RuntimeError(
                    f"the checkpoint of {self._name} does not fit ({type(error).__name__}) and was "
                    "removed; run the command again to start over"
                ) from error
            self.resumed = int(record["step"])
            return

    def _restore(self, state: dict[str, Any]) -> None:
        """Copy a saved state into the parts, the facts and the random generators."""
        for name, part in self._parts.items():
            value = state["parts"][name]
            if isinstance(part, Tensor):
                part.detach().copy_(value.view(part.shape))
            else:
                part.load_state_dict(value)
        self.facts = state["facts"]
        self._rng.set_state(state["rng"])
        torch.set_rng_state(state["global_rng"])
        if "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self._rng.device)


def tensors_in(state: Any) -> Iterator[Tensor]:
    """Yield the tensors in a nested state, and check that a checkpoint can hold all of it.

    Raises:
        TypeError: it holds anything but tensors, plain values, lists, tuples and dicts. Anything
            else could not be loaded without running code from the file.
    """
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from tensors_in(key)
            yield from tensors_in(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from tensors_in(value)
    elif state is not None and type(state) not in (bool, int, float, str):
        raise TypeError(f"a checkpoint cannot hold a {type(state).__name__}; convert it to numbers")


def pack(state: Any) -> Tensor:
    """Return a nested state as a uint8 tensor of bytes, which the store can keep and check.

    torch preserves strides and shared memory. That matters: weights in channels-last order must
    come back so, since other strides select other kernels, which round differently.

    Raises:
        TypeError: it holds something that a checkpoint cannot hold.
    """
    for _ in tensors_in(state):
        pass
    buffer = io.BytesIO()
    # on the CPU, so that a machine without this GPU can read it
    torch.save(tree_map(_on_cpu, state), buffer)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _on_cpu(leaf: Any) -> Any:
    return leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf


def unpack(packed: Tensor) -> Any:
    """Return the state that was packed; its tensors are on the CPU.

    `weights_only` loads plain values and tensors only, so a forged entry cannot run code.
    """
    return torch.load(io.BytesIO(packed.numpy().data), map_location="cpu", weights_only=True)


def _steps(store: Store, prefix: str) -> list[str]:
    """Return the keys of checkpoints that begin with a prefix, in order."""
    try:
        names = [path.name for path in (store.base / KIND).iterdir()]
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(prefix))
