"""The verbs that deal with poisons as files: craft, audit, import."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..common.errors import UserError
from .completion import complete
from .shared import data_options, plugin_option

if TYPE_CHECKING:
    from ..data import Dataset
    from ..data.poison import Poison

C = TypeVar("C", bound=Callable[..., Any])
picture_option = click.option(
    "--picture", metavar="FILE.png", help="Draw clean, perturbation and poisoned side by side."
)


def reading_options(command: C) -> C:
    """Add the options that say how a foreign file is to be read."""
    for option in (
        click.option(
            "--key", "--split", metavar="NAME", help="The array, if the file has several."
        ),
        click.option(
            "--rounding",
            type=click.Choice(["round", "truncate"]),
            default="round",
            show_default=True,
            help="How levels that are not whole become 8-bit.",
        ),
        click.option(
            "--scale",
            type=click.Choice(["auto", "unit", "levels"]),
            default="auto",
            show_default=True,
            help="Whether white is 1 or 255.",
        ),
        click.option(
            "--kind",
            type=click.Choice(["auto", "images", "deltas"]),
            default="auto",
            show_default=True,
            help="Poisoned images, or what is added to the clean ones.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("attack", shell_complete=complete("attacks"))
@click.option("--dataset", default="synthetic", metavar="NAME", show_default=True)
@click.option(
    "--out", metavar="FILE", help="FILE.npz, FILE.safetensors, or a folder for PNG files."
)
@picture_option
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--protocol", default="paper", show_default=True, help="Whose surrogate is taken.")
@data_options
@plugin_option
def craft(
    attack: str,
    dataset: str,
    out: str | None,
    picture: str | None,
    seed: int,
    protocol: str,
    device: str,
    data_dir: str | None,
    download: bool,
) -> None:
    """Craft a poison, such as `uebench craft lsp --out lsp.npz`, and print what was measured.

    \b
    uebench craft lsp --out lsp.npz
    uebench craft em[eps=16/255] --dataset cifar10 --picture em.png
    """  # noqa: D301
    from ..data import load_dataset
    from ..data.poison_files import check_target, write_poison
    from ..suite.single import craft as craft_poison

    if out is None and picture is None:
        raise UserError("craft writes nothing; give --out FILE.npz or --picture FILE.png")
    if out is not None:
        check_target(Path(out))
    _check_picture(picture)
    loaded = load_dataset(dataset, data_dir, download)
    poison = craft_poison(attack, loaded, seed=seed, protocol=protocol, device=device, quiet=False)
    if out is not None:
        write_poison(poison, Path(out), loaded)
    _draw(picture, poison, loaded, f"{attack} on {loaded.name}")
    click.echo(json.dumps({k: v for k, v in poison.meta.items() if k != "recipe"}, indent=1))
    click.echo(f"written: {', '.join(filter(None, (out, picture)))}", err=True)


@click.command()
@click.argument("poison", type=click.Path())
@click.option("--dataset", required=True, metavar="NAME", help="The clean data set.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@picture_option
@reading_options
@click.option("--data-dir", metavar="DIR", help="Where torchvision's data sets lie.")
def audit(
    poison: str,
    dataset: str,
    as_json: bool,
    picture: str | None,
    data_dir: str | None,
    **reading: Any,
) -> None:
    """Measure anybody's poison file against its clean data set: budgets, labels, order.

    \b
    uebench audit lsp.npz --dataset synthetic
    """  # noqa: D301
    from ..data import load_dataset
    from ..data.foreign import Reading, read_poison
    from ..data.poison_files import audit_poison, print_audit

    _check_picture(picture)
    loaded = load_dataset(dataset, data_dir)
    found, read = read_poison(Path(poison), loaded, Reading(**reading))
    told = {**read, **audit_poison(found, loaded)}
    _draw(picture, found, loaded, f"{Path(poison).name} on {loaded.name}")
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        print_audit(told)


@click.command("import")
@click.argument("path", type=click.Path())
@click.option("--dataset", required=True, metavar="NAME", help="The clean data set.")
@click.option("--name", required=True, metavar="NAME", help="It becomes the attack imported:NAME.")
@click.option("--replace", is_flag=True, help="Give a name other images than it has.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reading_options
@click.option("--data-dir", metavar="DIR", help="Where torchvision's data sets lie.")
def import_(
    path: str,
    dataset: str,
    name: str,
    replace: bool,
    as_json: bool,
    data_dir: str | None,
    **reading: Any,
) -> None:
    """Keep somebody else's poison as the attack imported:NAME, and print its audit.

    PATH is a folder or zip of <index>.png, .npy, .npz, .safetensors, .pt or a pickle of arrays;
    nothing in it is run.

    \b
    uebench import perturbation.pt --dataset cifar10 --name em_authors
    uebench run --dataset cifar10 --attacks imported:em_authors --defenses standard
    """  # noqa: D301
    from ..data import load_dataset
    from ..data.poison_files import print_audit
    from ..methods.imported import checked_name
    from ..suite.import_poison import import_poison

    called = checked_name(name)
    loaded = load_dataset(dataset, data_dir)
    poison = import_poison(path, loaded, called, replace=replace, **reading)
    hidden = ("recipe", "budget", "author_record")
    told = {"name": f"imported:{called}"}
    told |= {k: v for k, v in poison.meta.items() if k not in hidden}
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        print_audit(told)
    click.echo(f"use it as `uebench run --attacks imported:{called}`", err=True)


def _check_picture(picture: str | None) -> None:
    """See that a picture can be written where it is asked for."""
    from ..data.poison_files import check_target

    if picture is not None:
        if not picture.lower().endswith(".png"):
            raise UserError(f"--picture {picture} must end in .png; PNG is what is drawn")
        check_target(Path(picture), "--picture")


def _draw(picture: str | None, poison: Poison, dataset: Dataset, title: str) -> None:
    """Write the contact sheet of a poison, where one is asked for."""
    if picture is not None:
        from ..data.pictures import contact_sheet

        path = Path(picture)
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(poison, dataset, title).save(path)
