"""The fields of a configuration as plain data, before they are checked: short forms and merging."""

from __future__ import annotations

from typing import Any

from ..common.errors import UserError

MERGED = ("set", "protocol_options")
"""Fields that hold names and values; a replacement changes single names and keeps the others."""
LOCAL = ("ratio", "classes")
"""Fields that, if only some parts set them, are replaced in those parts alone."""
WHOLE = ("title", "matrices", "under", "table")
"""Fields of the whole configuration that a part must not set."""


def spelled_out(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with each short form in its place, as it must be before they are merged.

    `epochs: 30` and `set: {protocol.lr: 0.1}` move to `protocol_options`, in the whole
    configuration, in its parts and in its rules.

    Raises:
        UserError: a field that must hold names and values does not, or the epochs are given twice.
    """
    _check_mappings(fields)
    result = _spelled_out(fields)
    if parts := fields.get("matrices"):
        result["matrices"] = [_spelled_out(part) for part in parts]
    if rules := fields.get("under"):
        result["under"] = {name: _spelled_out(rule) for name, rule in rules.items()}
    return result


def _spelled_out(fields: dict[str, Any]) -> dict[str, Any]:
    given = {str(name): value for name, value in (fields.get("set") or {}).items()}
    prefix = "protocol."
    short = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    protocol = {**(fields.get("protocol_options") or {}), **short}
    epochs = fields.get("epochs")
    if epochs is not None:
        if str(protocol.get("epochs", epochs)) != str(epochs):
            raise UserError(
                f"epochs is {epochs}, but the protocol's epochs are set to {protocol['epochs']}; "
                "give one of the two"
            )
        protocol["epochs"] = epochs
    result = {name: value for name, value in fields.items() if name != "epochs"}
    if short:
        result["set"] = {n: v for n, v in given.items() if not n.startswith(prefix)}
    return {**result, "protocol_options": protocol} if protocol else result


def _check_mappings(fields: dict[str, Any]) -> None:
    """Check that the fields which must hold names and values do so, before they are merged.

    Raises:
        UserError: one of them holds something else.
    """
    matrices, rules = fields.get("matrices") or [], fields.get("under") or {}
    if not isinstance(matrices, list) or not all(isinstance(part, dict) for part in matrices):
        raise UserError(
            f"matrices must be a list of parts such as [{{ratio: 0.5}}], got {matrices!r}"
        )
    if not isinstance(rules, dict) or not all(isinstance(rule, dict) for rule in rules.values()):
        raise UserError(
            f"under must map protocols to fields, such as {{quick: {{arch: resnet8}}}}, "
            f"got {rules!r}"
        )
    for source in (fields, *matrices, *rules.values()):
        for name in MERGED:
            value = source.get(name) or {}
            if not isinstance(value, dict):
                raise UserError(f"{name} must be names and values such as {{a: 1}}, got {value!r}")


def replace_field(fields: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return a configuration's fields with one of them replaced in the whole and in every part.

    If only some parts set the poisoned share or the poisoned classes, these parts are about them:
    the field is replaced there, and the other parts stay as they are.
    """
    if name in WHOLE:
        return {**fields, name: value}
    parts = [dict(part) for part in fields.get("matrices") or []]
    if name in MERGED:
        for part in parts:
            part[name] = {k: v for k, v in (part.get(name) or {}).items() if k not in value}
        merged = {**(fields.get(name) or {}), **value}
        return {**fields, name: merged, **({"matrices": parts} if parts else {})}
    own = [part for part in parts if name in part]
    for part in own:
        part[name] = value
    if name not in LOCAL or name in fields or not own:
        fields = {**fields, name: value}
    return {**fields, "matrices": parts} if parts else fields


def under_protocol(fields: dict[str, Any], protocol: str | None = None) -> dict[str, Any]:
    """Return the fields with the replacements under their protocol, or a given one, applied."""
    rules = fields.get("under") or {}
    fields = {key: value for key, value in fields.items() if key != "under"}
    chosen = rules.get(str(protocol or fields.get("protocol", "quick"))) or {}
    for name, value in chosen.items():
        fields = replace_field(fields, name, value)
    return fields
