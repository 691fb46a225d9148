"""The method under test: its class, its options, and the options that make its tests quick."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from pydantic import ValidationError

from ..common.options import option_of
from ..common.spec import format_options, parse_spec
from ..data import Dataset
from ..methods.asked import Asked
from ..methods.base import Attack, Defense, Method
from ..methods.registry import Kind, build, find
from ..methods.victim import Victim
from .data import facts_of


@dataclass(frozen=True)
class Subject:
    """A method under test.

    Attributes:
        kind: attack, defense or victim.
        cls: its class.
        given: options to test it with, as text or values.
        full: whether all other options stay at their defaults.
    """

    kind: Kind
    cls: type[Method]
    given: tuple[tuple[str, Any], ...] = ()
    full: bool = False

    @classmethod
    def of(cls, kind: Kind, method: str | type[Method], full: bool = False) -> Subject:
        """Return the subject that a spec or a class means.

        Raises:
            UnknownNameError: there is no such method; the message gives the nearest name.
            UserError: its options are bad.
        """
        if not isinstance(method, str):
            return cls(kind, method, (), full)
        name, options = parse_spec(method)
        build(kind, method)  # reports bad options in the usual words
        return cls(kind, find(kind, name), tuple(options.items()), full)

    @property
    def name(self) -> str:
        """Its name in specs."""
        return self.cls.info.name

    @cached_property
    def quick(self) -> dict[str, Any]:
        """The options that are below their defaults so that a test is quick."""
        if self.full:
            return {}
        quick: dict[str, Any] = {}
        for name, info in self.cls.model_fields.items():
            value = option_of(info).quick
            if value is None or name in dict(self.given):
                continue
            if isinstance(info.default, (int, float)) and info.default <= value:
                continue
            try:
                self.cls.model_validate(dict(self.given) | quick | {name: value})
            except ValidationError:
                continue
            quick[name] = value
        return quick

    @property
    def options_text(self) -> str:
        """The options that differ from its defaults in these tests."""
        return format_options(dict(self.given) | self.quick)

    def asked(self, **changes: Any) -> Asked[Method]:
        """Return the method with its options, of which some may still be `auto`."""
        return Asked(self.cls.model_validate(dict(self.given) | self.quick | changes))

    def resolved(self, dataset: Dataset, epochs: int = 4, **changes: Any) -> Method:
        """Return the method resolved for a data set."""
        return self.asked(**changes).resolve(facts_of(dataset, epochs))

    def attack(self, dataset: Dataset, **changes: Any) -> Attack:
        """Return the attack resolved for a data set."""
        return cast(Attack, self.resolved(dataset, **changes))

    def defense(self, dataset: Dataset, epochs: int = 4) -> Defense:
        """Return the defense resolved for a data set."""
        return cast(Defense, self.resolved(dataset, epochs))

    def victim(self, dataset: Dataset, epochs: int = 4) -> Victim:
        """Return the victim resolved for a data set."""
        return cast(Victim, self.resolved(dataset, epochs))
