"""The records to which the page's cells link: all runs of one attack under one defense."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..common.text import one_line
from .charts import Chart, small_chart
from .confusion_page import confusion
from .folder import Results
from .groups import CellRow
from .records import CellRecord
from .words import percent, seconds

FactList = tuple[tuple[str, str], ...]
AUDIT = {
    "linf_max": "linf, largest (levels of 255)",
    "linf_mean": "linf, mean (levels of 255)",
    "l2_max": "l2, largest",
    "l2_mean": "l2, mean",
    "l0_max": "pixels changed, largest",
    "l0_mean": "pixels changed, mean",
    "psnr_mean": "PSNR, mean (dB)",
    "ssim_mean": "SSIM, mean",
    "changed_share": "share of images changed",
    "labels_differ": "labels that differ",
    "order_kept": "order kept",
}
"""The names of a poison's measurements, and what the page calls them."""


View = dict[str, Any]
"""One thing of the page, by the names that the template uses; it is read nowhere else."""


def entry_id(runs: Sequence[CellRow]) -> str:
    """Return the id of an entry, which depends on its runs alone, so that links to it last."""
    keys = [str(run["key"]) for run in runs]
    if len(keys) == 1 and re.fullmatch(r"[0-9a-f]{12,64}", keys[0]):
        return f"cell-{keys[0][:12]}"
    runs_in_words = [f"{run['key']}|{run['attack']}|{run['defense']}|{run['seed']}" for run in runs]
    return f"cells-{hashlib.sha256(chr(10).join(runs_in_words).encode()).hexdigest()[:12]}"


def cell_slug(run: CellRow) -> str:
    """Return the name of a cell's page on the site: the first digits of its key.

    A key that is no hash becomes one, so that nothing foreign is a path.
    """
    key = str(run["key"])
    if not re.fullmatch(r"[0-9a-f]{16,64}", key):
        cell = [key, run["attack"], run["defense"], run["seed"]]
        key = hashlib.sha256("|".join(map(str, cell)).encode()).hexdigest()
    return key[:16]


def shown_entry(
    results: Results, id: str, title: str, settings: str, runs: Sequence[CellRow]
) -> View:
    """Return an entry with everything that the folder has about its runs."""
    shown = [_shown_run(results, run) for run in runs]
    return {"id": id, "title": title, "settings": settings, "runs": shown}


def audit_of(poison: Mapping[str, Any]) -> FactList:
    """Return the measurements of a poison under the names that the page gives them."""
    return fact_list({words: poison.get(name) for name, words in AUDIT.items()})


def fact_list(values: Mapping[str, Any]) -> FactList:
    """Return names and values in words; unknown values are left out."""
    texts = ((name, value_in_words(value)) for name, value in values.items())
    return tuple((one_line(str(name)), text) for name, text in texts if text)


def value_in_words(value: Any) -> str:
    """Return a value for a reader: short numbers, yes or no, lists separated by commas."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(value_in_words(each) or "none" for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {value_in_words(each)}" for name, each in value.items())
    return one_line(str(value))


def _shown_run(results: Results, run: CellRow) -> View:
    key = str(run["key"])
    record = results.record(key)
    poison_key, poison = results.poisons.get(str(run["poison_sha256"]), ("", {}))
    matrix = record.confusion
    names = results.class_names(run["dataset"], len(matrix))
    seed = f", poison seed {run['poison_seed']}" if run["poison_seed"] is not None else ""
    return {
        "key": key,
        "slug": cell_slug(run),
        "heading": f"training seed {run['seed']}{seed}",
        "status": run["status"],
        "error": run["error"],
        "traceback": str(results.run.failures.get(key, {}).get("traceback", "")),
        "measured": _measured(run),
        "training": _training_facts(run, record),
        "options": _options(results, key),
        "charts": _charts(record.curve),
        "confusion": confusion(matrix, names) if matrix else None,
        "poison": poison_key[:8],
        "audit": audit_of(poison),
    }


def _measured(run: CellRow) -> FactList:
    def shown(name: str) -> str:
        return f"{percent(run[name])} %" if run[name] is not None else ""

    best = shown("test_acc_best")
    if best and run["best_epoch"] is not None:
        best += f" (epoch {run['best_epoch']})"
    robust, radius = shown("robust_acc"), run["robust_radius"]
    if robust and radius is not None:
        robust += f" ({value_in_words(run['robust_norm'])} {value_in_words(radius)})"
    return fact_list(
        {
            "test accuracy, last epoch": shown("test_acc"),
            "test accuracy, best epoch": best,
            "training accuracy, un-augmented": shown("train_acc"),
            "robust accuracy, PGD-20": robust,
            "accuracy, last layer refitted to clean images": shown("dfr_acc"),
            "best accuracy under weight noise": shown("weight_noise_acc"),
        }
    )


def _training_facts(run: CellRow, record: CellRecord) -> FactList:
    """Return what a training cost, and the hashes and versions that identify it."""
    share, speed, memory = record.augment_share, record.images_per_second, run["peak_memory_mb"]
    return fact_list(
        {
            "crafting": seconds(run["craft_seconds"]) if run["attack"] != "none" else "",
            "preparing": seconds(record.prepare_seconds),
            "training": seconds(run["train_seconds"]),
            "images per second": f"{speed:,.0f}" if speed is not None else "",
            "time spent augmenting": f"{100 * share:.0f} %" if share is not None else "",
            "peak memory": f"{memory:,.0f} MB" if memory is not None else "",
            "training images": run["n_train"],
            "test images": run["n_test"],
            "device": run["device"],
            "precision": run["precision"],
            "half of the budget": record.half_budget,
            "versions": record.versions,
            "key": run["key"],
            "poison sha256": run["poison_sha256"],
            "record sha256": run["record_sha256"],
            "taken from": run["origin"],
        }
    )


def _options(results: Results, key: str) -> tuple[tuple[str, FactList], ...]:
    recipe = results.run.recipes.get(key, {})
    parts = {
        "attack": results.options(key, "attack"),
        "poison": _without(recipe.get("poison"), "options"),
        "defense": results.options(key, "defense"),
        "protocol": _without(recipe.get("protocol")),
        "cell": _without(recipe, "poison", "options", "protocol"),
    }
    return tuple((name, pairs) for name, part in parts.items() if (pairs := fact_list(part)))


def _without(value: Any, *left_out: str) -> dict[str, Any]:
    parts = value.items() if isinstance(value, dict) else ()
    return {name: part for name, part in parts if name not in left_out}


def _charts(curve: Mapping[str, Sequence[float | None]]) -> list[Chart]:
    epochs = curve.get("epoch", [])
    drawn = []
    for column, label, factor, unit in (
        ("test_acc", "test accuracy (%)", 100.0, "%"),
        ("train_acc", "training accuracy (%)", 100.0, "%"),
        ("loss", "training loss", 1.0, ""),
    ):
        pairs = zip(epochs, curve.get(column, []), strict=False)
        line = [(x, y * factor) for x, y in pairs if x is not None and y is not None]
        if line:
            drawn.append(small_chart(line, "epoch", label, unit))
    return drawn
