"""Checkpoints: where a long loop stands, so that a killed process goes on from there.

A checkpoint is an entry of the store, read with the same checks as any other. It holds the state of
what the loop changes, the generators, and facts such as a curve; on a CPU the loop then ends with
the bits that it would have ended with. It belongs to the cell, poison or network that is being
made, to the versions of suite and torch and to the type of machine, and goes when that is done.
Saving takes less than a hundredth of the time: the dearer it is, the rarer it is done.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.provenance import machine
from ..store.arrays import total_memory
from ..store.store import Store, StoreError, canonical, key_of

log = logging.getLogger(__name__)
INTERVAL = "UEBENCH_CHECKPOINT_S"
"""Environment variable: seconds between two checkpoints; 0 after every step, `off` for none."""
DEFAULT_INTERVAL_S = 60.0
COST = 0.01
"""Largest share of the time that goes into saving."""
MEMORY_SHARE = 8
"""A state larger than the memory divided by this is not kept: it is copied while it is written."""
KIND = "checkpoint"


@runtime_checkable
class Stateful(Protocol):
    """What a loop changes: a network, an optimizer, or anything with these two methods."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take over a state."""


class Target(NamedTuple):
    """What a checkpoint leads to: an entry of the store that is being made."""

    store: Store
    kind: str
    key: str
    device: str

    def owner(self) -> str:
        """Return what the keys of its checkpoints begin with."""
        from .. import __version__

        made = {"suite": __version__, "torch": torch.__version__}
        made["machine"] = canonical(machine(self.device))  # bits are promised on one type of it
        return key_of({"kind": self.kind, "key": self.key, **made})[:40]

    def forget(self) -> None:
        """Remove its checkpoints: it is done."""
        for step in _steps(self.store, f"{self.owner()}-"):
            self.store.remove(KIND, step)


def interval() -> float | None:
    """Return the seconds between two checkpoints, or None for no checkpoints.

    Raises:
        ValueError: the environment says something else.
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
            f"{INTERVAL} must be seconds from 0 on, or off, got {text[:40]!r}; leave it out for "
            f"{DEFAULT_INTERVAL_S:g}"
        )
    return seconds


class Checkpoint:
    """Where one loop stands; made by `Run.checkpoint`.

    Attributes:
        facts: tensors and plain values that are kept and come back, such as a curve. A fact that is
            set before the loop is what it starts from where nothing was kept.
        resumed: the steps that were done when this process began; 0 where it began anew.
    """

    def __init__(
        self, target: Target | None, name: str, rng: torch.Generator, parts: dict[str, Any]
    ) -> None:
        self.facts: dict[str, Any] = {}
        self.resumed = 0
        self._rng = rng
        self._parts = parts
        for part, value in parts.items():
            if not isinstance(value, (Tensor, Stateful)):
                raise TypeError(
                    f"{part} of the checkpoint {name!r} is a {type(value).__name__}; give tensors "
                    "or what has state_dict and load_state_dict, and put plain values into facts"
                )
        self._every_s = interval()
        self._target = target if self._every_s is not None else None
        if self._target is not None:
            self._prefix = f"{self._target.owner()}-{key_of({'name': name})[:16]}-"
            self._name = name
            self._resume(self._target.store)
        self._due = time.monotonic() + (self._every_s or 0.0)

    def steps(self, total: int) -> Iterator[int]:
        """Yield the steps that are still to be done, counted from 0, and save in between.

        When the loop asks for the next step, the last one is done.
        """
        for step in range(self.resumed, total):
            yield step
            if self._target is None:
                continue
            if step == self.resumed:
                self._state()  # a state that cannot be kept is told at once, not in an hour
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
        packed, tensors = pack(state)
        return {"packed": packed, "tensors": tensors}

    def _save(self, target: Target, step: int) -> None:
        """Save the state after so many steps; a full store ends the saving, not the work."""
        start = time.monotonic()
        state = self._state()
        if sum(t.nbytes for t in state["tensors"].values()) > total_memory() / MEMORY_SHARE:
            log.warning("no checkpoint of %s: it would take too much of the memory", self._name)
            self._target = None
            return
        record = {
            "what": f"{self._name}, step {step}",
            "leads_to": [target.kind, target.key],
            "step": step,
            "state": state["packed"],
        }
        try:
            target.store.write(KIND, f"{self._prefix}{step:09d}", record, state["tensors"])
            for older in _steps(target.store, self._prefix):
                if older < f"{self._prefix}{step:09d}":
                    target.store.remove(KIND, older)
        except StoreError as error:
            log.warning("no checkpoint of %s: %s", self._name, error)
            self._target = None
        now = time.monotonic()
        wait = max(self._every_s, (now - start) / COST) if self._every_s else 0.0
        self._due = now + wait

    def _resume(self, store: Store) -> None:
        """Take over the newest state that is whole."""
        for key in reversed(_steps(store, self._prefix)):
            found = store.read(KIND, key)
            if found is None:
                continue  # spoiled: an older one may be whole
            tensors, record = found
            try:
                self._take_over(unpack(record["state"], tensors))
            except (KeyError, ValueError, RuntimeError, TypeError, IndexError) as error:
                store.remove(KIND, key)
                raise RuntimeError(
                    f"the checkpoint of {self._name} does not fit ({type(error).__name__}) and was "
                    "removed; run the command again to begin anew"
                ) from error
            self.resumed = int(record["step"])
            return

    def _take_over(self, state: dict[str, Any]) -> None:
        """Put a state in its place."""
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


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a nested value as JSON with references, and the tensors that it refers to.

    Raises:
        TypeError: it holds something else than tensors, plain values, lists, tuples and dicts.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()

    def packed(value: Any) -> Any:
        if isinstance(value, Tensor):
            kept = value.detach().cpu()
            storage = kept.untyped_storage().data_ptr()
            if kept.numel() and storage in seen:  # views of one memory cannot be saved side by side
                kept = kept.clone()
            seen.add(storage)
            last = kept.dim() == 4 and not kept.is_contiguous()
            last = last and kept.is_contiguous(memory_format=torch.channels_last)
            name = f"t{len(tensors)}"
            tensors[name] = kept
            return {"tensor": name, "on": value.device.type, "channels_last": last}
        if isinstance(value, dict):
            return {"pairs": [[packed(k), packed(v)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [packed(each) for each in value]}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}; make it a number")

    return packed(value), tensors


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value that `pack` was given; its tensors lie on the CPU."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        found = tensors[value["tensor"]]
        if value["channels_last"]:  # other strides take other kernels, which round otherwise
            found = found.contiguous(memory_format=torch.channels_last)
        return found
    if "pairs" in value:
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value["pairs"]}
    if "float" in value:
        return float(value["float"])
    if "list" in value:
        return [unpack(each, tensors) for each in value["list"]]
    return tuple(unpack(each, tensors) for each in value["tuple"])


def _steps(store: Store, prefix: str) -> list[str]:
    """Return the keys of checkpoints that begin with a prefix, in order."""
    try:
        names = [path.name for path in (store.base / KIND).iterdir()]
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(prefix))
