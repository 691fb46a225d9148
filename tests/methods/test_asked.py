"""A method as asked becomes a resolved one, or its author is told what is wrong with `resolve`."""

from typing import Annotated, Any

import pytest
from pydantic import Field

from uebench import Attack, Auto, Facts, Fraction255, UserError, attack, auto
from uebench.common.errors import MethodError
from uebench.methods.registry import build_attack

FACTS = Facts("test", 10, (3, 32, 32), 1, "resnet8")


class Stepping(Attack):
    """Steps."""

    step: Annotated[Fraction255, Field(gt=0, le=1), Auto()] = auto()
    """Length of a step."""

    def resolve(self, facts: Facts) -> Any:
        return self.fill_auto(step=self.eps / 10)


def named(cls: type[Attack]) -> str:
    name = cls.__name__.lower()
    attack(name, title="Test", source="a test")(cls)
    return name


def test_auto_is_filled_in_and_what_was_set_stays() -> None:
    name = named(Stepping)
    asked = build_attack(name)
    assert asked.options()["step"] == "auto"
    assert asked.resolve(FACTS).step == 8 / 255 / 10
    assert build_attack(f"{name}[step=2/255]").resolve(FACTS).step == 2 / 255
    with pytest.raises(UserError, match=r"step must be a number in \(0, 1\] or auto, got 2"):
        build_attack(f"{name}[step=2]")


def test_a_resolve_that_breaks_is_the_methods_fault() -> None:
    class Broken(Stepping):
        """Breaks."""

        def resolve(self, facts: Facts) -> Any:
            return {}["oops"]

    with pytest.raises(MethodError, match=r"broken failed in resolve: .*test_asked.py, line"):
        build_attack(named(Broken)).resolve(FACTS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda method: method, "`resolve` leaves step=auto open"),
        (lambda method: None, "`resolve` returns a NoneType"),
    ],
)
def test_a_resolve_that_leaves_something_open_is_refused(body: Any, message: str) -> None:
    class Open(Stepping):
        """Forgets something."""

        def resolve(self, facts: Facts) -> Any:
            return body(self)

    with pytest.raises(MethodError, match=message):
        build_attack(named(Open)).resolve(FACTS)


def test_a_refusal_of_options_is_no_fault() -> None:
    class Strict(Stepping):
        """Refuses."""

        def resolve(self, facts: Facts) -> Any:
            raise UserError("strict: choose another eps")

    with pytest.raises(UserError, match="choose another eps"):
        build_attack(named(Strict)).resolve(FACTS)
