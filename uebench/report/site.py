"""The site: the results of many folders as static pages that link to each other.

Every page works from the disk and from any web host, and asks no other host for anything: its
Content-Security-Policy allows the scripts, style sheet and pictures of the site alone. What comes
from a results folder is escaped by the templates, and no name in it becomes a path: the pages of
cells are named by their keys, and those of methods by names of plain letters or hashes.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from urllib.parse import urlencode

from .boards import page_boards, tabs
from .compare import Meanings
from .entries import View, cell_slug
from .folder import Results
from .groups import CellRow
from .method_pages import method_views
from .page import METRIC_NAMES, curves_views, figure_views, poison_views
from .statistics import Stat, best_within_noise
from .templates import asset, rendered

POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'self' file: 'unsafe-inline'; "
    "script-src 'self' file:; base-uri 'none'; form-action 'none'"
)
_KINDS = ("attack", "defense")
_OURS = re.compile(
    r"(index|leaderboards|compare|methods|differences)\.html"
    r"|(cells|methods)/[a-z0-9_-]+\.html|pictures/[A-Za-z0-9_-]+\.png"
    r"|assets/(site\.css|page\.js|compare\.js|data\.js)"
)


def is_site(name: str) -> bool:
    """Return whether the site has a file of this path; others, such as its docs, are not its."""
    return _OURS.fullmatch(name) is not None


@dataclass(frozen=True)
class Site:
    """What a site shows.

    Attributes:
        results: the cells of all folders.
        meanings: what the options of methods mean for a comparison with published numbers.
        methods: the description of every known attack, defense and victim, as `uebench show`
            prints it, each with its `kind`.
        commands: the command that computes a cell again, by its key.
        folders: the names of the folders.
        has_docs: whether the documentation stands in the folder `docs` of the site.
    """

    results: Results
    meanings: Meanings
    methods: Sequence[Mapping[str, Any]]
    commands: Mapping[str, str]
    folders: Sequence[str]
    has_docs: bool


def site_files(site: Site) -> Iterator[tuple[str, str | bytes]]:
    """Yield the path and the contents of every file of the site."""
    results = site.results
    boards, entries = page_boards(results, site.meanings, _address)
    boards.sort(key=_weight, reverse=True)  # stable: the largest is the headline
    choices = tabs(boards, results)
    names = [tab["name"] for tab in choices]
    for board in boards:
        board["view"] = _view(board["data"], names)
    methods = method_views(results, site.methods, boards)
    pages = {(view["kind"], view["name"]): view["page"] for view in methods}

    def page(template: str, root: str = "", **values: Any) -> str:
        common = {
            "root": root,
            "policy": POLICY,
            "has_docs": site.has_docs,
            "folders": site.folders,
        }
        return rendered(template, **common, **values)

    yield "index.html", page("front.jinja", boards=boards, counts=_counts(results, methods))
    plots = figure_views(results) + curves_views(results)
    yield "leaderboards.html", page("leaderboards.jinja", boards=boards, tabs=choices, plots=plots)
    yield "compare.html", page("compare.jinja")
    yield "methods.html", page("methods.jinja", methods=methods)
    yield "differences.html", page("differences.jinja", methods=methods)
    for view in methods:
        yield f"methods/{view['page']}.html", page("method.jinja", "../", method=view)
    yield from _cell_pages(site, entries, names, pages, page)
    yield "assets/data.js", _data(boards, methods, pages)
    yield "assets/site.css", rendered("style.jinja")
    for name in ("page.js", "compare.js"):
        yield f"assets/{name}", asset(name)


def _address(runs: Sequence[CellRow]) -> str:
    return f"cells/{cell_slug(runs[0])}.html"


def _weight(board: View) -> tuple[int, int]:
    """Return how much a board can say: the size of its data, and its number of entries."""
    table = board["tables"][0]
    return table.settings.n_train or 0, len(table.entries)


def _view(data: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the fragment of the address that shows a board among all leaderboards."""
    return urlencode({name.replace("_", "-"): data[name] for name in names})


def _counts(results: Results, methods: Sequence[View]) -> list[tuple[str, str]]:
    """Return the numbers of the front page, among which `none`, clean data, is not counted."""
    n_methods = Counter(view["kind"] for view in methods if view["name"] != "none")
    n_models = int((results.cells["status"] == "ok").sum())
    kinds = ("attack", "defense", "victim")
    counts = [(str(n), f"{kind}s") for kind in kinds if (n := n_methods[kind])]
    return [*counts, (f"{n_models:,}", "trained models")]


def _cell_pages(
    site: Site,
    entries: Sequence[View],
    names: Sequence[str],
    pages: Mapping[tuple[str, str], str],
    page: Callable[..., str],
) -> Iterator[tuple[str, str | bytes]]:
    """Yield a page for each trained model, and the pictures of the poisons."""
    poisons = {view["id"]: view for view in poison_views(site.results)}
    for id, view in poisons.items():
        key = id.removeprefix("poison-")
        if view["picture"]:
            view["picture"] = f"../pictures/{id}.png"
            yield f"pictures/{id}.png", site.results.pictures[key].png
    for entry in entries:
        methods = [
            (str(method), pages.get((kind, method.name), ""))
            for kind, method in zip(_KINDS, entry["pair"], strict=True)
        ]
        for run in entry["runs"]:
            values = {
                "entry": entry,
                "run": run,
                "methods": methods,
                "view": _view(entry["data"], names),
                "poison": poisons.get(f"poison-{run['poison']}"),
                "command": site.commands.get(run["key"], ""),
            }
            yield f"cells/{run['slug']}.html", page("cell.jinja", "../", **values)


def _data(
    boards: Sequence[View], methods: Sequence[View], pages: Mapping[tuple[str, str], str]
) -> str:
    """Return the script with the numbers that the page of comparisons shows."""
    facts = {
        f"{view['kind']} {view['name']}": {
            **{name: view[name] for name in ("title", "summary", "source", "link")},
            "page": f"methods/{view['page']}.html",
        }
        for view in methods
    }
    data = {"boards": [_compared_board(board) for board in boards], "methods": facts}
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return f"window.uebench = {text};\n"


def _compared_board(board: View) -> View:
    rows = [row for row in board["rows"] if row["spec"]]
    columns = [column for column in board["columns"] if column["spec"]]
    return {
        "title": board["settings"],
        "href": f"leaderboards.html#{board['view']}",
        "attacks": [_named("attack", row) for row in rows],
        "defenses": [_named("defense", column) for column in columns],
        "cells": [[_number(c) for c in row["cells"][: len(columns)]] for row in rows],
        "ties": {
            name: _ties(table)
            for (name, _), table in zip(METRIC_NAMES, board["tables"], strict=True)
        },
    }


def _named(kind: str, each: View) -> dict[str, str]:
    return {"spec": each["spec"], "label": str(each["label"]), "key": f"{kind} {each['method']}"}


def _number(cell: View) -> View:
    """Return what a comparison shows of a cell, in both metrics."""
    faces = {
        name: {"value": face["value"], "text": str(face["shown"]), "color": face["color"],
               "ink": face["ink"]}
        for name in ("last", "best")
        for face in (cell[name],)
    }  # fmt: skip
    return {**faces, "href": cell["href"], "published": cell["published"], "cost": cell["cost"]}


def _ties(table: Any) -> dict[str, list[tuple[int, int, int]]]:
    """Return which two attacks are within noise of each other under which defense, by index.

    And which two defenses under which attack; these come as triples as well, the opponent last.
    """
    stats = [[table.stat(a, d) for d in table.defenses] for a in table.attacks]
    by_defense = [list(column) for column in zip(*stats, strict=True)]
    n_test = table.settings.n_test
    return {"attacks": _tied(by_defense, n_test), "defenses": _tied(stats, n_test)}


def _tied(opponents: Sequence[Sequence[Stat]], n_test: int | None) -> list[tuple[int, int, int]]:
    return [
        (i, j, opponent)
        for opponent, stats in enumerate(opponents)
        for i, j in combinations([k for k, stat in enumerate(stats) if stat.n], 2)
        if len(best_within_noise({i: stats[i], j: stats[j]}, n_test)) == 2
    ]
