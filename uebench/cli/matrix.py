"""The flags that describe a matrix, shared by `run` and `table`, and the fields they set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..common.errors import UserError
from .completion import complete, complete_list
from .shared import options_of

FIELDS = ("attacks", "defenses", "arch", "protocol", "seeds", "poison_seeds", "ratio", "classes")
"""Flags that set the field of a configuration with the same name."""
OWN = ("attacks", "defenses", "dataset", "arch", "protocol")
"""Flags that, without a configuration, start a matrix of the user's own from true defaults."""
_PARAMETERS = {"json": "as_json"}
"""Parameters of a command that are not called what their flag is."""

matrix_options = options_of(
    click.option(
        "--attacks",
        metavar="LIST",
        shell_complete=complete_list("attacks"),
        help="Attacks, such as none,em[eps=16/255],lsp.",
    ),
    click.option(
        "--defenses",
        metavar="LIST",
        shell_complete=complete_list("defenses"),
        help="Defenses, such as standard,ueraser,at.",
    ),
    click.option(
        "--dataset",
        multiple=True,
        metavar="NAME",
        shell_complete=complete("datasets"),
        help="Data set, such as cifar10 or npz:FILE; may be repeated.",
    ),
    click.option(
        "--arch",
        metavar="LIST",
        shell_complete=complete_list("models"),
        help="Target networks, such as resnet9[width=8],resnet18.",
    ),
    click.option(
        "--protocol",
        metavar="NAME",
        shell_complete=complete("protocols"),
        help="Training protocol: quick, sprint, paper or transfer.",
    ),
    click.option(
        "--epochs", type=int, metavar="N", help="Number of training epochs of the target models."
    ),
    click.option("--seeds", metavar="LIST", help="Training seeds, such as 0,1,2."),
    click.option("--poison-seeds", metavar="LIST", help="Seeds of the poisons, such as 0,1."),
    click.option(
        "--ratio", metavar="LIST", help="Shares of poisoned training images, such as 0.5,1."
    ),
    click.option("--classes", metavar="LIST", help="Poisoned classes, by name or number."),
    click.option(
        "--craft-on",
        type=click.Choice(["all", "subset"]),
        help="Let attacks see all training images (the default) or only the poisoned ones.",
    ),
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="NAME.OPTION=VALUE",
        help="An option of a method (em.rounds=5) or of the protocol (protocol.lr=0.05).",
    ),
)


def take_flags_from_config(context: click.Context, _: click.Parameter, config: Any) -> Any:
    """Make the flags that a YAML file sets the defaults of the command's own flags.

    A callback of the argument that names the file, or of one that takes several names. The argument
    must be eager, so that it is handled before the flags.
    """
    names: tuple[str, ...] = (config,) if isinstance(config, str) else config or ()
    if len(names) == 1 and Path(names[0]).suffix in (".yaml", ".yml"):
        from ..cells.config import read_how

        how = read_how(names[0])
        for name in ("plugin", "reuse"):
            if isinstance(how.get(name), str):
                how[name] = [how[name]]
        context.default_map = {_PARAMETERS.get(name, name): value for name, value in how.items()}
    return config


def matrix_flags(options: dict[str, Any]) -> list[str]:
    """Return the matrix flags that were given, as a user types them."""
    given = [
        name
        for name in ("sets", *FIELDS, "craft_on", "dataset", "epochs")
        if options[name] not in (None, ())
    ]
    return [f"--{name.replace('_', '-')}" if name != "sets" else "--set" for name in given]


def matrix_fields(config: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration, some of them replaced by flags."""
    from ..cells.config import read_config, replace_field, spelled_out, under_protocol

    own = any(options[name] for name in OWN)
    # A user who names a part of the matrix expects true defaults, not the small matrix of `quick`.
    fields = {} if config is None and own else read_config(config or "quick")
    fields = under_protocol(spelled_out(fields), options["protocol"])
    flags = {name: options[name] for name in (*FIELDS, "craft_on") if options[name] is not None}
    if options["dataset"]:
        flags["dataset"] = list(options["dataset"])
    for name, value in flags.items():
        fields = replace_field(fields, name, value)
    if options["attacks"] is not None or options["defenses"] is not None:
        fields = _without_absent_methods(fields)
    return _with_sets(fields, options["sets"], options["epochs"])


def _with_sets(fields: dict[str, Any], sets: tuple[str, ...], epochs: int | None) -> dict[str, Any]:
    from ..cells.config import MERGED, replace_field, spelled_out

    options: dict[str, str] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(
                f"--set {text} must have the form NAME.OPTION=VALUE, such as em.rounds=5"
            )
        options[key] = value
    flags = spelled_out({"set": options, "epochs": epochs})
    for name in MERGED:
        fields = replace_field(fields, name, flags.get(name, {}))
    return fields


def _without_absent_methods(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields without the options of methods that are no longer in the matrix.

    The configuration sets them; that flags then remove the method is not the user's mistake.
    """
    from ..cells.config import make_config, method_names

    unset = [{**part, "set": {}} for part in fields.get("matrices") or []]
    present = method_names(
        make_config({**fields, "set": {}, "protocol_options": {}, "matrices": unset})
    )

    def known(values: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in values.items() if str(k).partition(".")[0] in present}

    matrices = [
        {**part, "set": known(part.get("set") or {})} for part in fields.get("matrices") or []
    ]
    return {**fields, "set": known(fields.get("set") or {}), "matrices": matrices}
