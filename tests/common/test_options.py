"""Fields of a model: all that is wrong with their values is said at once, in the same words."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from uebench.common.errors import UserError
from uebench.common.options import accepted, check_name, validated
from uebench.common.spec import Fraction255


class Inner(BaseModel):
    """A nested model."""

    model_config = ConfigDict(extra="forbid")

    rows: int = 1


class Example(BaseModel):
    """One field of each sort that the suite has."""

    model_config = ConfigDict(extra="forbid")

    eps: Annotated[Fraction255, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    rounds: Annotated[int, Field(ge=1)] = 1
    norm: Literal["linf", "l2"] = "linf"
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=10)]], Field(min_length=1)] = [0]
    places: dict[str, int] = {}
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    inner: Inner | None = None

    @field_validator("rounds")
    @classmethod
    def _even(cls, rounds: int) -> int:
        if rounds == 13:
            raise UserError("13 brings bad luck")
        return rounds


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"eps": 8}, "m: eps must be a number in (0, 1] or auto, got 8; divide by 255"),
        ({"rounds": 0}, "m: rounds must be a whole number in [1, inf), got 0"),
        ({"rounds": 13}, "m: rounds=13: 13 brings bad luck"),
        ({"norm": "l1"}, "m: norm must be one of linf, l2, got l1"),
        ({"seeds": [3, 10]}, "m: seeds must be a list of values, each a whole number in [0, 10)"),
        ({"seeds": ["a", 10]}, "each a whole number in [0, 10), got a and 10"),
        ({"seeds": []}, "m: seeds names nothing; give at least one, or leave seeds out"),
        ({"places": 3}, "m: places must be names and values such as {a: 1}, got 3"),
        ({"code": "A"}, "m: code=A: string should match pattern"),
        ({"inner": {"rows": "x"}}, "m: inner.rows must be a whole number, got x"),
        ({"inner": 3}, "m: inner=3: input should be a valid dictionary or instance of Inner"),
        ({"inner": {"row": 1}}, "m: inner: no option row (did you mean rows?); it has rows"),
        ({"round": 2}, "m: no option round (did you mean rounds?); it has eps, rounds, norm"),
        ({"norm": "l1", "rounds": 0}, "got 0; norm must be one of"),
    ],
)
def test_what_is_wrong_is_said_in_words(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        validated(Example, values, owner="m")
    assert sentence in str(raised.value)


def test_good_values_are_returned_and_every_field_is_described() -> None:
    assert validated(Example, {"eps": "8/255", "rounds": 3}).eps == 8 / 255
    words = {name: accepted(info) for name, info in Example.model_fields.items()}
    assert words["eps"] == "a number in (0, 1] or auto"
    assert words["norm"] == "one of linf, l2"


def test_a_name_that_the_owner_does_not_have_is_refused_with_the_nearest() -> None:
    check_name("width", ["width"], "net")
    with pytest.raises(UserError, match=r"^net: no field widht \(did you mean width\?\); it has"):
        check_name("widht", ["width"], "net", "field")
    with pytest.raises(UserError, match=r"^net: no option width; it has none$"):
        check_name("width", [], "net")


def test_only_a_pixel_budget_is_a_fraction_of_255() -> None:
    class Times(BaseModel):
        poll_s: Annotated[float, Field(ge=0.2)] = 5.0
        eps: Annotated[Fraction255, Field(ge=0.2)] = 0.4

    fields = Times.model_fields
    assert accepted(fields["poll_s"]) == "a number in [0.2, inf)"
    assert accepted(fields["eps"]) == "a number in [51/255, inf)"
    with pytest.raises(ValueError, match=r"poll_s must be a number in \[0.2, inf\), got 0.1"):
        validated(Times, {"poll_s": 0.1})


def test_an_option_without_a_default_must_be_given() -> None:
    class Needs(BaseModel):
        """A model with a required field."""

        count: Annotated[int, Field(ge=1)]

    with pytest.raises(UserError) as error:
        validated(Needs, {}, owner="needs")
    assert str(error.value).startswith("needs: count has no default, so it must be given: a whole")
