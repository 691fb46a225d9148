"""The measurements of a poison as a person reads them: one per line, with its unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from ..common.text import counted, duration, one_line

_UNITS = {"linf": "levels of 255", "l2": "in the pixel range [0, 1]", "l0": "pixels"}
"""What each norm of the perturbation counts."""


class Measurements(dict[str, Any]):
    """What was measured of a poison, by name; it shows itself as a person reads it."""

    def __repr__(self) -> str:
        return "\n".join(measured_lines(self))

    def _repr_html_(self) -> str:
        """Return the measurements as a table, which notebooks display."""
        rows = "".join(
            f'<tr><th style="text-align: left">{escape(name)}</th>'
            f'<td style="text-align: left">{escape(one_line(text))}</td></tr>'
            for name, text in _lines(self)
        )
        return f"<table>{rows}</table>"


def measured_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what was measured of a poison by `craft`, `audit` or `import`, in aligned lines."""
    return _aligned(_lines(facts))


def purified_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what is known of a purified training set, in aligned lines."""
    to_poison, to_clean = (
        f"PSNR {facts[f'psnr_to_{what}']:.4g} dB, SSIM {facts[f'ssim_to_{what}']:.4g}"
        for what in ("poison", "clean")
    )
    return _aligned(
        [
            ("name", facts["name"]),
            ("purified", f"{facts['of']} on {facts['dataset']}, seed {facts['poison_seed']}"),
            ("by", facts["by"]),
            *_reading(facts),
            ("images", f"{facts['images']:,}"),
            ("against the poison", to_poison),
            ("against the clean images", to_clean),
            ("sha256 of the poison", facts["poison_sha256"]),
            ("sha256", facts["sha256"]),
        ]
    )


def _aligned(named: Iterable[tuple[str, str]]) -> list[str]:
    lines = [(name, one_line(text)) for name, text in named]
    widest = max(len(name) for name, _ in lines)
    return [f"{name.ljust(widest)}  {text}" for name, text in lines]


def _lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each measurement that is known."""
    if "name" in facts:
        yield "name", str(facts["name"])
    if "spec" in facts:
        yield "attack", str(facts["spec"])
    for part in facts.get("parts", ()):
        yield "part", f"{counted(part['images'], 'image')} by {part['attack']}"
    if "form" in facts:
        yield from _reading(facts)
    if made_from := facts.get("made_from"):
        yield "made from", f"{made_from}, by its record: NOT the data set that it is compared with"
    if "images" in facts:
        covered = f"{facts['images']:,} of {counted(facts['training_images'], 'training image')}"
        yield "images", covered
    share = f"{100 * facts['changed_share']:.4g} % of the images"
    yield "changed", share if facts["changed_share"] else "no image: it is the clean data set"
    for norm, unit in _UNITS.items():
        mean, largest = facts[f"{norm}_mean"], facts[f"{norm}_max"]
        worst = facts.get(f"{norm}_worst_index")
        where = "" if worst is None else f" (image {worst})"
        yield norm, f"mean {mean:.4g}, largest {largest:.4g}{where}, {unit}"
    for name, unit in (("psnr", " dB"), ("ssim", "")):
        value = facts[f"{name}_mean"]
        text = "infinite: no image is changed" if value is None else f"mean {value:.4g}{unit}"
        yield name.upper(), text
    yield from _budgets(facts)
    yield from _order(facts)
    if "craft_seconds" in facts:
        memory = f"{facts['peak_memory_mb']:,.0f} MB of memory at most"
        yield "crafted in", f"{duration(facts['craft_seconds'])} on {facts['device']}, {memory}"
    recorded = {True: ", as recorded", False: ", NOT as recorded", None: ""}
    yield "sha256", f"{facts['sha256']}{recorded[facts.get('as_recorded')]}"


def _reading(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how a released file was read."""
    white = 1 if facts["scale"] == "unit" else 255
    kind = "poisoned images" if facts["kind"] == "images" else "perturbations"
    per_class = ", one per class" if facts["class_wise"] else ""
    wrapped = ", with negative values that wrapped around" if facts["wrapped_negatives"] else ""
    layout = f"{facts['layout']} {facts['dtype']}, white is {white}"
    yield "file", f"{facts['form']}, array {facts['array']}: {layout}"
    yield "read as", f"{kind}{per_class}{wrapped}"
    for name, what in (("fractional", "between two levels"), ("clipped", "outside the range")):
        if share := facts[f"{name}_share"]:
            how = f", {facts['rounding']}d to 8 bits" if name == "fractional" else ", clipped"
            yield name, f"{100 * share:.4g} % of the values lie {what}{how}"
    if facts["not_used"]:
        yield "not used", ", ".join(facts["not_used"])


def _budgets(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the budget that an attack kept, or the usual budgets with how many images keep them."""
    match facts.get("budget"):
        case {"norm": "none"} if "parts" in facts:
            yield "budget", "none in common; each part keeps its own"
        case {"norm": "none"}:
            yield "budget", "none; any change is allowed"
        case {"norm": norm, "eps": eps} if "craft_seconds" in facts:
            radius = f"{255 * eps:.4g}/255" if norm == "linf" else f"{eps:.4g}"
            rounding = ", apart from rounding to 8 bits" if norm == "l2" else ""
            yield "budget", f"{norm} {radius}, kept by all images{rounding}"
    if "budgets" in facts:
        for name, budget in facts["budgets"].items():
            yield f"budget {name}", _budget_in_words(budget, facts["images"])
        kept = [name for name, is_kept in facts["budgets_kept"].items() if is_kept]
        yield "kept by all images", ", ".join(kept) or "none of the usual budgets"


def _order(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield whether labels and order are those of the clean training set."""
    if "labels_differ" in facts:
        differing = facts["labels_differ"]
        if differing is None:
            yield "labels", "none in the file; those of the clean set are taken"
        elif differing:
            first = ", ".join(map(str, facts["labels_differ_at"]))
            yield "labels", f"{differing:,} differ from the clean set, the first at {first}"
        else:
            yield "labels", "those of the clean set"
        if facts["usable"]:  # otherwise the order may be the fault, whatever the index says
            kept = facts["order_kept"]
            yield "order", "that of the training set" if kept else "another one, given by index"
        yield "usable", "yes" if facts["usable"] else f"no: {facts['why_not_usable']}"


def _budget_in_words(budget: dict[str, Any], n: int) -> str:
    """Return how many images keep a budget, and what it allows them."""
    percent = math.floor(1e5 * budget["share"]) / 1e3  # rounded down, so that 100 % means all
    kept = f"{budget['images']:,} of {n:,} images ({percent:g} %)"
    if budget["unit"] == "pixels":
        return f"{kept}; at most {counted(int(budget['limit']), 'pixel')}"
    if not budget["rounding"]:
        return f"{kept}; at most {budget['limit']:g} {budget['unit']}"
    nominal = budget["limit"] - budget["rounding"]
    return (
        f"{kept}; at most {budget['limit']:.4g}, which is {nominal:.4g} and "
        f"{budget['rounding']:.4g} for rounding to 8 bits"
    )
