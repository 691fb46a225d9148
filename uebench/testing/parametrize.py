"""The promises as parameters of a pytest test: one named test per promise and case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..methods.base import Attack, Defense, Method
from ..methods.registry import Kind
from .conformance import hold, promised
from .promises import Promise
from .subject import Subject

if TYPE_CHECKING:
    import pytest


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
