"""The HTML report: one page that needs no server, no network and no other file.

The page's Content-Security-Policy forbids every request and every script except its own, which the
policy names by its hash.
"""

import base64
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from ..common.text import one_line, shell_line, write_text
from .boards import page_boards, settings_data, tabs
from .charts import charts, legend
from .compare import NOTHING_MEANT, Meanings
from .confusion_page import png_uri
from .detection import detection_layouts
from .entries import View, audit_of, fact_list, value_in_words
from .figures import figures
from .folder import Picture, Results
from .groups import MethodSpec
from .layout import Layout
from .over_victims import by_victim_layouts
from .series import Figure, curves_figures, method_title
from .tables import Metric, leaderboards
from .templates import asset, rendered
from .words import seconds

PAGE = "index.html"
METRIC_NAMES: tuple[tuple[str, Metric], ...] = (("last", "test_acc"), ("best", "test_acc_best"))


def write_page(
    results: Results, folder: Path | str | None = None, meanings: Meanings = NOTHING_MEANT
) -> Path:
    """Write the page into the results' own folder, or into another one, and return its path.

    `meanings` say which options of a method are those of the published numbers.
    """
    path = Path(results.folder if folder is None else folder) / PAGE
    write_text(path, render(results, meanings))
    return path


def render(results: Results, meanings: Meanings = NOTHING_MEANT) -> str:
    """Return the whole page as HTML."""
    boards, entries = page_boards(results, meanings)
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    config = results.run.config
    return rendered(
        "page.jinja",
        title=one_line(str(config.get("title") or ""))
        or one_line(results.folder.resolve().name)
        or "results",
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        script=Markup(script),
        counts=_counts(results),
        tabs=tabs(boards, results),
        boards=boards,
        over_victims=_over_victims(results),
        entries=entries,
        curves=curves_views(results),
        figures=figure_views(results),
        detection=detection_layouts(results.detection, results.titles),
        poisons=poison_views(results),
        gaps=results.gaps,
        provenance=_provenance(results),
        methods=_methods(results),
        cells_csv="data:text/csv;base64,"
        + base64.b64encode(results.cells.to_csv(index=False).encode()).decode(),
    )


def _over_victims(results: Results) -> list[tuple[str, Layout]]:
    """Return the tables of attacks by victim, each with the metric that it shows."""
    return [
        (name, table)
        for name, metric in METRIC_NAMES
        for table, _ in by_victim_layouts(
            leaderboards(results.cells_with_chance, metric), results.titles
        )
    ]


def _counts(results: Results) -> list[tuple[str, str]]:
    cells = results.cells
    status = Counter(cells["status"])
    finished = cells[cells["status"] == "ok"]
    poisons = finished.drop_duplicates("poison_sha256")
    spent = finished["train_seconds"].sum() + poisons["craft_seconds"].sum()
    poisoned = cells[cells["attack"] != "none"]
    counts = [
        (str(len(poisoned[["attack", "attack_options"]].drop_duplicates())), "attacks"),
        (str(len(cells[["defense", "defense_options"]].drop_duplicates())), "defenses"),
        (str(status["ok"]), "trained models"),
        (seconds(float(spent)), "crafting and training"),
    ]
    lost = [(str(status[name]), name) for name in ("failed", "skipped") if status[name]]
    return counts + lost


def figure_views(results: Results) -> list[View]:
    """Return every plot that the results allow, in both metrics."""
    return [
        _plot_view(figure, name)
        for name, metric in METRIC_NAMES
        for figure in figures(results, metric)
    ]


def curves_views(results: Results) -> list[View]:
    """Return the plots of accuracy during training, which suit both metrics."""
    return [_plot_view(figure, "") for figure in curves_figures(results)]


def _plot_view(figure: Figure, metric: str) -> View:
    """Return a plot; its metric is `last`, `best`, or empty for a plot that suits both."""
    return {
        "figure": figure,
        "metric": metric,
        "data": settings_data(figure.settings, *figure.varied),
        "charts": charts(figure),
        "legend": legend(figure),
    }


def poison_views(results: Results) -> list[View]:
    """Return the poisons with their pictures, measurements and hashes."""
    rows = results.cells[results.cells["poison_sha256"] != ""]
    attacks = {
        str(row["poison_sha256"]): MethodSpec(str(row["attack"]), str(row["attack_options"]))
        for row in rows.to_dict("records")
    }
    several = rows["poison_seed"].nunique() > 1
    poisons = []
    for key, poison in results.run.poisons.items():
        recipe = poison["recipe"] if isinstance(poison.get("recipe"), dict) else {}
        attack = one_line(str(recipe.get("attack", "")))
        spec = one_line(str(poison.get("spec") or attack or poison.get("file") or key[:8]))
        method = attacks.get(str(poison.get("sha256")), MethodSpec(spec.partition("[")[0]))
        picture = results.pictures.get(key[:8], Picture(b"", 0, 0))
        origin = {
            "recipe": spec,
            "budget": poison.get("budget"),
            "seed": recipe.get("seed"),
            "crafting": seconds(poison.get("craft_seconds")),
            **{name: poison.get(name) for name in ("device", "file", "sha256")},
        }
        poisons.append(
            {
                "id": "poison-" + re.sub(r"[^A-Za-z0-9_-]", "", key[:8]),
                "title": method_title(results, method) + f", seed {origin['seed']}" * several,
                "picture": png_uri(picture.png) if picture.png else "",
                "width": picture.width,
                # Each class with the number of its columns in the picture.
                "classes": list(Counter(picture.classes).items()),
                "factor": f"× {picture.factor:.3g}; {picture.why}" if picture.factor else "",
                "audit": audit_of(poison),
                "origin": fact_list(origin),
            }
        )
    return poisons


def _provenance(results: Results) -> dict[str, Any]:
    """Return what the results come from: command, configuration, versions, machine and data."""
    run = results.run
    versions = Counter(
        ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))
        for record in results.records.values()
        if record.versions
    )
    return {
        "command": shell_line(run.command) if run.command else "",
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
        if run.config
        else "",
        "versions": fact_list(run.versions),
        "cell_versions": [(one_line(text), n) for text, n in versions.most_common()],
        "machine": fact_list(run.machine),
        "datasets": [
            (
                one_line(name),
                fact_list({"shape": known.shape, "classes": len(known.class_names)}),
                one_line(known.fingerprint),
            )
            for name, known in run.datasets.items()
        ],
        "failures": [
            (
                one_line(value_in_words(failure.get("cell"))),
                value_in_words(failure.get("error")),
                str(failure.get("traceback", "")),
            )
            for failure in run.failures.values()
        ],
    }


def _methods(results: Results) -> list[tuple[str, str, str, str]]:
    used = {*results.cells["attack"], *results.cells["defense"]}
    return [
        (one_line(name), one_line(facts.title), one_line(facts.source), paper_link(facts.source))
        for name, facts in results.run.methods.items()
        if name in used
    ]


def paper_link(source: str) -> str:
    """Return the address of a source with an arXiv number; empty for others."""
    match = re.search(r"arXiv:(\d{4}\.\d{4,5})\b", source)
    return f"https://arxiv.org/abs/{match[1]}" if match else ""
