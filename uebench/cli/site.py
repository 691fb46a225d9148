"""The verb that builds a website of results."""

from __future__ import annotations

from pathlib import Path

import click

from .shared import echo, plugin_option, writable


@click.command("site")
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option("--out", metavar="FOLDER", required=True, help="Folder for the website.")
@plugin_option
def site_verb(results: tuple[str, ...], out: str) -> None:
    """Build a website of all results in some folders.

    RESULTS are folders of `uebench run`, published bundles, or folders of them. The pages are
    static: they open from the disk, and any web host can serve them. There is a front page, the
    leaderboards, a comparison of any two attacks or defenses, a page for each method with its
    published numbers, and a page for each trained model. The folder FOLDER/docs is left as it is,
    and the pages link to it. Nothing is computed.

    \b
    uebench site results --out site
    """  # noqa: D301
    from ..suite.site import build_site

    names = build_site(results, writable(out))
    echo(Path(out) / "index.html")
    n_cells = sum(name.startswith("cells/") for name in names)
    echo(f"{len(names)} files, with a page for each of {n_cells} trained models", err=True)
