"""Promises of every method: it is documented, its options are sound, and it can be recorded."""

from __future__ import annotations

import inspect
import json
import math
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..common.options import metadata_of
from ..learn.protocol import PROTOCOLS
from ..methods.base import Attack, Defense, Method
from ..methods.registry import KINDS, build, find
from ..methods.victim import Victim
from ..store.store import key_of
from .data import case
from .promises import UnmetError, demand, promised_by
from .subject import Subject


@promised_by(*KINDS, remedy="see `uebench show` of another method for an example")
def documentation(subject: Subject, _: str) -> str:
    """The method, its source and each option are described."""
    cls, info = subject.cls, subject.cls.info
    decorator = f'@{subject.kind}("{info.name}", title="...", source="...")'
    demand(info.title.strip(), "it has no title", f"name it for tables: {decorator}")
    demand(
        _says_something(info.source),
        f"its source is {info.source!r}",
        f"name the source, such as arXiv:2101.04898 or `ours`: {decorator}",
    )
    demand(
        (cls.__dict__.get("__doc__") or "").strip(),
        f"the class {cls.__name__} has no docstring",
        "say in its first line what the method does",
    )
    module = inspect.getmodule(cls)
    demand(
        module is None or module.__name__ == "__main__" or (module.__doc__ or "").strip(),
        "its file has no docstring",
        "begin the file with what the method is, `Source: ...`, and where it departs from it",
    )
    for key, field in cls.model_fields.items():
        demand(
            (field.description or "").strip(),
            f"the option {key} is not described",
            f"write a docstring below the field {key}: what it is, and its unit",
        )
    return f"title, source and {len(cls.model_fields)} options are described"


def _says_something(source: str) -> bool:
    """Return whether a source is more than a placeholder."""
    return source.strip().lower().strip(".") not in ("", "todo", "tbd", "source", "xxx", "fixme")


@promised_by(*KINDS, remedy="give each option a type, a range and a default that fits both")
def options(subject: Subject, _: str) -> str:
    """Options have ranges, valid defaults, and survive a round trip through spec and record."""
    for key, field in subject.cls.model_fields.items():
        demand(
            not field.is_required(),
            f"the option {key} has no default",
            f"give {key} the value that its source uses",
        )
        lacking = _missing_bounds(field)
        demand(
            not lacking,
            f"the option {key} is a number without {lacking}",
            f"write {key}: Annotated[float, Field(gt=0, le=1)], with the range that makes sense",
        )
    defaults = {key: field.default for key, field in subject.cls.model_fields.items()}
    try:
        subject.cls.model_validate(defaults)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UnmetError(
            f"the default of {'.'.join(map(str, problem['loc']))} is not accepted: "
            f"{problem['msg']}",
            "choose a default within the option's own range",
        ) from None
    _comes_back(subject, subject.asked().method)
    return f"{len(defaults)} options"


def _missing_bounds(field: FieldInfo) -> str:
    """Return which bounds a numeric option lacks; nothing for other options."""
    types = [field.annotation, *get_args(field.annotation)]
    if not any(getattr(each, "__origin__", each) in (int, float) for each in types):
        return ""
    metadata = metadata_of(field)
    lacking = []
    if not any(isinstance(m, (Gt, Ge)) for m in metadata):
        lacking.append("a lower bound")
    if not any(isinstance(m, (Lt, Le)) for m in metadata):
        lacking.append("an upper bound")
    return " and ".join(lacking)


def _comes_back(subject: Subject, made: Method) -> None:
    """Check that a spec and a record give the same method back."""
    if subject.cls is find(subject.kind, subject.name):
        again = build(subject.kind, str(made))
        demand(
            again == made,
            f"the spec {made} gives another method back",
            "use options that are numbers, text, true or false, which a spec can hold",
        )
    recorded = json.loads(json.dumps(made.options()))
    demand(
        subject.cls.model_validate(recorded) == made,
        "options that went through JSON give another method back",
        "use options that are numbers, text, true or false, which a record can hold",
    )


@promised_by(*KINDS, remedy="return self.with_options(...) from `resolve`")
def resolving(subject: Subject, _: str) -> None:
    """Before anything runs, `auto` and the like become numbers, which enter the key."""
    dataset = case("two classes")
    resolved = subject.resolved(dataset)  # raises if an option stays open
    try:
        key = key_of(resolved.recipe())
    except (TypeError, ValueError) as error:
        raise UnmetError(
            f"`recipe` cannot be hashed ({error})",
            "return numbers, text, true or false, in lists and dicts with text keys",
        ) from None
    demand(
        key == key_of(subject.resolved(dataset).recipe()),
        "two equal methods have different recipes",
        "return from `recipe` what changes the numbers, and nothing random",
    )


@promised_by(
    *KINDS, remedy="keep the interface of uebench.Attack, uebench.Defense or uebench.Victim"
)
def interface(subject: Subject, _: str) -> None:
    """The parts that the suite calls exist and have the right types."""
    cls, resolved = subject.cls, subject.resolved(case("two classes"))
    demand(
        type(cls.version) is int and cls.version >= 1,
        f"version is {cls.version!r}",
        "write `version: ClassVar[int] = 1` and raise it when the numbers change",
    )
    if isinstance(resolved, Attack):
        demand(
            cls.craft is Attack.craft,  # type: ignore[attr-defined]
            "`craft` is overridden, and with it the audit of the budget",
            "write `perturb`, and `export` for another rounding",
        )
        _is_amount(resolved.image_passes(100), "image_passes", 0)
    elif isinstance(resolved, Defense):
        _is_amount(resolved.effort(), "effort", 1e-9)
    elif isinstance(resolved, Victim):
        _is_amount(resolved.effort(PROTOCOLS["quick"]), "effort", 1e-9)


def _is_amount(value: Any, what: str, least: float) -> None:
    """Check that a method's estimate of its own work is a number."""
    demand(
        isinstance(value, (int, float)) and math.isfinite(value) and value >= least,
        f"`{what}` returns {value!r}",
        f"return a number of at least {least:g}: `--dry-run` derives times from it",
    )
