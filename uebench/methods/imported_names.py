"""Names of imported poisons: which content `imported:NAME` means on which data set.

A record is an entry of the store, `imported/NAME.FINGERPRINT`; the images lie under `poison`.
"""

from __future__ import annotations

import re
from typing import Any

from ..common.errors import UnknownNameError
from ..common.spec import IMPORTED, did_you_mean, normalise, shorten
from ..data.poison import PoisonError
from ..store.store import Store, key_of
from .asked import Asked
from .base import Attack
from .imported import ImportedPoison, imported_recipe

Record = dict[str, Any]
_KIND = "imported"


def checked_name(name: str) -> str:
    """Return a name in snake_case.

    Raises:
        PoisonError: it is no name.
    """
    made = normalise(name.removeprefix(IMPORTED))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", made):
        raise PoisonError(
            f"--name {shorten(name)} is not a name; use letters, digits and _, such as em_authors"
        )
    return made


def check_free(store: Store, name: str, fingerprint: str, sha256: str, replace: bool) -> None:
    """See that a name may get this content on a data set.

    Raises:
        PoisonError: it means other content there, and `replace` is not given.
    """
    known = store.read(_KIND, f"{name}.{fingerprint}")
    if known is not None and known[1].get("sha256") != sha256 and not replace:
        raise PoisonError(
            f"imported:{name} is there already with other images ({_shown(known[1])}); choose "
            "another --name, or add --replace"
        )


def remember(store: Store, name: str, fingerprint: str, record: Record, replace: bool) -> None:
    """Enter what a name means on a data set.

    Raises:
        PoisonError: it means other content there, and `replace` is not given.
    """
    key = f"{name}.{fingerprint}"
    with store.lock(_KIND, key):
        check_free(store, name, fingerprint, record["sha256"], replace)
        if store.has(_KIND, key):
            store.remove(_KIND, key)
        store.write(_KIND, key, record)


def known_records(store: Store) -> list[tuple[str, Record]]:
    """Return every imported poison, name and record, in order of name."""
    folder = store.base / _KIND
    found = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        read = store.read(_KIND, entry.name)
        if read is not None:
            found.append((entry.name.partition(".")[0], read[1]))
    return found


def bind(asked: Asked[Attack], store: Store, dataset: str, fingerprint: str) -> Asked[Attack]:
    """Return an attack as it is, or an imported one with its content and budget on a data set.

    Raises:
        KeyError: no poison was imported under this name.
        ValueError: it was imported for other data sets, or its images are gone.
    """
    attack = asked.method
    if not isinstance(attack, ImportedPoison):
        return asked
    name = attack.info.name.removeprefix(IMPORTED)
    found = store.read(_KIND, f"{name}.{fingerprint}")
    if found is None:
        raise _missing(store, name, dataset)
    record = found[1]
    if not store.has("poison", key_of(imported_recipe(fingerprint, record["sha256"]))):
        raise PoisonError(f"the images of imported:{name} are gone from the store; import it again")
    measured = record["linf_max"] / 255 if attack.norm == "linf" else record["l2_max"]
    bound = attack.fill_auto(eps=measured).with_options(sha256=record["sha256"])
    if bound.norm == "linf" and bound.eps > 1:
        raise PoisonError(
            f"imported:{name}: eps must lie in (0, 1], got {bound.eps:g}; divide by 255"
        )
    return Asked(bound)


def _missing(store: Store, name: str, dataset: str) -> Exception:
    """Return the error for a name that says nothing on a data set."""
    known = known_records(store)
    others = [record for other, record in known if other == name]
    if others:
        return PoisonError(
            f"imported:{name} belongs to {', '.join(str(r['dataset']) for r in others[:5])}, not "
            f"to {dataset}; run it there, or import its file for this data set"
        )
    names = sorted({other for other, _ in known})
    there = f"there are {', '.join(names[:20])}" if names else "none was imported yet"
    return UnknownNameError(
        f"no poison was imported as {name}{did_you_mean(name, names)}; {there}: type "
        "`uebench import PATH --dataset D --name NAME`"
    )


def _shown(record: Record) -> str:
    """Return a record in a few words."""
    return f"{record.get('file', 'a file')}, sha256 {str(record.get('sha256'))[:12]}"
