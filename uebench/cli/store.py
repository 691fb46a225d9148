"""The verbs that manage the store: `uebench store ls|verify|prune|du`."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from ..common.errors import UserError
from .group import NamedVerbs
from .shared import json_option, print_table

if TYPE_CHECKING:
    from ..store.prune import Doomed, Entry

kind_option = click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only entries of this kind: dataset, decoded, poison, imported, purified, prepared, "
    "kept, cell, model, detection or checkpoint; may be repeated.",
)
_SECONDS = {"": 86400.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@click.group("store", cls=NamedVerbs)
def store_group() -> None:
    """List, check and clean up the store of computed results.

    The store is the folder $UEBENCH_HOME or, by default, the platform's cache folder. Anything that
    is removed from it is computed again when it is needed, except for what was imported.

    \b
    uebench store du
    uebench store prune --older-than 30d
    """  # noqa: D301


@store_group.command()
@kind_option
@json_option
def ls(kinds: tuple[str, ...], as_json: bool) -> None:
    """List all entries, kind by kind, oldest first."""
    from ..store import prune as storage

    store = storage.opened_store()
    rows = [
        {**_plain(entry), "what": storage.entry_text(store, entry)}
        for entry in storage.entries(store, _checked_kinds(kinds))
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    cells = [
        [r["kind"], r["key"][:16], decimal(r["bytes"]), _age(r["modified"]), r["what"]]
        for r in rows
    ]
    print_table(["kind", "key", "size", "age", "what"], cells, f"{store.root}: {_count(len(rows))}")


@store_group.command("verify")
@kind_option
@click.option("--dry-run", is_flag=True, help="Report damaged entries and leave them in place.")
@json_option
def verify_store(kinds: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Check the hashes of every entry and set damaged ones aside.

    Damaged entries are moved to the folder `spoiled` and are computed again by the next run that
    needs them. The exit status is 1 if there are any.
    """
    from ..store import prune as storage

    store = storage.opened_store()
    checked, rows = 0, []
    for entry, fault in storage.faults(store, _checked_kinds(kinds)):
        checked += 1
        if fault is not None:
            rows.append({**_plain(entry), "fault": fault})
            if not dry_run:
                store.read(entry.kind, entry.key)
    if as_json:
        click.echo(json.dumps({"checked": checked, "spoiled": rows}, indent=1))
    else:
        cells = [[r["kind"], r["key"][:16], decimal(r["bytes"]), r["fault"]] for r in rows]
        summary = f"{store.root}: {_count(checked)} checked, {len(rows)} damaged"
        print_table(["kind", "key", "size", "fault"], cells, summary)
    if rows:
        raise SystemExit(1)


@store_group.command()
@kind_option
@click.option(
    "--older-than",
    metavar="AGE",
    help="Also remove entries older than this, such as 30d, 12h or 2w.",
)
@click.option(
    "--imported", is_flag=True, help="Also remove what was imported and cannot be computed again."
)
@click.option("--yes", is_flag=True, help="Remove the entries; without this, they are only listed.")
@json_option
def prune(
    kinds: tuple[str, ...], older_than: str | None, imported: bool, yes: bool, as_json: bool
) -> None:
    """Remove what is no longer needed, after listing it.

    Without options this covers drafts of killed runs that are older than a day, damaged entries,
    checkpoints of finished work, and notes of runs that have ended. --kind and --older-than add
    the entries of that kind and that age. Nothing is removed without --yes.
    """
    from ..store import prune as storage

    store = storage.opened_store()
    doomed = storage.garbage(store)
    chosen = _checked_kinds(kinds)
    if chosen is not None or older_than is not None:
        age = None if older_than is None else parse_age(older_than)
        gone = {d.entry.path for d in doomed}
        extra = storage.asked_for(store, chosen or storage.ENTRY_KINDS, age, imported)
        doomed += [d for d in extra if d.entry.path not in gone]
    size = sum(d.entry.bytes for d in doomed)
    freed = storage.discard(store, doomed) if yes else 0
    if as_json:
        rows = [{**_plain(d.entry), "why": d.why} for d in doomed]
        click.echo(json.dumps({"removed": yes, "bytes": size, "entries": rows}, indent=1))
        return
    if yes:
        summary = f"{_count(len(doomed))} removed, {decimal(freed)} freed"
    elif doomed:
        summary = f"{_count(len(doomed))} ({decimal(size)}) would be removed; add --yes to do it"
    else:
        summary = "nothing to remove"
    heads = ["kind", "reason", "entries", "size"]
    print_table(heads, _by_kind(doomed), f"{store.root}: {summary}")


@store_group.command()
@json_option
def du(as_json: bool) -> None:
    """Show how much disk space each kind of entry takes."""
    from ..store import prune as storage

    store = storage.opened_store()
    kinds = storage.usage(store)
    total = sum(row["bytes"] for row in kinds.values())
    if as_json:
        usage = {"root": str(store.root), "bytes": total, "kinds": kinds}
        click.echo(json.dumps(usage, indent=1))
        return
    cells = [[kind, str(r["entries"] or ""), decimal(r["bytes"])] for kind, r in kinds.items()]
    print_table(["kind", "entries", "size"], cells, f"{store.root}: {decimal(total)}")


def parse_age(text: str) -> float:
    """Return an age such as 30d, 12h or 2w in seconds; a number alone counts days.

    Raises:
        UserError: it is not an age.
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([smhdw]?)\s*", text)
    if match is None:
        raise UserError(f"--older-than {text[:40]!r} is not an age; write it like 30d, 12h or 2w")
    return float(match[1]) * _SECONDS[match[2]]


def _checked_kinds(kinds: tuple[str, ...]) -> list[str] | None:
    """Return the kinds given by --kind, or None for all."""
    from ..common.spec import did_you_mean
    from ..store.prune import ENTRY_KINDS

    for kind in kinds:
        if kind not in ENTRY_KINDS:
            raise UserError(
                f"--kind {kind[:40]!r}: no such kind{did_you_mean(kind, ENTRY_KINDS)}; the "
                f"kinds are {', '.join(ENTRY_KINDS)}"
            )
    return list(dict.fromkeys(kinds)) or None


def _by_kind(doomed: list[Doomed]) -> list[list[str]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for d in doomed:
        groups.setdefault((d.entry.kind, d.why), []).append(d.entry.bytes)
    return [[k, why, str(len(sizes)), decimal(sum(sizes))] for (k, why), sizes in groups.items()]


def _plain(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("kind", "key", "bytes", "modified")}


def _count(n: int) -> str:
    return "1 entry" if n == 1 else f"{n} entries"


def _age(modified: float) -> str:
    """Return the time since `modified`, in seconds since 1970, in its largest unit."""
    seconds = max(0.0, time.time() - modified)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
