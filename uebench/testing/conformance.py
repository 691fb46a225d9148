"""Hold a method to its promises and tell what came of it."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from ..methods.base import Method
from ..methods.faults import last_line
from ..methods.registry import Kind
from . import attacking, costs, defending, describing  # noqa: F401 they enter promises
from .generators import unchanged
from .promises import PROMISES, Promise, UnmetError
from .subject import Subject


@dataclass(frozen=True)
class Outcome:
    """What came of one promise on one of its cases.

    Attributes:
        promise: its name.
        text: what is promised.
        case: the data set, where there are several.
        status: `passed` or `failed`.
        found: what was measured, or what is wrong.
        mend: what to do about it.
        seconds: how long the test took.
    """

    promise: str
    text: str
    case: str
    status: Literal["passed", "failed"]
    found: str
    mend: str
    seconds: float


def promised(kind: Kind, costly: bool = True) -> list[tuple[Promise, str]]:
    """Return the promises of a kind of methods, each with each of its cases."""
    # what is quick and of every method first, what takes long last
    ordered = sorted(PROMISES, key=lambda each: (len(each.kinds) < 2, each.cases == each.costly))
    return [
        (each, case)
        for each in ordered
        if kind in each.kinds
        for case in each.cases
        if costly or case not in each.costly
    ]


def conform(
    kind: Kind, method: str | type[Method], *, full: bool = False, costly: bool = True
) -> Iterator[Outcome]:
    """Yield what comes of each promise as it is tested.

    Args:
        kind: attack or defense.
        method: a spec such as `em[eps=16/255]`, or a class.
        full: test an attack at its defaults, not with the fewest steps and rounds.
        costly: large images, time and memory too.

    Raises:
        KeyError, ValueError: no such method, or bad options.
    """
    subject = Subject.of(kind, method, full)
    for each, case in promised(kind, costly):
        yield outcome_of(subject, each, case)


def outcome_of(subject: Subject, each: Promise, case: str) -> Outcome:
    """Return what comes of one promise on one case; whatever the method raises is told."""
    start = time.perf_counter()
    status: Literal["passed", "failed"] = "passed"
    mend = ""
    try:
        found = hold(subject, each, case)
    except UnmetError as unmet:
        status, found, mend = "failed", unmet.what, unmet.mend
    seconds = time.perf_counter() - start
    return Outcome(each.name, each.text, case, status, found, mend, seconds)


def hold(subject: Subject, each: Promise, case: str) -> str:
    """Test one promise on one case and return what was measured.

    Raises:
        UnmetError: it is not kept; also from whatever the method raises.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one thread gives one number, and two on busy cores are slower
    try:
        with unchanged():
            return each.body(subject, case)
    except UnmetError:
        raise
    except Exception as error:
        raise UnmetError(_raised(error, subject), each.mend) from error
    finally:
        torch.set_num_threads(threads)


def _raised(error: Exception, subject: Subject) -> str:
    """Return an exception in a line, with the line of the method's own file that led to it."""
    told = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"[:400]
    with contextlib.suppress(TypeError, OSError):
        if where := last_line(error, [inspect.getfile(subject.cls)]):
            return f"{told} ({where})"
    return told
