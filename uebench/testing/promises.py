"""A promise: one thing that every method must do, as a test that says how to mend what fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..methods.registry import Kind
from .subject import Subject

Body = Callable[[Subject, str], str]


class UnmetError(AssertionError):
    """What a method does not do that it must, and how to mend it.

    Attributes:
        what: what was found.
        mend: what to do about it.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}. To mend it: {mend}")
        self.what = what
        self.mend = mend


@dataclass(frozen=True)
class Promise:
    """One thing that every method of some kinds must do, tested on each of its cases.

    Attributes:
        name: a word or two.
        text: what is promised, a sentence.
        kinds: the kinds of methods that it binds.
        cases: data sets by name, or nothing in particular: `("",)`.
        mend: what to do where the method raises.
        costly: cases that take long, or measure time and memory.
        body: tests a subject on a case and returns what was measured, or raises.
    """

    name: str
    text: str
    kinds: tuple[Kind, ...]
    cases: tuple[str, ...]
    mend: str
    costly: tuple[str, ...]
    body: Body


PROMISES: list[Promise] = []
"""All of them, in the order in which they are tested."""


def promise(
    *kinds: Kind, mend: str, cases: tuple[str, ...] = ("",), costly: tuple[str, ...] = ()
) -> Callable[[Body], Body]:
    """Enter a test of a promise under its function's name and the first line of its docstring."""

    def enter(body: Body) -> Body:
        name = body.__name__.removesuffix("_").replace("_", " ")
        text = (body.__doc__ or "").partition("\n")[0]
        PROMISES.append(Promise(name, text, kinds, cases, mend, costly, body))
        return body

    return enter


def demand(truth: object, what: str, mend: str) -> None:
    """Raise `UnmetError` where something is not so."""
    if not truth:
        raise UnmetError(what, mend)
