"""A promise: one thing that every method must do, as a test that says how to fix what fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..methods.registry import Kind
from .subject import Subject

Body = Callable[[Subject, str], str | None]


class UnmetError(AssertionError):
    """A promise that a method does not keep, and how to fix it.

    Attributes:
        what: what was measured, or what is wrong.
        remedy: how to fix it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. To fix it: {remedy}")
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True)
class Promise:
    """One thing that every method of some kinds must do, tested on each of its cases.

    Attributes:
        name: one or two words.
        text: what is promised, as a sentence.
        kinds: the kinds of methods that it applies to.
        cases: names of data sets; `("",)` if there is no choice of data.
        remedy: how to fix the method if it raises.
        costly: the cases that take long, or measure time and memory.
        body: tests a subject on a case and returns what was measured, if anything, or raises.
    """

    name: str
    text: str
    kinds: tuple[Kind, ...]
    cases: tuple[str, ...]
    remedy: str
    costly: tuple[str, ...]
    body: Body


PROMISES: list[Promise] = []
"""All of them, in the order in which they are tested."""


def promised_by(
    *kinds: Kind, remedy: str, cases: tuple[str, ...] = ("",), costly: tuple[str, ...] = ()
) -> Callable[[Body], Body]:
    """Register a promise under its function's name, with the docstring's first line as its text."""

    def enter(body: Body) -> Body:
        name = body.__name__.rstrip("_").replace("_", " ")
        text = (body.__doc__ or "").partition("\n")[0]
        PROMISES.append(Promise(name, text, kinds, cases, remedy, costly, body))
        return body

    return enter


def demand(condition: object, what: str, remedy: str) -> None:
    """Raise `UnmetError` unless the condition holds."""
    if not condition:
        raise UnmetError(what, remedy)
