"""Write a page for every attack, defense and victim, and the picture of the leaderboard.

    python docs/make.py            write docs/{attacks,defenses,victims}/*.md and leaderboard.svg
    python docs/make.py --check    exit with status 1 if a page is out of date

The text of a page comes from the method's docstring, its options and `results/published`, so that
nothing has to be written twice.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any

from uebench.common.text import duration
from uebench.methods.meanings import known_meanings
from uebench.methods.registry import KINDS, Kind, methods
from uebench.report import leaderboards, read_results
from uebench.report.colors import ink_on, ramp
from uebench.report.compare import as_published, distinguishing, half_of
from uebench.suite.listing import describe

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "results" / "published"
FOLDERS: dict[Kind, str] = {kind: f"{kind}s" for kind in KINDS}
MEANINGS = known_meanings()
DATASET = "cifar10"
"""The data set whose published numbers a page prints; the CSV files have the others too."""


def pages() -> dict[Path, str]:
    """Return the text of every page by its path; plug-ins document themselves elsewhere."""
    texts = {}
    for kind, folder in FOLDERS.items():
        names = [n for n, cls in methods(kind).items() if cls.info.origin == "built-in"]
        for name in names:
            texts[HERE / folder / f"{name}.md"] = page(kind, name)
        texts[HERE / folder / "README.md"] = index(kind, names)
    texts[HERE / "leaderboard.svg"] = leaderboard_picture(HERE.parent / "results" / "cifar10")
    return texts


def leaderboard_picture(folder: Path) -> str:
    """Return an SVG of a results folder's leaderboard, coloured from chance to clean accuracy."""
    results = read_results(folder)
    (board,) = leaderboards(results.cells_with_chance)
    titles = results.titles
    accuracy = {pair: entry.test_acc.mean for pair, entry in board.entries.items()}
    chance, top = board.chance or 0.0, max(accuracy.values())
    wide, high, left, head = 124, 34, 132, 40
    width, height = left + wide * len(board.defenses) + 8, head + high * len(board.attacks) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="15">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]

    def text(x: float, y: float, words: str, anchor: str, ink: str = "#1a1a1a") -> str:
        return (
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{ink}">{escape(words)}</text>'
        )

    for i, defense in enumerate(board.defenses):
        parts.append(text(left + wide * (i + 0.5), head - 14, titles[defense.name], "middle"))
    for j, attack in enumerate(board.attacks):
        y = head + high * j
        words = "clean images" if attack.is_clean else titles[attack.name]
        parts.append(text(left - 12, y + high / 2 + 5, words, "end"))
        for i, defense in enumerate(board.defenses):
            value = accuracy[attack, defense]
            color = ramp((value - chance) / (top - chance))
            x = left + wide * i
            parts.append(
                f'<rect x="{x}" y="{y}" width="{wide - 2}" height="{high - 2}" fill="{color}"/>'
            )
            middle = (x + wide / 2, y + high / 2 + 5)
            parts.append(text(*middle, f"{100 * value:.1f}", "middle", ink_on(color)))
    return "\n".join([*parts, "</svg>", ""])


def index(kind: Kind, names: list[str]) -> str:
    """Return the page that lists all methods of one kind."""
    rows = [describe(kind, name) for name in names]
    lines = [
        f"# {FOLDERS[kind].capitalize()}",
        "",
        "| name | description | source |",
        "| --- | --- | --- |",
    ]
    for row in rows:
        first = row["text"].partition("\n\n")[0].replace("\n", " ")
        lines.append(f"| [`{row['name']}`]({row['name']}.md) | {first} | {link(row['source'])} |")
    return "\n".join([*lines, ""])


def page(kind: Kind, name: str) -> str:
    """Return the page of one method: description, options, and published numbers."""
    method = describe(kind, name)
    text = [
        f"# {method['title']} (`{name}`)",
        "",
        f"Source: {link(method['source'])}. Version {method['version']} of this suite's recipe.",
        "",
        plain(method["about"] or method["text"]),
        "",
        "## Options",
        "",
        *options(name, method["options"]),
        "",
        *cost(kind, name),
        "## Published numbers",
        "",
        *published(kind, name),
        "",
    ]
    return "\n".join(text)


def cost(kind: Kind, name: str) -> list[str]:
    """Return the section on what a method costs, if the benchmarks have measured it."""
    file = HERE / "costs" / f"{FOLDERS[kind]}.csv"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    rows = list(csv.DictReader(text.splitlines()))
    row = next((row for row in rows if row[kind] == name), None)
    if row is None:
        return []
    if kind == "attack":
        passes = int(row["passes"])
        work = f"takes {passes:,} passes of the surrogate per image and" if passes else "takes"
        part = ", with the surrogate of the protocol `quick` (resnet8)" if passes else ""
        rounds = getattr(methods("attack")[name], "usual_rounds", None)
        until = f", if its stop test ends it after {rounds} rounds as usual" if rounds else ""
        text = (
            f"Crafting for 50,000 CIFAR images {work} about {duration(float(row['seconds']))} of "
            f"one core{until}{part}. The figure comes from `benchmarks/craft_costs.py`, which runs "
            "fewer images and steps of long searches, and it includes the checks of the result, "
            "which alone take about 5 s."
        )
    else:
        text = (
            f"A training step of {row['arch']} takes {row['median']} ({row['lowest']} to "
            f"{row['highest']}) times as long as under standard training, without what the defense "
            "computes before the training (`benchmarks/step_costs.py`). The share of an "
            "augmentation is smaller with larger networks."
        )
    return [
        "## Cost",
        "",
        f"{text} Measured on {row['machine']}, in processor time alongside other work.",
        "",
    ]


def plain(text: str) -> str:
    """Return a docstring with one line per paragraph, so that the viewer of a page wraps it."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def link(source: str) -> str:
    """Return a source, with a link if it is an arXiv number."""
    first, comma, rest = source.partition(",")
    number = first.removeprefix("arXiv:")
    if number == first:
        return source or "none"
    return f"[{first}](https://arxiv.org/abs/{number}){comma}{rest}"


def options(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of a method's options, and an example of setting one."""
    if not rows:
        return ["None."]
    lines = ["| option | default | accepts | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"`{row['name']}`", f"`{row['default']}`", row["accepts"], row["meaning"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    setting = example(rows)
    hint = (
        f"Set an option in brackets, `{name}[{setting}]`, or for a whole run with "
        f"`--set {name}.{setting}`."
    )
    return [*lines, "", hint]


def example(rows: list[dict[str, Any]]) -> str:
    """Return an option with its default as a user would type it, preferably not an `auto` one."""
    ranked = sorted(rows, key=lambda row: (row["default"] in ("", "auto"), row["name"] == "norm"))
    return f"{ranked[0]['name']}={ranked[0]['default']}"


def published(kind: Kind, name: str) -> list[str]:
    """Return the test accuracies that papers print for a method on CIFAR-10, ResNet-18."""
    if kind == "victim":
        return ["The files in `results/published` have numbers of supervised training alone."]
    other: Kind = "defense" if kind == "attack" else "attack"
    rows: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    foreign = set()
    for file in sorted(PUBLISHED.glob("*.csv")):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                here = row["dataset"] == DATASET and row["arch"] == "resnet18"
                if here and is_of(kind, name, row):
                    pair = typed(row, kind), typed(row, other)
                    copied = " [S]" if row.get("secondhand") else ""
                    rows[pair][file.stem].append(row["accuracy"] + copied)
                    if row[other] not in methods(other):
                        foreign.add(row[other])
    if not rows:
        return ["None in `results/published` for CIFAR-10 and ResNet-18."]
    sources = sorted({source for by_source in rows.values() for source in by_source})
    text = [
        "Test accuracy in percent on CIFAR-10 with ResNet-18, with one column per source in "
        "[`results/published`](../../results/published/README.md). Several numbers in one cell "
        "belong to different settings, such as longer training; [S] marks numbers that a source "
        "copied, or that others noted about it.",
    ]
    if foreign:
        names = ", ".join(f"`{each}`" for each in sorted(foreign))
        text += ["", f"This suite has no {names}; those numbers are quoted from their source."]
    head = [
        "",
        f"| {kind} | {other} | " + " | ".join(sources) + " |",
        "| --- | --- |" + " --: |" * len(sources),
    ]
    body = []
    for own, who in sorted(rows, key=lambda pair: (natural(pair[0]), natural(pair[1]))):
        by_source = rows[own, who]
        cells = [", ".join(dict.fromkeys(by_source.get(source, []))) for source in sources]
        body.append(f"| `{own}` | `{who}` | " + " | ".join(cells) + " |")
    return [*text, *head, *body]


def is_of(kind: Kind, name: str, row: dict[str, str]) -> bool:
    """Return whether a published row is of a method, or of a preset under its method's name.

    `at8` is printed as `at[radius=8/255]`, with or without an augmentation, and `at4` as plain `at`
    where half of the attack's budget is 4/255.
    """
    base, preset = as_published(name, "", MEANINGS)
    if base == name or row[kind] != base:
        return row[kind] == name
    half = half_of(row["attack"], row["attack_options"], DATASET, MEANINGS)
    given = distinguishing(base, row[f"{kind}_options"], MEANINGS)
    decided = {option.partition("=")[0] for option in preset}
    others = {option.partition("=")[0] for option in given - half - preset}
    return preset <= given | half and not decided & others


def typed(row: dict[str, str], kind: Kind) -> str:
    """Return the attack or defense of a published row as a user would type it."""
    options_of = row[f"{kind}_options"]
    return row[kind] + (f"[{options_of}]" if options_of else "")


def natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `repeats=10` after `repeats=9`."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


def main() -> None:
    """Write the pages, or with `--check` print those that are out of date."""
    texts = pages()
    if "--check" in sys.argv[1:]:
        stale = [
            path for path, text in texts.items() if not path.exists() or path.read_text() != text
        ]
        stale += [p for f in FOLDERS.values() for p in (HERE / f).glob("*.md") if p not in texts]
        for path in stale:
            print(f"{path} is out of date; run python docs/make.py")
        raise SystemExit(bool(stale))
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    print(f"wrote {len(texts)} pages")


if __name__ == "__main__":
    main()
