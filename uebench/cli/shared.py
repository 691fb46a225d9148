"""What the verbs of the command line share: clear errors, and options that many of them have."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..common.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from ..report.compare import Meaning

C = TypeVar("C", bound=Callable[..., Any])


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Say on a terminal that what is slow to load is loading; the line goes when it is there."""
    shown = sys.stderr.isatty()
    if shown:
        click.echo("starting: loading torch ...", err=True, nl=False)
    try:
        yield
    finally:
        if shown:
            click.echo("\r\033[K", err=True, nl=False)


def _plugins(_: click.Context, __: click.Parameter, files: tuple[str, ...]) -> None:
    """Load the files given by --plugin."""
    if files:
        from ..methods.registry import load_file

        for file in files:
            load_file(Path(file))


plugin_option = click.option(
    "--plugin",
    multiple=True,
    metavar="FILE",
    callback=_plugins,
    expose_value=False,
    is_eager=True,
    help="Load methods from a Python file; may be repeated.",
)


def data_options(command: C) -> C:
    """Add the options that say where data comes from and what computes."""
    for option in (
        click.option("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, cuda:0."),
        click.option("--data-dir", metavar="DIR", help="Where torchvision's data sets lie."),
        click.option("--download", is_flag=True, help="Fetch a data set that is missing."),
    ):
        command = option(command)
    return command


def stdout_console() -> Console:
    """Return where text for readers goes: as wide as the terminal, or wide off one.

    Colours are for terminals alone, and not there where NO_COLOR is set.
    """
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def print_rich(renderable: Any) -> None:
    """Print to stdout: as wide as the terminal, or as wide as it needs off one."""
    stdout_console().print(renderable)


def known_titles() -> dict[str, str]:
    """Return how every known method is called in tables."""
    from ..methods.registry import KINDS, methods

    return {name: cls.info.title for kind in KINDS for name, cls in methods(kind).items()}


def known_meanings() -> dict[str, Meaning]:
    """Return what the options of every known method mean for a comparison with published numbers.

    Usual values are the declared defaults, and the budget that `auto` means on CIFAR-10: papers
    print it even where it is the one that everybody takes.
    """
    from ..common.options import option_of
    from ..common.spec import format_options
    from ..methods.asked import Asked
    from ..methods.base import Facts
    from ..methods.registry import KINDS, methods
    from ..report.compare import Meaning

    facts = Facts("cifar10", 10, (3, 32, 32), 200, "resnet18")
    meanings = {}
    for cls in (cls for kind in KINDS for cls in methods(kind).values()):
        fields = cls.model_fields
        usual = {name: info.default for name, info in fields.items()}
        if usual.get("eps") == "auto":
            with contextlib.suppress(ValueError):  # a plug-in that breaks has no usual budget
                usual["eps"] = Asked(cls()).resolve(facts).options()["eps"]
        meanings[cls.info.name] = Meaning(
            frozenset(name for name, info in fields.items() if option_of(info).variant),
            frozenset(format_options({name: value}) for name, value in usual.items()),
        )
    return meanings


def writable(folder: str | Path) -> Path:
    """Return a folder that can be written, or made.

    Raises:
        ValueError: it cannot.
    """
    folder = Path(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{folder} cannot be written; give --out a folder that can")
    return folder
