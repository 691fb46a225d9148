"""Mixtures of attacks as text: `em:0.5,lsp:0.5` and `mix[em=0.5,lsp=0.5]`, checked and taken apart.

What a mixture is and how its images are made is in `methods/mixture.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from .errors import UserError
from .names import MIXTURE
from .options import explain_value
from .spec import format_spec, parse_spec, shorten, split_specs

_EXAMPLE = "mix[em=0.5,lsp=0.5]"
_Share = Annotated[float, Field(gt=0, le=1)]


def mixture_spec(text: str) -> str:
    """Return the spec of a mixture that is written as `em:0.5,lsp[norm=linf]:0.5`.

    Raises:
        UserError: an attack has no share.
    """
    options: list[str] = []
    for part in split_specs(text):
        spec, colon, share = part.rpartition(":")
        if not colon or not share.strip() or "]" in share:
            raise UserError(
                f"{shorten(part)} of the mixture has no share; write ATTACK:SHARE for each attack, "
                "such as em:0.5,lsp:0.5"
            )
        name, own = parse_spec(spec)
        options += [f"{name}={share}", *(f"{name}.{key}={value}" for key, value in own.items())]
    return format_spec(MIXTURE, ",".join(options))


def attacks_mixed(spec: str) -> list[str]:
    """Return the names of the attacks that the spec of a mixture mixes; of others none."""
    if spec.partition("[")[0].strip() != MIXTURE:
        return []
    return [name for name in parse_spec(spec).options if "." not in name]


def shares_and_options(
    options: Mapping[str, Any],
) -> dict[str, tuple[float, dict[str, Any]]]:
    """Return the share and the options of each attack of a mixture, by name and in order of name.

    Raises:
        UserError: they are no mixture; the message says what is wrong and what to do.
    """
    shares = {name: value for name, value in options.items() if "." not in name}
    for name in options:
        owner, dot, _ = name.partition(".")
        if dot and owner not in shares:
            raise UserError(f"{MIXTURE}: {name} is set, but {owner} has no share; add {owner}=0.5")
    for name in shares:
        if name in (MIXTURE, "none"):
            raise UserError(
                f"{MIXTURE}: {name} cannot be mixed in; images that no attack has a share of stay "
                f"clean, so name the other attacks, as in {_EXAMPLE}"
            )
    if len(shares) < 2:
        raise UserError(
            f"{MIXTURE} needs the shares of two or more attacks, as in {_EXAMPLE}; to poison a "
            "share of the images with one attack, use --ratio"
        )
    numbers = {name: _share(name, value) for name, value in shares.items()}
    if (total := sum(numbers.values())) > 1 + 1e-9:
        raise UserError(
            f"{MIXTURE}: the shares of {', '.join(numbers)} add up to {total:g}, which is "
            "more than 1 (all images); lower them"
        )
    return {
        name: (
            numbers[name],
            {k.removeprefix(f"{name}."): v for k, v in options.items() if k.startswith(f"{name}.")},
        )
        for name in sorted(numbers)
    }


def _share(name: str, value: Any) -> float:
    try:
        return TypeAdapter(_Share).validate_python(value)
    except ValidationError as error:
        raise UserError(
            f"{MIXTURE}: {explain_value(error, f'the share of {name}', _Share)}"
        ) from None
