"""Options and output that several verbs share."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..common.drafts import refuse_file_name
from ..common.errors import UserError
from ..common.text import one_line, plain_text, stdout_console

C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Folder of torchvision's data sets."
)
device_option = click.option(
    "--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or a GPU such as cuda:0."
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Show on a terminal that torch is being loaded, and clear the line afterwards."""
    on_terminal = sys.stderr.isatty()
    if on_terminal:
        click.echo("starting: loading torch ...", err=True, nl=False)
    try:
        yield
    finally:
        if on_terminal:
            click.echo("\r\033[K", err=True, nl=False)


def _load_plugins(_: click.Context, __: click.Parameter, files: tuple[str, ...]) -> None:
    if files:
        from ..methods.registry import load_file

        for file in files:
            load_file(Path(file))


plugin_option = click.option(
    "--plugin",
    multiple=True,
    metavar="FILE",
    callback=_load_plugins,
    expose_value=False,
    is_eager=True,
    help="Load methods from a Python file; may be repeated.",
)


def options_of(*options: Callable[[Any], Any]) -> Callable[[C], C]:
    """Return a decorator that adds options to a verb; its help lists them in this order."""

    def add(command: C) -> C:
        for option in reversed(options):
            command = option(command)
        return command

    return add


metric_options = options_of(
    click.option(
        "--metric",
        type=click.Choice(("last", "best", "robust", "gap")),
        help="Test accuracy after the last epoch (the default) or of the best one, accuracy under "
        "PGD-20, or training minus test accuracy.",
    ),
    click.option("--best", is_flag=True, help="Short for --metric best."),
)


data_options = options_of(
    device_option,
    data_dir_option,
    click.option("--download", is_flag=True, help="Download a missing data set."),
)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], summary: str) -> None:
    """Print a table whose texts are never read as markup, and a line below it."""
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    if rows:
        table = Table(box=None, pad_edge=False)
        for head in heads:
            right = head in ("size", "entries", "age")
            table.add_column(head, justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        console.print(table)
    console.print(Text(one_line(summary)), soft_wrap=True)


def output(content: T, as_json: bool, print_text: Callable[[T], object]) -> None:
    """Print data as JSON if that was asked for, else in words."""
    if as_json:
        click.echo(json.dumps(content, indent=1))
    else:
        print_text(content)


def echo(text: object, err: bool = False) -> None:
    """Print a line with names from disk, without anything in them that a terminal would obey."""
    click.echo(plain_text(str(text)), err=err)


def writable(folder: str | Path) -> Path:
    """Return a folder that exists or can be created, and can be written.

    Raises:
        UserError: it cannot, or has the name of a file.
    """
    folder = Path(folder)
    refuse_file_name(folder)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"{folder} cannot be written; give another folder with --out")
    return folder
