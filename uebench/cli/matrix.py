"""The flags that describe a matrix, shared by `run` and `table`, and the fields they set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..common.errors import UserError
from .completion import complete, complete_list
from .shared import options_of

FIELDS = (
    "attacks",
    "defenses",
    "victims",
    "arch",
    "protocol",
    "seeds",
    "poison_seeds",
    "ratio",
    "classes",
)
"""Flags that set the field of a configuration with the same name."""
_PARAMETERS = {"json": "as_json"}
"""Parameters of a command that are not called what their flag is."""

set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME.OPTION=VALUE",
    help="An option of a method (em.rounds=5) or of the protocol (protocol.lr=0.05); may be "
    "repeated.",
)
protocol_option = click.option(
    "--protocol",
    metavar="NAME",
    shell_complete=complete("protocols"),
    help="Training protocol: sprint, paper or another of `uebench list protocols`; by default that "
    "of the configuration or table, else quick.",
)

matrix_options = options_of(
    click.option(
        "--attacks",
        metavar="LIST",
        shell_complete=complete_list("attacks"),
        help="Attacks, such as none,em[eps=16/255],lsp.",
    ),
    click.option(
        "--mix",
        multiple=True,
        metavar="ATTACK:SHARE,...",
        help="Several poisons in one training set, such as em:0.5,lsp:0.5; may be repeated.",
    ),
    click.option(
        "--defenses",
        metavar="LIST",
        shell_complete=complete_list("defenses"),
        help="Defenses, such as standard,ueraser,at.",
    ),
    click.option(
        "--victims",
        metavar="LIST",
        shell_complete=complete_list("victims"),
        help="Who trains the target models, such as supervised,simclr.",
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
    protocol_option,
    click.option(
        "--epochs", type=int, metavar="N", help="Number of training epochs of the target models."
    ),
    click.option("--seeds", metavar="LIST", help="Training seeds, such as 0,1,2 or 0-2."),
    click.option(
        "--poison-seeds", metavar="LIST", help="Seeds of the poisons, such as 0,1 or 0-1."
    ),
    click.option(
        "--ratio", metavar="LIST", help="Shares of poisoned training images, such as 0.5,1."
    ),
    click.option("--classes", metavar="LIST", help="Poisoned classes, by name or number."),
    click.option(
        "--craft-on",
        type=click.Choice(["all", "subset"]),
        help="Let attacks see all training images (the default) or only the poisoned ones.",
    ),
    set_option,
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
        if isinstance(how.get("detectors"), list):
            how["detectors"] = ",".join(map(str, how["detectors"]))
        context.default_map = {_PARAMETERS.get(name, name): value for name, value in how.items()}
    return config


def matrix_flags(options: dict[str, Any]) -> list[str]:
    """Return the matrix flags that were given, as a user types them."""
    given = [
        name
        for name in ("sets", *FIELDS, "mix", "craft_on", "dataset", "epochs")
        if options[name] not in (None, ())
    ]
    return [f"--{name.replace('_', '-')}" if name != "sets" else "--set" for name in given]


def matrix_fields(config: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration, some of them replaced by flags."""
    from ..cells.config import merged_fields

    given = {name: options.get(name) for name in (*FIELDS, "craft_on", "epochs")}
    given |= {name: list(options.get(name) or ()) or None for name in ("dataset", "mix")}
    given["set"] = dict(map(assignment, options["sets"])) or None
    return merged_fields(config, {n: value for n, value in given.items() if value is not None})


def assignment(text: str) -> tuple[str, str]:
    """Return the name and the value of a `--set NAME.OPTION=VALUE`.

    Raises:
        UserError: it has no such form.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text} must have the form NAME.OPTION=VALUE, such as em.rounds=5")
    return key, value
