"""A comparison with published numbers as a table, and as rows for CSV and JSON."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .compare import Compared, Ours, rank_correlations
from .layout import Layout, Shown, TableRow
from .statistics import LEVEL
from .words import Label, percent

AGAINST = "against the span"


def comparison_layout(compared: Sequence[Compared]) -> Layout:
    """Return ours, what each source printed with the difference, and where ours lies."""
    sources = sorted({source for each in compared for source in each.published})
    stub, corner = compared[0].ours.heads if compared else Ours.heads
    rows = []
    for each in compared:
        ours = each.ours
        spread = "" if math.isnan(ours.stat.sd) else percent(ours.stat.sd)
        mine = Shown(percent(ours.stat.mean), spread, f"n={ours.stat.n}" if spread else "")
        cells = (mine, *(_theirs(each, source) for source in sources), _against(each))
        rows.append(TableRow(Label(ours.column), cells, ours.row, ours.row))
    return Layout(
        caption="Our results and published ones: test accuracy (%)",
        corner=corner,
        columns=(Label("ours"), *map(Label, sources), Label(AGAINST)),
        rows=tuple(rows),
        note=_note(compared),
        stub=stub,
    )


def comparison_records(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return one row per entry of ours and source, with accuracies and differences in [0, 1]."""
    return [
        {
            "row": each.ours.row,
            "column": each.ours.column,
            **each.ours.record(),
            "source": source,
            "published_low": values[0],
            "published_high": values[-1],
            "difference": each.difference(source),
            "span_low": each.span[0],
            "span_high": each.span[1],
            "outside_span": each.outside,
            "within_noise": each.within_noise,
            "differs": "; ".join(
                f"{what}: {ours}, {' or '.join(theirs)}" for what, ours, theirs in each.differs
            ),
        }
        for each in compared
        for source, values in sorted(each.published.items())
    ]


def caveats(compared: Sequence[Compared]) -> list[str]:
    """Return a sentence that lists how the protocols differ, or nothing if they agree."""
    published: dict[str, dict[str, set[str]]] = {}
    for each in compared:
        for what, ours, theirs in each.differs:
            published.setdefault(what, {}).setdefault(ours, set()).update(theirs)
    if not published:
        return []
    differences = [
        f"{what} ({'; '.join(_pair(*pair) for pair in pairs.items())})"
        for what, pairs in published.items()
    ]
    return [f"The protocols are not comparable. They differ in: {', '.join(differences)}"]


def _pair(ours: str, theirs: Iterable[str]) -> str:
    """Return our value of a setting and the published ones, numbers by size."""
    in_order = sorted(theirs, key=_by_size)
    return f"ours {ours}, published {' or '.join(in_order)}"


def _by_size(text: str) -> tuple[int, str]:
    digits = text.replace(",", "")
    return (int(digits) if digits.isdecimal() else 0, text)


def _theirs(each: Compared, source: str) -> Shown:
    values = each.published.get(source)
    if values is None:
        return Shown()
    texts = dict.fromkeys(percent(value) for value in values)
    return Shown(
        "–".join([*texts][:: max(1, len(texts) - 1)]), remark=_signed(each.difference(source))
    )


def _against(each: Compared) -> Shown:
    if not each.outside:
        return Shown("inside")
    where = f"{percent(abs(each.outside))} {'above' if each.outside > 0 else 'below'}"
    return Shown(where, remark="within noise" if each.within_noise else "", bold=True)


def _signed(difference: float) -> str:
    return f"{'+' if difference >= 0 else '-'}{percent(abs(difference))}"


def _note(compared: Sequence[Compared]) -> str:
    inside = sum(not each.outside for each in compared)
    sentences = caveats(compared) or [
        "Data set, its size, network and epochs agree; other settings may differ"
    ]
    sentences += [
        "In parentheses after each published number: ours minus it",
        "README.md next to the published numbers (results/published, or uebench/published where "
        "uebench is installed) says what each source is",
        f"{inside} of {len(compared)} are inside the span of their sources; bold: outside it "
        f"(within noise: its {LEVEL:.0%} interval reaches the span)",
    ]
    for source, (rho, n) in rank_correlations(compared).items():
        if not math.isnan(rho):
            sentences.append(f"Spearman's rank correlation with {source}: {rho:.2f} over {n} cells")
    return ". ".join(sentences) + "."
