"""Test a method against its promises: as outcomes, or as one test per promise and case."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from ..methods.base import Attack, Defense, Method
from ..methods.faults import files_of, in_words
from ..methods.registry import Kind
from ..methods.victim import Victim
from . import attacking, costs, defending, describing, training  # noqa: F401 they register promises
from .generators import restored_generators
from .promises import PROMISES, Promise, UnmetError
from .subject import Subject

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Outcome:
    """The outcome of one promise on one of its cases.

    Attributes:
        promise: its name.
        text: what is promised.
        case: the data set, if there are several.
        status: `passed` or `failed`.
        measured: what was measured, or what is wrong.
        remedy: how to fix it.
        seconds: how long the test took.
    """

    promise: str
    text: str
    case: str
    status: Literal["passed", "failed"]
    measured: str
    remedy: str
    seconds: float


def promised(kind: Kind, costly: bool = True) -> list[tuple[Promise, str]]:
    """Return the promises of one kind of methods, each with each of its cases."""
    # quick promises of every method come first, costly ones last
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
    """Yield the outcome of each promise as it is tested.

    Args:
        kind: attack, defense or victim.
        method: a spec such as `em[eps=16/255]`, or a class.
        full: test an attack at its defaults instead of with few steps and rounds.
        costly: also test large images, time and memory.

    Raises:
        UserError: there is no such method, or its options are bad.
    """
    subject = Subject.of(kind, method, full)
    for each, case in promised(kind, costly):
        yield outcome_of(subject, each, case)


def outcome_of(subject: Subject, each: Promise, case: str) -> Outcome:
    """Return the outcome of one promise on one case; whatever the method raises is a failure."""
    start = time.perf_counter()
    status: Literal["passed", "failed"] = "passed"
    remedy = ""
    try:
        finding = hold(subject, each, case)
    except UnmetError as unmet:
        status, finding, remedy = "failed", unmet.what, unmet.remedy
    seconds = time.perf_counter() - start
    return Outcome(each.name, each.text, case, status, finding, remedy, seconds)


def hold(subject: Subject, each: Promise, case: str) -> str:
    """Test one promise on one case and return what was measured.

    Raises:
        UnmetError: the promise is not kept, or the method raises.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same bits need one thread, and two are slower on busy cores
    try:
        with restored_generators():
            return each.body(subject, case) or ""
    except UnmetError:
        raise
    except Exception as error:
        raise UnmetError(in_words(error, files_of(subject.cls)), each.remedy) from error
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class ConformanceTest:
    """One promise of one method on one case; call it to test it."""

    kind: Kind
    method: str | type[Method]
    promise: Promise
    case: str
    full: bool

    def __call__(self) -> None:
        """Test it.

        Raises:
            UnmetError: the promise is not kept, with how to fix it.
        """
        hold(Subject.of(self.kind, self.method, self.full), self.promise, self.case)

    def __str__(self) -> str:
        called = self.method if isinstance(self.method, str) else self.method.info.name
        return "-".join(filter(None, (called, self.promise.name, self.case)))


def attack_conformance(
    *attacks: str | type[Attack], full: bool = False, costly: bool = False
) -> pytest.MarkDecorator:
    """Return a decorator that runs a test once per promise, passed as its argument `check`.

    ```python
    @attack_conformance("my_attack")
    def test_it_conforms(check):
        check()
    ```

    Args:
        *attacks: names, specs such as `em[eps=16/255]`, or classes.
        full: test at the defaults instead of with few steps and rounds.
        costly: also test large images, time and memory, as `uebench check` does.
    """
    return _marked("attack", attacks, full, costly)


def defense_conformance(
    *defenses: str | type[Defense], costly: bool = False
) -> pytest.MarkDecorator:
    """Return a decorator that runs a test once per promise, passed as its argument `check`.

    See `attack_conformance`.
    """
    return _marked("defense", defenses, False, costly)


def victim_conformance(*victims: str | type[Victim], costly: bool = False) -> pytest.MarkDecorator:
    """Return a decorator that runs a test once per promise, passed as its argument `check`.

    See `attack_conformance`.
    """
    return _marked("victim", victims, False, costly)


def _marked(
    kind: Kind, methods: tuple[str | type[Method], ...], full: bool, costly: bool
) -> pytest.MarkDecorator:
    """Return the parameters of a test, one per promise and case of each method."""
    import pytest

    if not methods:
        raise ValueError(f"{kind}_conformance needs a method; give its name or class")
    tests = [
        ConformanceTest(kind, method, each, case, full)
        for method in methods
        for each, case in promised(kind, costly)
    ]
    return pytest.mark.parametrize("check", tests, ids=str)
