"""Lists and descriptions of attacks, defenses, data sets and so on, as data and as text.

torch is loaded only by the lists that need it: those of configurations and protocols do not.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from ..cells.config import config_names, read_config
from ..common.errors import UserError
from ..common.names import SHOWN
from ..common.spec import IMPORTED, PURIFIED, normalise, unknown
from ..common.text import counted, one_line, plain_text, stdout_console
from ..data import DATASETS
from ..learn.protocol import PROTOCOLS, Protocol

_Row = dict[str, Any]


def catalog(kinds: list[str]) -> dict[str, list[_Row]]:
    """Return the rows of each kind: name, title and, depending on the kind, source and origin.

    Plug-ins that could not be loaded follow the methods of the first kind, since nobody knows what
    kind of methods they have.
    """
    lists = {kind: catalogued(kind) for kind in kinds}
    of_methods = [kind for kind in kinds if kind in ("attacks", "defenses", "victims")]
    if of_methods:
        lists[of_methods[0]] += _not_loaded()
    return lists


def _not_loaded() -> list[_Row]:
    """Return the plug-ins that could not be loaded."""
    from ..methods.registry import broken

    return [
        {"name": "(broken)", "title": "", "source": b.error, "origin": b.origin} for b in broken()
    ]


def catalogued(kind: str) -> list[_Row]:
    """Return what there is of a kind, a row each."""
    if kind == "attacks":
        return [*_methods("attack"), _mixtures(), *_imported()]
    if kind == "defenses":
        return _methods("defense") + _purified()
    if kind == "victims":
        return _methods("victim")
    if kind == "detectors":
        from ..victims.detectors import DETECTORS

        titles = {name: detector.title for name, detector in DETECTORS.items()}
    elif kind == "models":
        from ..models import ARCHITECTURES

        return [
            {"name": name, "title": arch.title, "source": arch.source}
            for name, arch in ARCHITECTURES.items()
        ]
    elif kind == "protocols":
        titles = {name: _protocol_title(protocol) for name, protocol in PROTOCOLS.items()}
    elif kind == "configs":
        titles = {name: str(read_config(name).get("title", "")) for name in config_names()}
    elif kind == "executors":
        from ..execute.choose import EXECUTORS, executor_class

        titles = {name: executor_class(name).title for name in EXECUTORS}
    else:
        from ..data.load import dataset_options

        return [
            {
                "name": name,
                "title": known.title,
                "options": ", ".join(dataset_options(_bare(name))),
            }
            for name, known in DATASETS.items()
        ]
    return [{"name": name, "title": title} for name, title in titles.items()]


def _bare(name: str) -> str:
    """Return the name of a data set without its path, as in `npz:PATH`."""
    return name.partition(":")[0]


def _methods(kind: Literal["attack", "defense", "victim"]) -> list[_Row]:
    """Return the methods of a kind."""
    from ..methods.registry import methods

    return [
        {
            "name": name,
            "title": cls.info.title,
            "source": cls.info.source,
            "origin": cls.info.origin,
        }
        for name, cls in methods(kind).items()
    ]


def _mixtures() -> _Row:
    """Return the row of mixtures, which are attacks made of attacks and not in the registry."""
    from ..methods.mixture import MixedPoison

    info = MixedPoison.info
    return {"name": info.name, "title": info.title, "source": info.source, "origin": info.origin}


def _imported() -> list[_Row]:
    """Return the imported poisons, one row for each name and data set."""
    from ..methods.imported import known_records
    from ..store.store import Store

    return [
        {
            "name": f"{IMPORTED}{name}",
            "title": f"{counted(record['images'], 'image')}, linf {record['linf_max']:g}/255",
            "source": f"{record['file']} for {record['dataset']}",
            "origin": "imported",
        }
        for name, record in known_records(Store())
    ]


def _purified() -> list[_Row]:
    """Return the imported purified sets, one row for each name and poison."""
    from ..methods.purified import purified_records
    from ..store.store import Store

    return [
        {
            "name": f"{PURIFIED}{name}",
            "title": f"{record['of']} purified by {record['by']}",
            "source": f"{record['file']} for {record['dataset']}",
            "origin": "imported",
        }
        for name, record in purified_records(Store())
    ]


def _protocol_title(protocol: Protocol) -> str:
    return (
        f"{protocol.arch}, {counted(protocol.epochs, 'epoch')}, batch {protocol.batch_size}, "
        f"lr {protocol.lr:g} {protocol.schedule}"
    )


def kind_of(name: str) -> str:
    """Return which of the kinds in `SHOWN` a name belongs to; a data set may have its path.

    Raises:
        UserError: it belongs to none, and the message has the nearest name, or to several.
    """
    from ..common.names import MIXTURE
    from ..execute.choose import EXECUTORS
    from ..methods.registry import KINDS, absent, methods
    from ..victims.detectors import DETECTORS

    typed, name = name, normalise(name)
    if name.startswith(IMPORTED):
        return "attack"
    if name.startswith(PURIFIED):
        return "defense"
    name = _bare(name)
    known: dict[str, list[str]] = {kind: list(methods(kind)) for kind in KINDS}
    known["attack"].append(MIXTURE)
    known |= {"protocol": list(PROTOCOLS), "executor": list(EXECUTORS)}
    known["detector"] = list(DETECTORS)
    known["dataset"] = [_bare(each) for each in DATASETS]
    kinds = [kind for kind in SHOWN if name in known[kind]]
    if not kinds:
        from ..models import ARCHITECTURES

        only_listed = (
            ("network", "models", ARCHITECTURES),
            ("configuration", "configs", config_names()),
        )
        for noun, listed, others in only_listed:
            if name in others:
                raise UserError(
                    f"{name} is a {noun}, and `show` describes only {', '.join(SHOWN)}; "
                    f"`uebench list {listed}` has its title"
                )
        every = [each for names in known.values() for each in names]
        raise absent("name", typed, every, spell_out=False)
    if len(kinds) > 1:
        commands = " or ".join(f"`uebench show {kind} {name}`" for kind in kinds)
        raise UserError(f"{name} belongs to several kinds; type {commands}")
    return kinds[0]


def describe(kind: str, name: str) -> dict[str, Any]:
    """Return what has options: a method, detector, data set, protocol or executor.

    Each option comes with its default, range and meaning.

    Raises:
        UnknownNameError: there is no such name; the message has the nearest one.
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
    if kind in ("detector", "executor"):
        from ..execute.choose import executor_class
        from ..victims.detectors import detector_class

        described = detector_class(name) if kind == "detector" else executor_class(name)
        return {
            "name": name,
            "title": described.title,
            "text": inspect.getdoc(described) or "",
            "options": _options(described, {}),
        }
    if kind == "dataset":
        return _dataset(_bare(name))
    from ..common.names import MIXTURE
    from ..methods.base import Defense
    from ..methods.registry import KINDS, find

    about = {}
    if kind == "attack" and name.startswith(IMPORTED):
        about["about"] = _records_of(name.removeprefix(IMPORTED))
    if kind == "defense" and name.startswith(PURIFIED):
        about["about"] = _purified_records_of(name.removeprefix(PURIFIED))
    cls = find(next(each for each in KINDS if each == kind), name)
    options = [] if name == MIXTURE else _options(cls, {})
    options.sort(key=lambda row: row["name"] in Defense.model_fields)  # its own first
    module = inspect.getmodule(cls)
    return {
        "name": name,
        "title": cls.info.title,
        "source": cls.info.source,
        "origin": cls.info.origin,
        "version": cls.version,
        "text": inspect.getdoc(cls) or "",
        "about": (inspect.getdoc(module) or "") if module is not None else "",
        "options": options,
        **about,
    }


def _dataset(name: str) -> dict[str, Any]:
    """Return what is known of a data set, and its options.

    Raises:
        UnknownNameError: there is no such data set.
    """
    from ..data.load import OPTION_MEANINGS, dataset_options

    known = {_bare(each): (each, row) for each, row in DATASETS.items()}
    if name not in known:
        raise unknown("data set", name, list(known))
    typed, row = known[name]
    facts = [f"Use it as --dataset {typed} or, with options, --dataset {typed}[n_train=1000]."]
    if row.class_names:
        facts.append(f"Its classes: {', '.join(row.class_names)}.")
    return {
        "name": typed,
        "title": row.title,
        "text": "\n".join(facts),
        "options": [
            {
                "name": option,
                "default": "what there is" if default is None else str(default),
                "accepts": "a whole number",
                "meaning": OPTION_MEANINGS[option],
            }
            for option, default in dataset_options(name).items()
        ],
    }


def _records_of(name: str) -> str:
    """Return what is known of an imported poison, one line for each data set.

    Raises:
        UnknownNameError: no poison was imported under this name.
    """
    from ..methods.imported import known_records
    from ..store.store import Store

    known = known_records(Store())
    lines = [
        f"{r['file']} for {r['dataset']}: {r['images']} {r['kind']} ({r['form']}), "
        f"linf {r['linf_max']:g}/255, l2 {r['l2_max']:g}, sha256 {r['sha256'][:12]}"
        for other, r in known
        if other == name
    ]
    if not lines:
        raise unknown("attack", IMPORTED + name, [IMPORTED + other for other, _ in known])
    return "\n".join(lines)


def _purified_records_of(name: str) -> str:
    """Return what is known of a purified set, one line for each poison.

    Raises:
        UnknownNameError: nothing was imported under this name.
    """
    from ..methods.purified import not_purified, purified_records
    from ..store.store import Store

    lines = [
        f"{r['file']}: {r['of']} on {r['dataset']} (seed {r['poison_seed']}, sha256 "
        f"{r['poison_sha256'][:12]}) purified by {r['by']}; PSNR to the clean images "
        f"{r['psnr_to_clean']:.1f} dB, to the poison {r['psnr_to_poison']:.1f} dB, sha256 "
        f"{r['sha256'][:12]}"
        for other, r in purified_records(Store())
        if other == name
    ]
    if not lines:
        raise not_purified(name, Store())
    return "\n".join(lines)


def _options(model: Any, values: dict[str, Any]) -> list[_Row]:
    from ..common.options import accepted, option_value

    return [
        {
            "name": key,
            "default": option_value(values.get(key, info.default), info),
            "accepts": accepted(info),
            "meaning": " ".join((info.description or "").split()),
        }
        for key, info in model.model_fields.items()
    ]


def print_catalog(lists: dict[str, list[_Row]]) -> None:
    """Print lists to stdout, each as a table."""
    console = stdout_console()
    for kind, rows in lists.items():
        known = ("name", "title", "source", "origin", "options")
        columns = [column for column in known if any(column in row for row in rows)]
        table = Table(*columns, title=kind, title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(one_line(str(row.get(column, "")))) for column in columns))
        console.print(table)
        console.print()


def print_description(description: dict[str, Any]) -> None:
    """Print to stdout what `describe` returned."""
    console = stdout_console()
    origin = "  ".join(str(description[key]) for key in ("source", "origin") if key in description)
    console.print(Text(one_line(f"{description['name']}: {description['title']}"), style="bold"))
    if origin:
        console.print(Text(one_line(origin), style="dim"))
    console.print(Text("\n" + plain_text(description.get("about") or description["text"]) + "\n"))
    table = Table("option", "default", "accepts", "meaning", box=None, pad_edge=False)
    for row in description["options"]:
        table.add_row(
            *(Text(one_line(row[key])) for key in ("name", "default", "accepts", "meaning"))
        )
    console.print(table if description["options"] else Text("no options"))
