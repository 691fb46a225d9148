"""Whose fault an exception is: what a method's own code raises is reported with file and line."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

import torch

from ..common.errors import MethodError, UserError
from ..store.store import StoreError
from .base import Attack, Defense, Method
from .victim import Victim

NOBODYS_FAULT = (UserError, MethodError, StoreError, MemoryError, torch.OutOfMemoryError)
"""What passes through a method without being its fault: a refusal, the store, the memory."""


@contextlib.contextmanager
def blamed(method: Method, step: str) -> Iterator[None]:
    """Report whatever a method's own code raises as the method's fault, with file and line.

    A `UserError` passes: by it a method refuses options that do not go together.

    Args:
        method: whose code runs inside the context.
        step: what it does there, such as `resolve`.

    Raises:
        MethodError: the code raised anything else.
    """
    try:
        yield
    except NOBODYS_FAULT:
        raise
    except Exception as error:
        raise _fault(method, step, error, files_of(type(method))) from error


@contextlib.contextmanager
def blamed_for_its_code(method: Method) -> Iterator[None]:
    """Report an exception as the method's fault if the method's own code led to it.

    Use it around code of the suite that calls a method, such as a whole training: an exception in
    which no line of the method took part passes unchanged. The step that the message names is the
    outermost function of the method, such as `loss`.

    Raises:
        MethodError: the method's code led to anything but a refusal.
    """
    try:
        yield
    except NOBODYS_FAULT:
        raise
    except Exception as error:
        files = files_of(type(method))
        steps = [f.name for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
        if not steps:
            raise
        raise _fault(method, steps[0], error, files) from error


def _fault(method: Method, step: str, error: Exception, files: set[str]) -> MethodError:
    info = method.info
    return MethodError(f"{info.kind} {info.name} failed in {step}: {in_words(error, files)}")


def in_words(error: BaseException, files: Collection[str]) -> str:
    """Return an exception's type and message, with the last line of these files that led to it."""
    text = " ".join(str(error).split()) or "no message"
    where = last_line(error, files)
    return f"{type(error).__name__}: {text[:500]}" + (f" ({where})" if where else "")


def files_of(cls: type[Method]) -> set[str]:
    """Return the files, or the cells of a notebook, that a method's own code was read from."""
    base_classes = {*Attack.__mro__, *Defense.__mro__, *Victim.__mro__}
    functions = (
        getattr(each, "__wrapped__", each)
        for base in cls.__mro__
        if base not in base_classes
        for each in vars(base).values()
    )
    return {each.__code__.co_filename for each in functions if inspect.isfunction(each)}


def last_line(error: BaseException, files: Collection[str]) -> str:
    """Return the last line of these files that led to an error, `FILE, line N: CODE`, or ""."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    if not frames:
        return ""
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line}"
