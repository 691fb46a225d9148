"""Words that tables, pages and summaries share: names of methods, percentages and settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..common.text import counted, one_line
from .cells import SUPERVISED_VICTIM
from .groups import MethodSpec, Settings

Titles = Mapping[str, str]
"""Display names by the names of methods, datasets, architectures and protocols."""

CLEAN = "clean"
QUANTITIES = {
    "test_acc": "Test accuracy (%)",
    "test_acc_best": "Test accuracy (%)",
    "robust_acc": "Robust accuracy (%)",
    "gap": "Training minus test accuracy (points)",
}
"""What the metrics of tables and plots are called."""


@dataclass(frozen=True)
class Label:
    """The heading of a row or column: a method's display name, and its options if it has any."""

    title: str
    options: str = ""
    aside: str = ""
    """An explanation of a title that is not a method's."""
    mark: str = ""
    """The letter of the footnote that has the options, if they are not printed here."""

    @property
    def below(self) -> str:
        """The part that a writer may put on a second line."""
        return f"({self.aside})" if self.aside else f"[{self.options}]" if self.options else ""

    def __str__(self) -> str:
        mark = f" [{self.mark}]" if self.mark else ""
        return f"{self.title}{mark}{' ' if self.aside else ''}{self.below}"


def method_label(method: MethodSpec, titles: Titles, clean: str = "") -> Label:
    """Return the heading of a method, or `clean` for the attack `none` where that is given."""
    title = clean if clean and method.is_clean else named(method.name, titles)
    return Label(title, one_line(method.options))


def percent(accuracy: float) -> str:
    """Return an accuracy in [0, 1] as percent with one decimal, without the sign."""
    return f"{100 * accuracy:.1f}"


def seconds(value: Any) -> str:
    """Return a time in words: seconds, minutes or hours."""
    if not isinstance(value, int | float):
        return ""
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def named(name: str, titles: Titles) -> str:
    """Return the display name of anything that has one, else its own name, on one line."""
    return one_line(titles.get(name, name))


def settings_in_words(settings: Settings, titles: Titles) -> list[str]:
    """Return what the cells of a table have in common, one phrase per setting."""
    counts = {
        "epoch": settings.epochs,
        "training image": settings.n_train,
        "test image": settings.n_test,
    }
    optional = {
        "poisoning ratio {:g}": None if settings.ratio == 1 else settings.ratio,
        "poisoned classes {}": one_line(settings.classes) or None,
        "precision {}": one_line(settings.precision or "") or None,
    }
    return [
        named(settings.dataset, titles),
        *([named(settings.arch, titles)] if settings.arch else []),
        *(
            []
            if settings.victim in ("", SUPERVISED_VICTIM)
            else [f"victim {one_line(settings.victim)}"]
        ),
        f"protocol {named(settings.protocol, titles)}",
        *(counted(n, noun) for noun, n in counts.items() if n is not None),
        *(phrase.format(value) for phrase, value in optional.items() if value is not None),
    ]
