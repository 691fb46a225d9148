"""What the site says about each method: its definition, its options and all of its numbers."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ..common.spec import IMPORTED, PURIFIED
from ..common.text import counted, one_line
from .entries import View
from .folder import Results
from .groups import MethodSpec
from .page import paper_link
from .published import Published, read_published
from .words import percent

_OTHER = {"attack": "defense", "defense": "attack"}
"""What the methods of a kind are measured against."""


_FIXED = (
    "These images were imported: somebody else made them, and their record says how they were read."
)


def method_views(
    results: Results, described: Sequence[Mapping[str, Any]], boards: Sequence[View]
) -> list[View]:
    """Return a view of each described method, and of attacks and defenses only the results have.

    Args:
        results: the cells of all folders.
        described: the descriptions of the known methods, each with its `kind`.
        boards: the leaderboards, as `page_boards` returns them.
    """
    known = {(each["kind"], each["name"]): each for each in described}
    used = dict.fromkeys(
        (kind, str(name))
        for kind in ("attack", "defense")
        for name in results.cells[kind]
        if (kind, str(name)) not in known
    )
    known |= {(kind, name): _undescribed(results, kind, name) for kind, name in used}
    published = read_published(secondhand=True)
    return [_view(each, boards, published) for each in known.values()]


def _undescribed(results: Results, kind: str, name: str) -> Mapping[str, Any]:
    facts = results.run.methods.get(name)
    is_fixed = name.startswith((IMPORTED, PURIFIED))
    return {
        "kind": kind,
        "name": one_line(name),
        "title": facts.title if facts else "",
        "source": facts.source if facts else "",
        "text": "",
        "about": _FIXED
        if is_fixed
        else "It is not a method of this suite, and its code was not installed when this page was "
        "written.",
        "origin": facts.origin if facts else "",
        "options": [] if is_fixed else None,
    }


def _view(each: Mapping[str, Any], boards: Sequence[View], published: Sequence[Published]) -> View:
    kind, name = each["kind"], each["name"]
    about = str(each["about"] or each["text"])
    # Publications name attacks and defenses; the victim of their numbers is the usual training.
    own = [row for row in published if kind in _OTHER and getattr(row, kind) == name]
    numbers = [numbers for board in boards if (numbers := _numbers(board, kind, name))["rows"]]
    return {
        "kind": kind,
        "name": name,
        "title": one_line(str(each["title"])) or name,
        "page": f"{kind}-{name}" if re.fullmatch(r"[a-z0-9_]{1,60}", name) else _hashed(kind, name),
        "source": one_line(str(each["source"])),
        "link": paper_link(str(each["source"])),
        "origin": one_line(_origin(each)),
        "summary": one_line(about.partition("\n\n")[0]),
        "about": [in_html(part) for part in about.split("\n\n")],
        "departs": in_html(departures(about)),
        "options": None
        if each["options"] is None
        else [{**o, "meaning": in_html(o["meaning"])} for o in each["options"]],
        "numbers": numbers,
        "extent": f"on {counted(len(numbers), 'leaderboard')}" if numbers else "none",
        "other": _OTHER.get(kind, ""),
        "published": [_published(row, kind) for row in own],
    }


def _origin(each: Mapping[str, Any]) -> str:
    """Return a sentence on the version of a method and where its code came from, if known."""
    words = {"built-in": "this suite", "session": "a Python session", "imported": ""}
    origin = words.get(origin := str(each.get("origin") or ""), origin)
    if each.get("version"):
        return f"Version {each['version']}{origin and f', from {origin}'}."
    return f"From {origin}." if origin else ""


def _hashed(kind: str, name: str) -> str:
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def departures(about: str) -> str:
    """Return the sentences of a description that say how a method differs from its source."""
    match = re.search(r"(?ms)^(Departs from .*?)(?=\n\n|^[A-Z][\w ]{0,20}: |\Z)", about)
    return match[1] if match else ""


def in_html(text: str) -> Markup:
    """Return a paragraph of a docstring as HTML, in which words between backticks are code."""
    parts = re.split(r"`+([^`]+)`+", " ".join(text.split()))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )


def _numbers(board: View, kind: str, name: str) -> View:
    """Return all measured cells of a method on one leaderboard, or what a victim trained on it."""
    if kind == "victim":
        trains = str(board["data"]["victim"]).partition("[")[0] == name
        return {"title": board["settings"], "view": board["view"], "rows": [board["size"]] * trains}
    defenses = [column for column in board["columns"] if column["spec"]]
    rows = [
        {"own": own["label"], "other": other["label"], "cell": cell}
        for row in board["rows"]
        if row["spec"]
        for column, cell in zip(defenses, row["cells"], strict=False)
        for own, other in ([(row, column)] if kind == "attack" else [(column, row)])
        if own["method"] == name and cell["href"]
    ]
    return {"title": board["settings"], "view": board["view"], "rows": rows}


def _published(row: Published, kind: str) -> tuple[str, ...]:
    specs = (
        str(MethodSpec(getattr(row, each), getattr(row, f"{each}_options")))
        for each in (kind, _OTHER[kind])
    )
    epochs = "" if row.epochs is None else str(row.epochs)
    return (*specs, row.dataset, row.arch, epochs, percent(row.accuracy), row.source)
