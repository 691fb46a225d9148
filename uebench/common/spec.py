"""Specs: `em[eps=16/255,rounds=5]` read into a name and its options, and written back.

One grammar serves attacks, defenses, networks and data sets:

    spec    := name [ "[" option { "," option } "]" ]
    name    := snake_case | ("imported:" | "purified:" | "timm:") snake_case
    option  := key "=" value
    key     := snake_case | attack [ "." snake_case ]   (the latter in mixtures of attacks alone)

Names and keys are snake_case; `-` is read as `_`. Values stay text here: the method's own fields
say what type they are, so `8/255` becomes a number only where a number is asked for.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from .errors import UnknownNameError, UserError
from .text import comma_parts, escaped

_TAIL = re.compile(r"(?P<path>.*?)(?P<options>\[[^\[\]]*=[^\[\]]*\])?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_KEY = re.compile(r"(imported:)?[A-Za-z][A-Za-z0-9_-]{0,63}(\.[A-Za-z][A-Za-z0-9_-]{0,63})?")
IMPORTED = "imported:"
"""What the name of an imported poison begins with, where an attack is asked for."""
TIMM = "timm:"
"""What the name of a network of timm begins with, where a network is asked for."""
PURIFIED = "purified:"
"""The same for an imported purified training set, where a defense is asked for."""
MAX_SPEC = 2000
"""Longest spec that is read, in characters."""


class Spec(NamedTuple):
    """A name and its options as text."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return format_spec(self.name, self.options)


_FRACTION = re.compile(r"\s*([-+]?\d{1,15}(?:\.\d{1,15})?)\s*/\s*(\d{1,15}(?:\.\d{1,15})?)\s*")


def parse_number(value: Any) -> Any:
    """Return `a/b` as a float; anything else unchanged, for pydantic to judge.

    Raises:
        ValueError: the text looks like a fraction and is none.
    """
    if not isinstance(value, str) or "/" not in value:
        return value
    parts = _FRACTION.fullmatch(value)
    if parts is None or not float(parts[2]):
        raise UserError(f"{printable(value)!r} is not a fraction; write it like 8/255 or 1.6/255")
    return float(parts[1]) / float(parts[2])


def _budget(value: Any) -> Any:
    """Return a budget as a float if it is a number, so that infinity and NaN are refused here."""
    value = parse_number(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    if not math.isfinite(number):
        raise UserError(f"must be a finite number, got {value}")
    return number


Fraction255 = Annotated[float, BeforeValidator(_budget)]
"""A float in the pixel range [0, 1] that may be written as a fraction: 8/255."""


def parse_spec(text: str) -> Spec:
    """Return the name and options of a spec such as `em[eps=16/255,rounds=5]`.

    Raises:
        ValueError: the text does not follow the grammar; the message says how and what does.
    """
    text = text.strip()
    if len(text) > MAX_SPEC:
        raise UserError(f"a spec has at most {MAX_SPEC} characters, got {len(text)}")
    name, bracket, rest = text.partition("[")
    name = name.strip()
    if not _NAME.fullmatch(re.sub(f"^({IMPORTED}|{PURIFIED}|{TIMM})", "", name)):
        raise UserError(
            f"{shorten(text)} does not begin with a name; write it like em or em[eps=16/255]"
        )
    if bracket and not rest.endswith("]"):
        raise UserError(f"{shorten(text)} lacks its closing ]; write it like em[eps=16/255]")
    options: dict[str, Any] = {}
    for part in comma_parts(rest[:-1] if bracket else ""):
        key, equals, value = part.partition("=")
        key = normalise(key)
        if not equals or not _KEY.fullmatch(key) or not value.strip():
            raise UserError(
                f"{shorten(part)} in {shorten(text)} is not an option; write it like eps=16/255"
            )
        if key in options:
            raise UserError(f"{key} is given twice in {shorten(text)}; give it once")
        options[key] = value.strip()
    return Spec(normalise(name), options)


def split_path(text: str) -> tuple[str, str]:
    """Return a path, which may itself contain brackets, and the options in brackets at its end.

    The options keep their brackets, and are empty where there are none: `a[b]/c[n_train=5]` gives
    `a[b]/c` and `[n_train=5]`.
    """
    matched = _TAIL.fullmatch(text)
    assert matched is not None
    return matched["path"], matched["options"] or ""


def split_specs(text: str) -> list[str]:
    """Return the specs of a comma-separated list; commas inside brackets do not separate."""
    return [part for part in comma_parts(text) if part]


def normalise(name: str) -> str:
    """Return a name in snake_case: `-` is read as `_`."""
    return name.strip().replace("-", "_")


def format_value(value: Any) -> str:
    """Return an option's value as it would be typed; a float of whole 255ths as a fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        levels = value * 255
        if 0 < abs(levels) <= 255 and value != 1 and abs(levels - round(levels)) < 1e-9:
            return f"{round(levels)}/255"
        return f"{value:.10g}"
    return str(value)


def format_options(options: Mapping[str, Any]) -> str:
    """Return options as `eps=16/255,rounds=5`, in their own order."""
    return ",".join(f"{key}={format_value(value)}" for key, value in options.items())


def format_spec(name: str, options: Mapping[str, Any] | str) -> str:
    """Return `em[eps=16/255]`, or the bare name where there are no options."""
    text = options if isinstance(options, str) else format_options(options)
    return f"{name}[{text}]" if text else name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the nearest known name, or nothing."""
    spelled = {other.casefold(): other for other in known}
    name = name.casefold()
    near = difflib.get_close_matches(name, list(spelled), n=3, cutoff=0.6)
    # Of equally similar names, swapped letters are a likelier slip than wrong ones.
    ratios = {other: difflib.SequenceMatcher(None, other, name).ratio() for other in near}
    best = max(near, key=lambda other: (ratios[other], sorted(other) == sorted(name)), default="")
    return f" (did you mean {spelled[best]}?)" if best else ""


def unknown(
    kind: str, name: str, known: Iterable[str], *, spell_out: bool = True
) -> UnknownNameError:
    """Return the error for a name that nobody registered, with the nearest one.

    The known names follow, or the command that lists them.
    """
    known = sorted(known)
    rest = f"known: {', '.join(known)}" if spell_out else "`uebench list` prints all names"
    return UnknownNameError(f"unknown {kind} {shorten(name)}{did_you_mean(name, known)}; {rest}")


def printable(text: str) -> str:
    """Return at most 200 characters of a stranger's text, escaped as by `escaped`."""
    return escaped(text)[:200]


def shorten(text: str) -> str:
    """Return a printable quotation of at most 60 characters."""
    quoted = repr(text)
    return quoted if len(quoted) <= 60 else quoted[:57] + "..."
