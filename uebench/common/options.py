"""Check the fields of a pydantic model, and say in words what is wrong with all of them at once.

Methods, protocols, executors, networks and configurations are described by typed fields. This
module is the only place that turns pydantic's errors and types into sentences, so that every bad
option reads the same: `eps must be a number in (0, 1], got 8; divide by 255`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from .errors import UserError
from .spec import Fraction255, did_you_mean, format_value

_Model = TypeVar("_Model", bound=BaseModel)
_PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BEYOND_THE_TYPE = ("value_error", "assertion_error", "string_pattern_mismatch", "too_short")
"""Pydantic's errors about more than type and range; its own message explains those better."""


@dataclass(frozen=True)
class Auto:
    """Let an option also be a word, such as `auto`, until the method is resolved.

    The field keeps the type that it has once the method is resolved, so that a method's code needs
    neither casts nor checks:

        step: Annotated[Fraction255, Field(gt=0, le=1), Auto()] = auto()

    Attributes:
        words: the words that `resolve` replaces by a value.
    """

    words: tuple[str, ...] = ("auto",)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Accept what the type accepts, or one of the words."""
        return core_schema.union_schema(
            [handler(source), core_schema.literal_schema(list(self.words))]
        )


@dataclass(frozen=True)
class Option:
    """What an option means outside its method, so that nothing else has to know its name.

        rounds: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 100

    Attributes:
        quick: a value that makes tests of the method quick; taken where the default is larger.
        variant: whether another value still means the same method, with another effort or in
            another variant: results are then compared with those published for the method.
        later: whether the option was added when results were stored already. Keys leave out its
            default, which must mean what the method did before, so that those results stay known.
    """

    quick: int | None = None
    variant: bool = False
    later: bool = False


def option_of(info: FieldInfo) -> Option:
    """Return what a field says about itself as an option."""
    return next((mark for mark in info.metadata if isinstance(mark, Option)), Option())


def auto(word: str = "auto") -> Any:
    """Return the default of a field that is marked with `Auto`, whatever the field's type is."""
    return word


def open_options(values: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Return the options that are still one of the words of their `Auto`, or the text "auto"."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str)
        and value in {"auto", *(_words(fields[name]) if name in fields else ())}
    }


def _words(info: FieldInfo) -> list[str]:
    return [word for mark in info.metadata if isinstance(mark, Auto) for word in mark.words]


def validated(
    model: type[_Model],
    values: Mapping[str, Any],
    *,
    owner: str = "",
    noun: str = "option",
    error: type[UserError] = UserError,
) -> _Model:
    """Return the model with these values.

    Args:
        model: the pydantic class whose fields describe what is accepted.
        values: the fields' names and values.
        owner: what the message begins with, such as the name of the method; may be empty.
        noun: what one of the fields is called in the message.
        error: the class of the exception.

    Raises:
        UserError: unknown names or bad values, all of them, each with what is accepted.
    """
    try:
        return model.model_validate(values)
    except ValidationError as failure:
        text = _all_in_words(failure.errors(), model.model_fields, noun)
    raise error(f"{owner}: {text}" if owner else text)


def check_name(
    name: str,
    known: Collection[str],
    owner: str,
    noun: str = "option",
) -> None:
    """Refuse the name of an option or field that its owner does not have.

    Raises:
        UserError: with the nearest known name and all of them.
    """
    if name not in known:
        raise UserError(f"{owner}: {_no_such(name, known, noun)}")


def explain_value(error: ValidationError, name: str, annotation: Any) -> str:
    """Return what is wrong with the value of one option that has this annotated type."""
    return str(_explain_field(error.errors()[0], name, FieldInfo.from_annotation(annotation)))


def accepted(info: FieldInfo) -> str:
    """Return what a field accepts, in words: `a number in (0, 1]`, `one of linf, l2`."""
    words = _type_in_words(info.annotation)
    low, high = "", ""
    for limit in info.metadata:
        if isinstance(limit, Gt):
            low = f"({option_value(limit.gt, info)}"
        elif isinstance(limit, Ge):
            low = f"[{option_value(limit.ge, info)}"
        elif isinstance(limit, Lt):
            high = f"{option_value(limit.lt, info)})"
        elif isinstance(limit, Le):
            high = f"{option_value(limit.le, info)}]"
    if low or high:
        words += f" in {low or '(-inf'}, {high or 'inf)'}"
    return " or ".join([words, *_words(info)])


def option_value(value: Any, info: FieldInfo) -> str:
    """Return an option's value as text: a pixel budget as a fraction of 255, others as is shorter.

    0.2 happens to be 51/255, which nobody means by a number of seconds or a learning rate.
    """
    if isinstance(value, float) and not _is_fraction(info):
        return min(f"{value:.10g}", format_value(value), key=len)
    return format_value(value)


def option_texts(options: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> str:
    """Return options as they would be typed, such as `eps=16/255,lr=0.2`, in their own order.

    An option that is no field, such as one that a recipe adds, is written by its value alone.
    """
    return ",".join(
        f"{name}={option_value(value, fields[name]) if name in fields else format_value(value)}"
        for name, value in options.items()
    )


def _no_such(name: str, known: Collection[str], noun: str) -> str:
    has = f"it has {', '.join(known)}" if known else "it has none"
    return f"no {noun} {name}{did_you_mean(name, known)}; {has}"


def _all_in_words(problems: Iterable[Any], fields: Mapping[str, FieldInfo], noun: str) -> str:
    """Return pydantic's problems in words; values of a list that are bad alike share a sentence."""
    found: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        fault = _explain(problem, fields, noun)
        values = found.setdefault((fault.before, fault.after), [])
        if fault.value not in values:  # a union reports one problem for each alternative
            values.append(fault.value)
    return "; ".join(b + " and ".join(values) + a for (b, a), values in found.items())


class _Fault(NamedTuple):
    """A sentence about a bad value, in three pieces."""

    before: str
    value: str = ""
    after: str = ""

    def __str__(self) -> str:
        return "".join(self)


def _explain(problem: Any, fields: Mapping[str, FieldInfo], noun: str) -> _Fault:
    """Return one of pydantic's problems in words: the value, what is accepted, what to do."""
    path: list[str] = []
    info = None
    for part in problem["loc"]:
        if part in fields:
            info = fields[part]
            path.append(part)
            fields = _nested_fields(info)
        # all other parts are positions in a list, keys, or the alternatives of a union
    if problem["type"] == "extra_forbidden":  # the last part is a name that no field has
        owner = f"{'.'.join(path)}: " if path else ""
        return _Fault(f"{owner}{_no_such(str(problem['loc'][-1]), fields, noun)}")
    if info is None:
        return _Fault(_own_message(problem))
    return _explain_field(problem, ".".join(path), info)


def _explain_field(problem: Any, name: str, info: FieldInfo) -> _Fault:
    if problem["type"] == "missing":
        return _Fault(f"{name} has no default, so it must be given: {accepted(info)}")
    value = problem["input"]
    text = option_value(value, info) if isinstance(value, (int, float, str)) else repr(value)
    if problem["type"] == "too_short" and not value:
        return _Fault(f"{name} names nothing; give at least one, or leave {name} out")
    if problem["type"] in _BEYOND_THE_TYPE or _nested_fields(info):
        return _Fault(f"{name}={text[:60]}: {_own_message(problem)}")
    hint = "; divide by 255" if _is_budget(info) and _exceeds_one(value) else ""
    return _Fault(f"{name} must be {accepted(info)}, got ", text[:60], hint)


def _own_message(problem: Any) -> str:
    """Return pydantic's message as the rest of a sentence."""
    message = str(problem["msg"])
    if problem["type"] in ("value_error", "assertion_error"):  # a validator's own sentence
        return message.partition(", ")[2]
    return message[:1].lower() + message[1:]


def _nested_fields(info: FieldInfo) -> dict[str, FieldInfo]:
    """Return the fields of the nested model that a field may hold; empty if it holds none."""
    fields: dict[str, FieldInfo] = {}
    for choice in get_args(info.annotation) or (info.annotation,):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            fields |= choice.model_fields
    return fields


def metadata_of(info: FieldInfo) -> list[Any]:
    """Return what a field's annotation says about its values, and about the choices of a union."""
    metadata = list(info.metadata)
    for choice in get_args(info.annotation):
        for mark in getattr(choice, "__metadata__", ()):
            metadata += mark.metadata if isinstance(mark, FieldInfo) else [mark]
    return metadata


def _is_budget(info: FieldInfo) -> bool:
    """Return whether a field is a budget in the pixel range: a `Fraction255` of at most 1."""
    return _is_fraction(info) and any(
        isinstance(m, Le) and isinstance(m.le, (int, float)) and m.le <= 1
        for m in metadata_of(info)
    )


def _is_fraction(info: FieldInfo) -> bool:
    return get_args(Fraction255)[1] in metadata_of(info)


def _exceeds_one(value: Any) -> bool:
    """Return whether a value is a number above 1, as a budget in levels of 0..255 would be."""
    try:
        return float(value) > 1
    except (TypeError, ValueError):
        return False


def _type_in_words(annotation: Any) -> str:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        words = ", ".join(map(str, arguments))
        return f"one of {words}" if "," in words else words
    if hasattr(annotation, "__metadata__"):  # Annotated[...] inside a union or a list
        return accepted(FieldInfo.from_annotation(annotation))
    if origin is list:
        return f"a list of values, each {_type_in_words(arguments[0])}"
    if annotation is dict or origin is dict:
        return "names and values such as {a: 1}"
    if arguments:
        return " or ".join(_type_in_words(a) for a in arguments if a is not type(None))
    return getattr(annotation, "__name__", str(annotation))
