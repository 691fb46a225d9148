"""Writes a page for every attack and defense, from the code and from the published numbers.

    python docs/make.py            write docs/attacks/*.md and docs/defenses/*.md
    python docs/make.py --check    exit 1 where a page is not what the code says

What a page says comes from the method's docstring, its options and `results/published`; so nothing
here is typed twice.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from uebench.methods.registry import Kind, methods
from uebench.suite.listing import describe

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "results" / "published"
FOLDERS: dict[Kind, str] = {"attack": "attacks", "defense": "defenses"}
SHOWN = "cifar10"
"""The data set whose published numbers a page prints; the files have the others."""


def pages() -> dict[Path, str]:
    """Return the text of every page by its path; plug-ins have pages of their own elsewhere."""
    found = {}
    for kind, folder in FOLDERS.items():
        names = [n for n, cls in methods(kind).items() if cls.info.origin == "built-in"]
        for name in names:
            found[HERE / folder / f"{name}.md"] = page(kind, name)
        found[HERE / folder / "README.md"] = index(kind, names)
    return found


def index(kind: Kind, names: list[str]) -> str:
    """Return the list of the pages of a kind."""
    rows = [describe(kind, name) for name in names]
    lines = [
        f"# {FOLDERS[kind].capitalize()}",
        "",
        "| name | what | source |",
        "| --- | --- | --- |",
    ]
    for row in rows:
        first = row["text"].partition("\n\n")[0].replace("\n", " ")
        lines.append(f"| [`{row['name']}`]({row['name']}.md) | {first} | {link(row['source'])} |")
    return "\n".join([*lines, ""])


def page(kind: Kind, name: str) -> str:
    """Return what is known of a method: text, options, and what papers print."""
    found = describe(kind, name)
    text = [
        f"# {found['title']} (`{name}`)",
        "",
        f"Source: {link(found['source'])}. Version {found['version']} of this suite's recipe.",
        "",
        plain(found["about"] or found["text"]),
        "",
        "## Options",
        "",
        *options(name, found["options"]),
        "",
        "## Published numbers",
        "",
        *published(kind, name),
        "",
    ]
    return "\n".join(text)


def plain(text: str) -> str:
    """Return a docstring's paragraphs, a line each, so that a page wraps where its reader does."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def link(source: str) -> str:
    """Return a source, linked where it is an arXiv number."""
    first, comma, rest = source.partition(",")
    number = first.removeprefix("arXiv:")
    if number == first:
        return source or "none"
    return f"[{first}](https://arxiv.org/abs/{number}){comma}{rest}"


def options(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of a method's options, and how one is set."""
    if not rows:
        return ["None."]
    lines = ["| option | default | accepts | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"`{row['name']}`", f"`{row['default']}`", row["accepts"], row["meaning"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    typed = example(rows)
    told = (
        f"Set one in brackets, `{name}[{typed}]`, or for a whole run with `--set {name}.{typed}`."
    )
    return [*lines, "", told]


def example(rows: list[dict[str, Any]]) -> str:
    """Return an option with its default, as it would be typed: a plain one where there is one."""
    ranked = sorted(rows, key=lambda row: (row["default"] in ("", "auto"), row["name"] == "norm"))
    return f"{ranked[0]['name']}={ranked[0]['default']}"


def published(kind: Kind, name: str) -> list[str]:
    """Return the test accuracies that papers print for a method on CIFAR-10, ResNet-18."""
    other: Kind = "defense" if kind == "attack" else "attack"
    rows: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    foreign = set()
    for file in sorted(PUBLISHED.glob("*.csv")):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if row[kind] == name and row["dataset"] == SHOWN and row["arch"] == "resnet18":
                    own, who = typed(row, kind), typed(row, other)
                    rows[own, who][file.stem].append(row["accuracy"])
                    if row[other] not in methods(other):
                        foreign.add(row[other])
    if not rows:
        return ["None in `results/published` for CIFAR-10 and ResNet-18."]
    sources = sorted({source for found in rows.values() for source in found})
    told = [
        "Test accuracy in percent on CIFAR-10 with ResNet-18, a column a source of "
        "[`results/published`](../../results/published/README.md). Several numbers in one place "
        "are several settings, such as longer training.",
    ]
    if foreign:
        names = ", ".join(f"`{each}`" for each in sorted(foreign))
        told += ["", f"This suite has no {names}; such numbers stand as their source prints them."]
    head = [
        "",
        f"| {kind} | {other} | " + " | ".join(sources) + " |",
        "| --- | --- |" + " --: |" * len(sources),
    ]
    body = []
    for own, who in sorted(rows, key=lambda pair: (natural(pair[0]), natural(pair[1]))):
        found = rows[own, who]
        cells = [", ".join(dict.fromkeys(found.get(source, []))) for source in sources]
        body.append(f"| `{own}` | `{who}` | " + " | ".join(cells) + " |")
    return [*told, *head, *body]


def typed(row: dict[str, str], kind: Kind) -> str:
    """Return a published row's attack or defense as it would be typed here."""
    options_of = row[f"{kind}_options"]
    return row[kind] + (f"[{options_of}]" if options_of else "")


def natural(text: str) -> list[tuple[int, str]]:
    """Return what sorts `repeats=10` after `repeats=9`."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


def main() -> None:
    """Write the pages, or say which are not up to date."""
    made = pages()
    if "--check" in sys.argv[1:]:
        stale = [
            path for path, text in made.items() if not path.exists() or path.read_text() != text
        ]
        stale += [p for f in FOLDERS.values() for p in (HERE / f).glob("*.md") if p not in made]
        for path in stale:
            print(f"{path} is not what the code says; run python docs/make.py")
        raise SystemExit(bool(stale))
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    print(f"{len(made)} pages")


if __name__ == "__main__":
    main()
