"""The verbs that write and read poison files: craft, audit, import."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.drafts import replaced_file
from ..common.errors import UserError
from .completion import complete
from .matrix import assignment, protocol_option, set_option
from .shared import (
    data_dir_option,
    data_options,
    echo,
    json_option,
    options_of,
    output,
    plugin_option,
    quiet_option,
)

if TYPE_CHECKING:
    from ..data import Dataset
    from ..data.poison import Poison

picture_option = click.option(
    "--picture",
    metavar="FILE.png",
    help="Draw clean images, noise and poisoned images side by side.",
)


reading_options = options_of(
    click.option(
        "--kind",
        type=click.Choice(["auto", "images", "deltas"]),
        default="auto",
        help="Whether the file holds poisoned images or perturbations.",
    ),
    click.option(
        "--scale",
        type=click.Choice(["auto", "unit", "levels"]),
        default="auto",
        help="Value of white: 1 (unit) or 255 (levels).",
    ),
    click.option(
        "--rounding",
        type=click.Choice(["round", "truncate"]),
        default="round",
        help="How fractional pixel levels become 8-bit.",
    ),
    click.option(
        "--key", "--split", metavar="NAME", help="Name of the array, if the file has several."
    ),
)


@click.command("craft")
@click.argument("attack", shell_complete=complete("attacks"))
@click.option(
    "--dataset",
    default="synthetic",
    metavar="NAME",
    help="The clean data set.",
)
@click.option(
    "--out", metavar="FILE", help="FILE.npz, FILE.safetensors, or a folder for PNG files."
)
@picture_option
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    help="Seed of the poison.",
)
@protocol_option
@set_option
@json_option
@quiet_option
@data_options
@plugin_option
def craft_verb(
    attack: str,
    dataset: str,
    out: str | None,
    picture: str | None,
    seed: int,
    protocol: str | None,
    sets: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    device: str,
    data_dir: str | None,
    download: bool,
) -> None:
    """Craft a poison, save it and print its measurements.

    It is the poison that `uebench run` would craft under the same protocol, which chooses the
    network that the attack crafts with.

    \b
    uebench craft lsp --out lsp.npz
    uebench craft em[eps=16/255] --dataset cifar10 --picture em.png
    uebench craft em --protocol paper --set em.steps=10 --out em.npz
    """  # noqa: D301
    from ..data import load_dataset
    from ..data.poison_writing import check_target, write_poison
    from ..suite.single import craft as craft_poison

    if out is None and picture is None and not as_json:
        raise UserError(
            "craft has nothing to write; give --out FILE.npz or --picture FILE.png, or --json for "
            "the measurements alone"
        )
    if out is not None:
        check_target(Path(out))
    _check_picture(picture)
    loaded = load_dataset(dataset, data_dir, download)
    poison = craft_poison(
        attack,
        loaded,
        seed=seed,
        protocol=protocol or "quick",
        set=dict(map(assignment, sets)),
        device=device,
        quiet=quiet,
    )
    if out is not None:
        write_poison(poison, Path(out), loaded, dataset)
    _draw(picture, poison, loaded, f"{attack} on {loaded.name}")
    output({k: v for k, v in poison.meta.items() if k != "recipe"}, as_json, print_measured)
    if written := " and ".join(filter(None, (out, picture))):
        echo(f"wrote {written}", err=True)


@click.command("audit")
@click.argument("poison", type=click.Path())
@click.option("--dataset", required=True, metavar="NAME", help="The clean data set.")
@json_option
@picture_option
@reading_options
@data_dir_option
def audit_verb(
    poison: str,
    dataset: str,
    as_json: bool,
    picture: str | None,
    data_dir: str | None,
    **reading: Any,
) -> None:
    """Measure a poison file against its clean data set.

    It prints the norms of the perturbation, the usual budgets that it keeps, its visibility, the
    labels that differ and the order of the images. The file may be anybody's; nothing in it is run.
    If its labels are those of the data set in another order, the exit status is 1.

    \b
    uebench audit lsp.npz --dataset synthetic
    """  # noqa: D301
    from ..data import load_dataset
    from ..suite.look import read_and_audit

    _check_picture(picture)
    loaded = load_dataset(dataset, data_dir)
    poisoned, measured = read_and_audit(Path(poison), loaded, **reading)
    _draw(picture, poisoned, loaded, f"{Path(poison).name} on {loaded.name}")
    output(measured, as_json, print_measured)
    if not measured["usable"]:
        click.echo(f"{poison} is not usable: {measured['why_not_usable']}", err=True)
        sys.exit(1)


@click.command("import")
@click.argument("path", type=click.Path())
@click.option("--dataset", required=True, metavar="NAME", help="The clean data set.")
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    help="The attack will be called imported:NAME, a purified set purified:NAME.",
)
@click.option(
    "--purified",
    is_flag=True,
    help="PATH is a training set that somebody purified; register it as a defense.",
)
@click.option("--of", metavar="ATTACK", help="With --purified, the attack that was purified.")
@click.option("--by", metavar="METHOD", help="With --purified, what purified it, such as avatar.")
@click.option(
    "--poison-seed",
    type=click.IntRange(0, 2**31 - 1),
    help="With --purified, the seed of the attack; 0 by default.",
)
@click.option(
    "--protocol",
    help="With --purified, the protocol that trained the attack's surrogate; quick by default.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME.OPTION=VALUE",
    help="With --purified, an option that the attack was crafted with; may be repeated.",
)
@click.option(
    "--device", help="With --purified, the device that the attack was crafted for; auto by default."
)
@click.option("--replace", is_flag=True, help="Replace the images that NAME already has.")
@json_option
@reading_options
@data_dir_option
@plugin_option
def import_(
    path: str,
    dataset: str,
    name: str,
    purified: bool,
    of: str | None,
    by: str | None,
    poison_seed: int | None,
    protocol: str | None,
    sets: tuple[str, ...],
    device: str | None,
    replace: bool,
    as_json: bool,
    data_dir: str | None,
    **reading: Any,
) -> None:
    """Register a released poison file as the attack imported:NAME.

    With --purified, register a purified training set as the defense purified:NAME. It was made from
    a poison in the store, and has cells for that poison only.

    PATH is a folder or zip of <index>.png, .npy, .npz, .safetensors, .pt or a pickle of arrays;
    nothing in it is run. Its measurements are printed, as by `uebench audit`.

    \b
    uebench import perturbation.pt --dataset cifar10 --name em_authors
    uebench run --dataset cifar10 --attacks imported:em_authors --defenses standard
    uebench import --purified out.npz --of imported:em_authors --by avatar --dataset cifar10 \\
        --name avatar
    """  # noqa: D301
    from ..data import load_dataset
    from ..methods.imported import poison_name
    from ..suite.import_poison import import_poison

    only_purified = {
        "of": of,
        "by": by,
        "poison_seed": poison_seed,
        "protocol": protocol,
        "set": dict(map(assignment, sets)) or None,
        "device": device,
    }
    given = {key: value for key, value in only_purified.items() if value is not None}
    if purified:
        record = _import_purified(path, dataset, name, data_dir, reading, replace, **given)
        output(record, as_json, print_purified)
        words = ["run", "--dataset", dataset, "--attacks", f"{of}", "--defenses", record["name"]]
        words += ["--poison-seeds", f"{poison_seed}"] if poison_seed else []
        words += ["--protocol", protocol] if protocol else []
        words += [word for text in sets for word in ("--set", text)]
        echo(f"next: uebench {shlex.join(words)}", err=True)
        return
    if given:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        raise UserError(f"{flags} belongs to --purified; add --purified, or leave it out")
    name = poison_name(name)
    loaded = load_dataset(dataset, data_dir)
    poison = import_poison(path, loaded, name, replace=replace, **reading)
    hidden = ("recipe", "budget", "author_record")
    measured = {"name": f"imported:{name}"}
    measured |= {key: value for key, value in poison.meta.items() if key not in hidden}
    output(measured, as_json, print_measured)
    echo(f"next: uebench run --dataset {shlex.quote(dataset)} --attacks imported:{name}", err=True)


def _import_purified(
    path: str,
    dataset: str,
    name: str,
    data_dir: str | None,
    reading: dict[str, Any],
    replace: bool,
    **purification: Any,
) -> dict[str, Any]:
    """Register a purified training set and return its record.

    Raises:
        UserError: it is not given what was purified, and by which method.
    """
    from ..data import load_dataset
    from ..data.foreign import Reading
    from ..suite.import_purified import import_purified

    if not {"of", "by"} <= purification.keys():
        raise UserError("--purified needs --of ATTACK, whose poison was purified, and --by METHOD")
    loaded = load_dataset(dataset, data_dir)
    return import_purified(
        path, loaded, name, reading=Reading(**reading), replace=replace, **purification
    )


def print_measured(facts: dict[str, Any]) -> None:
    """Print what was measured of a poison by `craft`, `audit` or `import`."""
    from ..data.measured import measured_lines

    click.echo("\n".join(measured_lines(facts)))


def print_purified(facts: dict[str, Any]) -> None:
    """Print what is known of a purified training set."""
    from ..data.measured import purified_lines

    click.echo("\n".join(purified_lines(facts)))


def _check_picture(picture: str | None) -> None:
    from ..data.poison_writing import check_target

    if picture is not None:
        if not picture.lower().endswith(".png"):
            raise UserError(f"--picture {picture} must end in .png")
        check_target(Path(picture), "--picture")


def _draw(picture: str | None, poison: Poison, dataset: Dataset, title: str) -> None:
    if picture is not None:
        from ..data.pictures import contact_sheet

        with replaced_file(Path(picture)) as draft:
            contact_sheet(poison, dataset, title).save(draft)
