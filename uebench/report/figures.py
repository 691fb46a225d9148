"""Every plot that is drawn in both metrics, by the name that `uebench plot --kind` takes."""

from .folder import Results
from .series import Figure, budget_figures, cost_figures, ratio_figures, repeats_figures
from .tables import Metric
from .victim_figures import victims_figures

MAKERS = {
    "ratio": ratio_figures,
    "budget": budget_figures,
    "repeats": repeats_figures,
    "cost": cost_figures,
    "victims": victims_figures,
}
"""Every plot but the curves, which are the same in both metrics."""


def figures(results: Results, metric: Metric = "test_acc") -> list[Figure]:
    """Return every plot that the results allow, except the curves."""
    return [figure for make in MAKERS.values() for figure in make(results, metric)]
