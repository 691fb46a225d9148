"""Why a cell or a poison could not be computed: one sentence, and the traceback."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass

import torch

from ..common.errors import MethodError
from ..methods.registry import plugin_line
from ..store.arrays import RoomError
from ..store.store import FullError, StoreError


@dataclass(frozen=True)
class Failure:
    """Why a task failed."""

    error: str
    traceback: str = ""
    full: bool = False
    """Whether a disk was full. That is not the task's fault, and every other task would fail as
    well, so it ends the run."""
    names_method: bool = False
    """Whether `error` names the method whose fault it is, and needs no introduction in the cells
    that waited for a poison."""


def failure(error: BaseException) -> Failure:
    """Return an exception as one sentence and its traceback."""
    lines = "".join(traceback.format_exception(error))
    # a method that runs out of memory or space is not to blame: look at what it raised
    is_fault = isinstance(error, MethodError)
    cause = error.__cause__ if is_fault and error.__cause__ is not None else error
    text = " ".join(str(cause).split()) or "no message"
    sentence = f"{type(cause).__name__}: {text[:500]}"
    if is_full(error):
        if isinstance(cause, (StoreError, RoomError)):  # their messages say what to do
            return Failure(text, lines, full=True)
        return Failure(f"a disk is full ({sentence}); free some space on it", lines, full=True)
    if _is_memory(cause, text):
        return Failure(
            f"out of memory ({sentence[:200]}); lower --jobs or protocol.batch_size, or give each "
            "cell more memory with the executor's option memory_gb",
            lines,
        )
    if is_fault:
        return Failure(str(error), lines, names_method=True)
    place = plugin_line(error)
    return Failure(f"{sentence} ({place})" if place else sentence, lines)


def is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that a disk is full."""
    while error is not None:
        if isinstance(error, FullError):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_memory(error: BaseException, text: str) -> bool:
    """Return whether an error says that memory could not be allocated."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("can't allocate memory", "not enough memory")
    )
