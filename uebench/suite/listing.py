"""What there is: lists of attacks, defenses, data sets and so on, as data and as text.

torch is loaded by what needs it: lists of configurations and protocols do not wait for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..cells.config import config_names, read_config
from ..common.errors import UserError
from ..common.names import SHOWN
from ..common.spec import IMPORTED, format_value, normalise, unknown
from ..common.text import one_line, plain_text
from ..learn.protocol import PROTOCOLS, Protocol

Row = dict[str, Any]


def catalog(kinds: list[str]) -> dict[str, list[Row]]:
    """Return rows of name, title and source for each kind asked for."""
    makers: dict[str, Callable[[], list[Row]]] = {
        "attacks": lambda: _methods("attack") + _imported(),
        "defenses": lambda: _methods("defense"),
        "datasets": _datasets,
        "models": _models,
        "protocols": lambda: [
            {"name": name, "title": _protocol_title(protocol)}
            for name, protocol in PROTOCOLS.items()
        ],
        "configs": lambda: [
            {"name": name, "title": str(read_config(name).get("title", ""))}
            for name in config_names()
        ],
        "executors": _executors,
    }
    return {kind: makers[kind]() for kind in kinds}


def _datasets() -> list[Row]:
    """Return the data sets."""
    from ..data import DATASETS

    return [{"name": name, "title": known.title} for name, known in DATASETS.items()]


def _models() -> list[Row]:
    """Return the networks."""
    from ..models import ARCHITECTURES

    return [
        {"name": name, "title": arch.title, "source": arch.source}
        for name, arch in ARCHITECTURES.items()
    ]


def _executors() -> list[Row]:
    """Return what starts processes."""
    from ..execute.choose import EXECUTORS, executor_class

    return [{"name": name, "title": executor_class(name).title} for name in EXECUTORS]


def _methods(kind: Literal["attack", "defense"]) -> list[Row]:
    """Return the methods of a kind, then the plug-ins that are broken with their errors."""
    from ..methods.registry import broken, methods

    rows: list[Row] = [
        {
            "name": name,
            "title": cls.info.title,
            "source": cls.info.source,
            "origin": cls.info.origin,
        }
        for name, cls in methods(kind).items()
    ]
    return rows + [
        {"name": "(broken)", "title": "", "source": b.error, "origin": b.origin} for b in broken()
    ]


def _imported() -> list[Row]:
    """Return the imported poisons, a row a name and data set."""
    from ..methods.imported import known_records
    from ..store.store import Store

    return [
        {
            "name": f"{IMPORTED}{name}",
            "title": f"{record['images']} images, linf {record['linf_max']:g}/255",
            "source": f"{record['file']} for {record['dataset']}",
            "origin": "imported",
        }
        for name, record in known_records(Store())
    ]


def _protocol_title(protocol: Protocol) -> str:
    """Return a protocol in a line."""
    return (
        f"{protocol.arch}, {protocol.epochs} epochs, batch {protocol.batch_size}, "
        f"lr {protocol.lr:g} {protocol.schedule}"
    )


def kind_of(name: str) -> str:
    """Return of which of the kinds in `SHOWN` a name is.

    Raises:
        KeyError: of none, with the nearest name.
        ValueError: of several.
    """
    from ..execute.choose import EXECUTORS
    from ..methods.registry import KINDS, absent, methods

    name = normalise(name)
    if name.startswith(IMPORTED):
        return "attack"
    known: dict[str, list[str]] = {kind: list(methods(kind)) for kind in KINDS}
    known |= {"protocol": list(PROTOCOLS), "executor": list(EXECUTORS)}
    having = [kind for kind in SHOWN if name in known[kind]]
    if not having:
        raise absent("name", name, [each for names in known.values() for each in names])
    if len(having) > 1:
        told = " or ".join(f"`uebench show {kind} {name}`" for kind in having)
        raise UserError(f"{name} is of several kinds; type {told}")
    return having[0]


def describe(kind: str, name: str) -> dict[str, Any]:
    """Return a method, protocol or executor with its options: range, default and meaning.

    Raises:
        KeyError: no such method, protocol or executor, with the nearest name.
    """
    name = normalise(name)
    if kind == "protocol":
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
        protocol = PROTOCOLS[name]
        return {
            "name": name,
            "title": _protocol_title(protocol),
            "text": inspect.getdoc(Protocol) or "",
            "options": _options(Protocol, protocol.model_dump()),
        }
    if kind == "executor":
        from ..execute.choose import executor_class

        executor = executor_class(name)
        return {
            "name": name,
            "title": executor.title,
            "text": inspect.getdoc(executor) or "",
            "options": _options(executor, {}),
        }
    from ..methods.registry import find

    about = {}
    if kind == "attack" and name.startswith(IMPORTED):
        about["about"] = _records_of(name.removeprefix(IMPORTED))
    cls = find("attack" if kind == "attack" else "defense", name)
    module = inspect.getmodule(cls)
    return {
        "name": name,
        "title": cls.info.title,
        "source": cls.info.source,
        "origin": cls.info.origin,
        "version": cls.version,
        "text": inspect.getdoc(cls) or "",
        "about": (inspect.getdoc(module) or "") if module is not None else "",
        "options": _options(cls, {}),
        **about,
    }


def _records_of(name: str) -> str:
    """Return what is known of an imported poison, a line a data set.

    Raises:
        KeyError: none was imported under this name.
    """
    from ..methods.imported import known_records
    from ..store.store import Store

    known = known_records(Store())
    told = [
        f"{r['file']} for {r['dataset']}: {r['images']} {r['kind']} ({r['form']}), "
        f"linf {r['linf_max']:g}/255, l2 {r['l2_max']:g}, sha256 {r['sha256'][:12]}"
        for other, r in known
        if other == name
    ]
    if not told:
        raise unknown("attack", IMPORTED + name, [IMPORTED + other for other, _ in known])
    return "\n".join(told)


def _options(model: Any, values: dict[str, Any]) -> list[Row]:
    """Return the fields of a model as rows."""
    from ..common.options import accepted

    return [
        {
            "name": key,
            "default": format_value(values.get(key, info.default)),
            "accepts": accepted(info),
            "meaning": " ".join((info.description or "").split()),
        }
        for key, info in model.model_fields.items()
    ]


def print_catalog(found: dict[str, list[Row]]) -> None:
    """Print the lists as tables to stdout."""
    console = Console(highlight=False)
    for kind, rows in found.items():
        columns = [c for c in ("name", "title", "source", "origin") if any(c in r for r in rows)]
        table = Table(*columns, title=kind, title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(one_line(str(row.get(column, "")))) for column in columns))
        console.print(table)
        console.print()


def print_description(found: dict[str, Any]) -> None:
    """Print what `describe` returned to stdout."""
    console = Console(highlight=False)
    where = "  ".join(str(found[key]) for key in ("source", "origin") if key in found)
    console.print(Text(one_line(f"{found['name']}: {found['title']}"), style="bold"))
    if where:
        console.print(Text(one_line(where), style="dim"))
    console.print(Text("\n" + plain_text(found.get("about") or found["text"]) + "\n"))
    table = Table("option", "default", "accepts", "meaning", box=None, pad_edge=False)
    for row in found["options"]:
        table.add_row(
            *(Text(one_line(row[key])) for key in ("name", "default", "accepts", "meaning"))
        )
    console.print(table if found["options"] else Text("no options"))
