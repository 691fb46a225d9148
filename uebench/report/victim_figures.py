"""The plot over target models: accuracy by network and victim, in the order of the plan.

With networks from a linear model to a ResNet it shows how deep a network must be for an attack to
work: shallow ones do not learn from some poisons what deep ones do.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from .cells import SUPERVISED_VICTIM
from .folder import Results
from .groups import CellRow, Settings, grouped, the_attack, the_defense
from .series import Figure, make_figure, make_panels, mean_points
from .tables import Metric


def victims_figures(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return accuracy by target model, with one panel per defense and one line per attack."""
    merged: dict[Settings, list[CellRow]] = {}
    for settings, runs in grouped(results.cells).items():
        common = replace(settings, arch="", victim="", epochs=None)
        merged.setdefault(common, []).extend(runs)
    figures = []
    for settings, runs in merged.items():
        done = [run for run in runs if run["status"] == "ok"]
        name_of = partial(_name, {(_victim(run), _arch(run)) for run in done})
        names = list(dict.fromkeys(map(name_of, done)))
        if len(names) < 2:
            continue
        points = partial(mean_points, metric, partial(_place, names, name_of))
        figures += make_figure(
            results,
            settings,
            make_panels(results, runs, the_defense, the_attack, points),
            metric,
            kind="victims",
            title="Accuracy by target model",
            x_label="target model",
            x_names=tuple(names),
            varied=("arch", "victim", "epochs"),
        )
    return figures


def _place(names: Sequence[str], name_of: Callable[[CellRow], str], run: CellRow) -> float:
    """Return where a target model stands on the axis."""
    return float(names.index(name_of(run)))


def _name(models: Collection[tuple[str, str]], run: CellRow) -> str:
    """Return a short name of a target model, since names stand side by side below the axis.

    Supervised models are called by their networks where these differ, and those of another victim
    by the victim, with the network only if the victim trains several.

    Args:
        models: victim and network of all target models of the figure.
        run: one of them.
    """
    victim, arch = _victim(run), _arch(run)
    is_supervised = victim == SUPERVISED_VICTIM
    scope = models if is_supervised else {model for model in models if model[0] == victim}
    if len({network for _, network in scope}) < 2:
        return victim
    return arch if is_supervised else f"{arch}, {victim}"


def _arch(run: CellRow) -> str:
    return str(run["arch"]).partition("[")[0].removeprefix("timm:")


def _victim(run: CellRow) -> str:
    return (run["victim"] or SUPERVISED_VICTIM).partition("[")[0]
