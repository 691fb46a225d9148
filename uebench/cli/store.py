"""The verbs of the store: `uebench store ls|verify|prune|du`."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ..common.errors import UserError

if TYPE_CHECKING:
    from ..store.prune import Doomed

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
kind_option = click.option(
    "--kind",
    "wanted",
    multiple=True,
    metavar="KIND",
    help="dataset, decoded, poison, imported, prepared, kept, cell or checkpoint; may be repeated.",
)
UNITS = {"": 86400.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@click.group("store")
def store_group() -> None:
    """See, check and tidy the store, where everything that was computed is kept.

    It lies in $UEBENCH_HOME, or else in the platform's cache folder. What is removed is computed
    again when it is asked for.

    \b
    uebench store du
    uebench store prune --older-than 30d
    """  # noqa: D301


@store_group.command()
@kind_option
@json_option
def ls(wanted: tuple[str, ...], as_json: bool) -> None:
    """List what is kept, kind by kind, oldest first."""
    from ..store import prune as storage

    store = storage.opened_store()
    rows = [
        {**_plain(entry), "what": storage.describe(store, entry)}
        for entry in storage.entries(store, _checked_kinds(wanted))
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    cells = [
        [r["kind"], r["key"][:16], _human(r["bytes"]), _age(r["modified"]), r["what"]] for r in rows
    ]
    print_table(["kind", "key", "size", "age", "what"], cells, f"{store.root}: {len(rows)} entries")


@store_group.command()
@kind_option
@click.option("--dry-run", is_flag=True, help="Say what is spoiled and leave it where it is.")
@json_option
def verify(wanted: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Read every entry and check its hashes; set aside what is spoiled. Exit 1 if anything is.

    What was set aside lies under `spoiled` and is computed again by the next run that needs it.
    """
    from ..store import prune as storage

    store = storage.opened_store()
    checked, rows = 0, []
    for entry, fault in storage.faults(store, _checked_kinds(wanted)):
        checked += 1
        if fault is not None:
            rows.append({**_plain(entry), "fault": fault})
            if not dry_run:
                store.read(entry.kind, entry.key)
    if as_json:
        click.echo(json.dumps({"checked": checked, "spoiled": rows}, indent=1))
    else:
        cells = [[r["kind"], r["key"][:16], _human(r["bytes"]), r["fault"]] for r in rows]
        told = f"{store.root}: {checked} entries, {len(rows)} spoiled"
        print_table(["kind", "key", "size", "fault"], cells, told)
    if rows:
        raise SystemExit(1)


@store_group.command()
@kind_option
@click.option(
    "--older-than",
    metavar="AGE",
    help="Only what is older, such as 30d, 12h or 2w.",
)
@click.option("--imported", is_flag=True, help="Imported poisons too, which cannot be made again.")
@click.option("--yes", is_flag=True, help="Remove it; without this, only say what would go.")
@json_option
def prune(
    wanted: tuple[str, ...], older_than: str | None, imported: bool, yes: bool, as_json: bool
) -> None:
    """Remove what nobody needs; say first what would go, and remove it with --yes.

    Alone: drafts of killed runs that are older than a day, spoiled entries, checkpoints of what is
    done, notes of drivers that are dead. With --kind or --older-than: also entries of these kinds,
    of this age.
    """
    from ..store import prune as storage

    store = storage.opened_store()
    doomed = storage.garbage(store)
    chosen = _checked_kinds(wanted)
    if chosen is not None or older_than is not None:
        age = None if older_than is None else parse_age(older_than)
        gone = {d.entry.path for d in doomed}
        extra = storage.asked_for(store, chosen or storage.KINDS, age, imported)
        doomed += [d for d in extra if d.entry.path not in gone]
    size = sum(d.entry.bytes for d in doomed)
    freed = storage.discard(store, doomed) if yes else 0
    if as_json:
        rows = [{**_plain(d.entry), "why": d.why} for d in doomed]
        click.echo(json.dumps({"removed": yes, "bytes": size, "entries": rows}, indent=1))
        return
    if yes:
        told = f"{store.root}: removed {len(doomed)}, {_human(freed)}"
    else:
        told = f"{store.root}: {len(doomed)} would go, {_human(size)}; add --yes to remove them"
    print_table(["kind", "why", "entries", "size"], _by_kind(doomed), told)


@store_group.command()
@json_option
def du(as_json: bool) -> None:
    """Say how much room each kind takes."""
    from ..store import prune as storage

    store = storage.opened_store()
    found = storage.usage(store)
    total = sum(row["bytes"] for row in found.values())
    if as_json:
        told = {"root": str(store.root), "bytes": total, "kinds": found}
        click.echo(json.dumps(told, indent=1))
        return
    cells = [[kind, str(r["entries"] or ""), _human(r["bytes"])] for kind, r in found.items()]
    print_table(["kind", "entries", "size"], cells, f"{store.root}: {_human(total)}")


def parse_age(text: str) -> float:
    """Return an age such as 30d, 12h or 2w in seconds; a number alone counts days.

    Raises:
        ValueError: it is no such age.
    """
    matched = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([smhdw]?)\s*", text)
    if matched is None:
        raise UserError(f"--older-than {text[:40]!r} is no age; write it like 30d, 12h or 2w")
    return float(matched[1]) * UNITS[matched[2]]


def _checked_kinds(wanted: tuple[str, ...]) -> list[str] | None:
    """Return the kinds that were asked for, or None for all.

    Raises:
        ValueError: there is no such kind.
    """
    from ..common.spec import did_you_mean
    from ..store.prune import KINDS

    for kind in wanted:
        if kind not in KINDS:
            raise UserError(
                f"--kind {kind[:40]!r}: no such kind{did_you_mean(kind, KINDS)}; there are "
                f"{', '.join(KINDS)}"
            )
    return list(dict.fromkeys(wanted)) or None


def _by_kind(doomed: list[Doomed]) -> list[list[str]]:
    """Return rows of kind, reason, number and size."""
    groups: dict[tuple[str, str], list[int]] = {}
    for d in doomed:
        groups.setdefault((d.entry.kind, d.why), []).append(d.entry.bytes)
    return [[k, why, str(len(sizes)), _human(sum(sizes))] for (k, why), sizes in groups.items()]


def _plain(entry: Any) -> dict[str, Any]:
    """Return an entry as plain data."""
    return {
        "kind": entry.kind,
        "key": entry.key,
        "bytes": entry.bytes,
        "modified": entry.modified,
    }


def _human(size: int) -> str:
    """Return bytes as people read them, such as 1.2 MB."""
    from rich.filesize import decimal

    return decimal(size)


def _age(modified: float) -> str:
    """Return how long ago something was, in its largest unit."""
    seconds = max(0.0, time.time() - modified)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def print_table(heads: list[str], rows: list[list[str]], told: str) -> None:
    """Print a table of texts, which are never markup, and a line below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..common.text import one_line

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if rows:
        table = Table(box=None, pad_edge=False)
        for head in heads:
            right = head in ("size", "entries", "age")
            table.add_column(head, justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        console.print(table)
    console.print(Text(one_line(told)), soft_wrap=True)
