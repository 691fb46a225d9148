"""Why a cell or a poison could not be computed: one sentence, and the traceback."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass

import torch

from ..methods.registry import plugin_line
from ..store.arrays import RoomError
from ..store.store import FullError, StoreError


@dataclass(frozen=True)
class Failure:
    """Why a task did not end well."""

    error: str
    traceback: str = ""
    full: bool = False
    """Whether there was no room on a disk: then it is not the task's fault, and no other task would
    fare better."""


def failure(error: BaseException) -> Failure:
    """Return an exception as one line and its traceback."""
    text = " ".join(str(error).split()) or "no message"
    told = f"{type(error).__name__}: {text[:500]}"
    if is_full(error):
        own = isinstance(error, (StoreError, RoomError))  # these say what to do
        told = text if own else f"a disk is full ({told}); free space there"
        return Failure(told, "".join(traceback.format_exception(error)), full=True)
    if _is_memory(error, text):
        told = (
            f"out of memory ({told[:200]}); lower --jobs or protocol.batch_size, or give a cell "
            "more with memory_gb of the executor"
        )
    elif where := plugin_line(error):
        told += f" ({where})"
    return Failure(told, "".join(traceback.format_exception(error)))


def is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised for, says that a disk is full."""
    while error is not None:
        if isinstance(error, FullError):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_memory(error: BaseException, text: str) -> bool:
    """Return whether a computation could not get memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("can't allocate memory", "not enough memory")
    )
