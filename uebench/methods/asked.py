"""A method as somebody asked for it, as opposed to one that is resolved and can compute.

`Asked[Attack]` is what a spec such as `em[rounds=5]` describes: some of its options may still be
`auto`. `Asked.resolve` turns it into an `Attack`, all of whose options have the types that they are
declared with. Cells, the trainer and the tests of a method only ever hold the latter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..common.errors import MethodError
from ..common.options import open_options
from ..learn.protocol import times_as_many
from .base import Defense, Facts, Method, MethodInfo
from .faults import blamed

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Asked(Generic[M]):
    """A method whose options were checked, some of which may still be `auto`.

    Attributes:
        method: the author's object; its options may be words where their types say numbers, so call
            `resolve` before anything computes with it.
    """

    method: M

    @property
    def info(self) -> MethodInfo:
        """What the registry knows about the method."""
        return self.method.info

    @property
    def changed_text(self) -> str:
        """The options that differ from their defaults, as they would be typed."""
        return self.method.changed_text

    def options(self) -> dict[str, Any]:
        """Return every option with its value, which may still be `auto`."""
        return self.method.options()

    def __str__(self) -> str:
        return str(self.method)

    def resolve(self, facts: Facts) -> M:
        """Return the method with every option that depends on the cell turned into a value.

        A defense is told the epochs that it is trained for, which it may multiply.

        Raises:
            UserError: the method refuses these options, or this combination of them.
            MethodError: its `resolve` breaks, returns something else, or leaves an option open.
        """
        if isinstance(self.method, Defense):
            epochs = times_as_many(facts.epochs, self.method.times_epochs)
            facts = replace(facts, epochs=epochs)
        with blamed(self.method, "resolve"):
            resolved = self.method.resolve(facts)
        name = f"{self.info.kind} {self.info.name}"
        if type(resolved) is not type(self.method):
            raise MethodError(
                f"{name}: `resolve` returns a {type(resolved).__name__}; return self, or "
                "self.with_options(...)"
            )
        with blamed(self.method, "options"):
            options = resolved.options()
        still_open = open_options(options, type(resolved).model_fields)
        if still_open:
            words = ", ".join(f"{option}={word}" for option, word in still_open.items())
            raise MethodError(
                f"{name}: `resolve` leaves {words} open; return self.with_options(...) with values"
            )
        return resolved
