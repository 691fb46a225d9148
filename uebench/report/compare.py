"""Our results and published ones: joined by names and options, with differences and caveats.

Sources disagree on one cell by up to 30 points, so ours is held against the span from the lowest to
the highest of them. What differs in the protocols is listed, never corrected for.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from ..common.text import comma_parts
from .cells import SUPERVISED_VICTIM
from .groups import MethodSpec, Settings
from .published import N_TRAIN, Published
from .statistics import Stat, confidence_interval, over_images, spearman
from .tables import Leaderboard


@dataclass(frozen=True)
class Meaning:
    """What the options of a method mean where ours is compared with what was published.

    Attributes:
        variants: options that make another effort or variant of the same method: ours is compared
            all the same, and they are named. Any other option makes another method.
        usual: options with values that only say what the method does anyway, such as `eps=8/255`.
        half: for an attack, the options of adversarial training that say half of its usual budget
            on images of 32 px, which is what `at` takes anyway: `norm=linf` and `radius=4/255`.
    """

    variants: frozenset[str] = frozenset()
    usual: frozenset[str] = frozenset()
    half: frozenset[str] = frozenset()
    preset_of: str = ""
    """The method that this one is with other defaults, under whose name numbers are published."""
    preset: frozenset[str] = frozenset()
    """Those defaults, as options of that method."""


Meanings = Mapping[str, Meaning]
"""By the name of the method; any option of a method that is not in it makes another method."""
NOTHING_MEANT: Meanings = MappingProxyType({})


@dataclass(frozen=True)
class Ours:
    """One of our entries: what was asked, under which settings, and what came out."""

    row: str
    column: str
    attack: str
    attack_options: str
    defense: str
    defense_options: str
    settings: Settings
    stat: Stat
    epochs: int | None = None
    """Epochs that its models were trained for, where they are known."""
    beside: str = ""
    """The attack next to which a clean entry stands."""
    heads: tuple[str, str] = ("attack", "defense")
    """What its table's rows and columns are."""

    @property
    def n_test(self) -> int | None:
        """Test images that the accuracy was counted on."""
        return self.settings.n_test

    @property
    def attack_spec(self) -> MethodSpec:
        """Its attack, as leaderboards name it."""
        return MethodSpec(self.attack, self.attack_options)

    @property
    def defense_spec(self) -> MethodSpec:
        """Its defense, as leaderboards name it."""
        return MethodSpec(self.defense, self.defense_options)

    @property
    def models(self) -> tuple[Hashable, ...]:
        """Which models it is the accuracy of, wherever it stands."""
        attack = self.attack, self.attack_options
        return *attack, self.defense, self.defense_options, self.settings

    def record(self) -> dict[str, object]:
        """Return it as plain data."""
        low, high = confidence_interval(self.stat, self.n_test)
        names = ("attack", "attack_options", "defense", "defense_options")
        common = ("dataset", "arch", "protocol", "ratio", "classes", "epochs", "n_train", "n_test")
        return {
            **{name: getattr(self, name) for name in names},
            **{name: getattr(self.settings, name) for name in common},
            **{"epochs": self.epochs},
            **asdict(self.stat),
            **{"low": low, "high": high},
        }


@dataclass(frozen=True)
class Compared:
    """One of our entries with what each source printed for it."""

    ours: Ours
    published: Mapping[str, tuple[float, ...]]
    """The values of a source, lowest first; it may print a cell in several tables."""
    differs: tuple[tuple[str, str, tuple[str, ...]], ...]
    """In what the protocols differ: what, ours, and the published values."""

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest published value."""
        values = [value for each in self.published.values() for value in each]
        return min(values), max(values)

    @property
    def outside(self) -> float:
        """How far ours is above the span, or below it (negative); 0 inside."""
        low, high = self.span
        mean = self.ours.stat.mean
        return mean - high if mean > high else min(mean - low, 0.0)

    @property
    def within_noise(self) -> bool:
        """Whether the 95 % interval of ours, over seeds and test images, reaches the span."""
        low, high = over_images(self.ours.stat, self.ours.n_test)
        return low <= self.span[1] and high >= self.span[0]

    def difference(self, source: str) -> float:
        """Return ours less the mean of what a source printed."""
        values = self.published[source]
        return self.ours.stat.mean - math.fsum(values) / len(values)


def ours_of(boards: Sequence[Leaderboard], titles: Mapping[str, str]) -> list[Ours]:
    """Return the measured entries of leaderboards, named as `titles` says."""

    def shown(method: MethodSpec) -> str:
        return str(replace(method, name=titles.get(method.name, method.name)))

    return [
        Ours(
            *("clean" if attack.is_clean else shown(attack), shown(defense)),
            *(attack.name, attack.options, defense.name, defense.options),
            board.settings,
            board.stat(attack, defense),
            board.entry(attack, defense).epochs,
        )
        for board in boards
        for attack in board.attacks
        for defense in board.defenses
        if board.stat(attack, defense).n
    ]


def with_published(
    entries: Iterable[Ours],
    published: Sequence[Published],
    table: str = "",
    meanings: Meanings = NOTHING_MEANT,
) -> list[Compared]:
    """Return those of our entries for which something was published.

    Args:
        entries: ours; those without a number are left out.
        published: all that is known.
        table: of a source that has numbers in this table, these alone count.
        meanings: what the options of each method mean.
    """
    entries = [e for e in entries if e.stat.n]
    shortest: dict[Hashable, int] = {}
    for entry in entries:
        epochs = entry.epochs or 0
        shortest[_schedule(entry)] = min(epochs, shortest.get(_schedule(entry), epochs))
    compared = []
    for entry in entries:
        matching = _matching(entry, published, shortest[_schedule(entry)], table, meanings)
        if matching:
            by_source: dict[str, set[float]] = {}
            for row in matching:
                by_source.setdefault(row.source, set()).add(row.accuracy)
            values = {source: tuple(sorted(each)) for source, each in by_source.items()}
            compared.append(Compared(entry, values, tuple(_differences(entry, matching, meanings))))
    return compared


def rank_correlations(compared: Sequence[Compared]) -> dict[str, tuple[float, int]]:
    """Return Spearman's correlation of ours with each source, and over how many of our entries.

    A clean entry that stands next to several attacks is one entry, whose published numbers are
    averaged: repeated, it would count as agreement several times.
    """
    correlations = {}
    for source in sorted({source for each in compared for source in each.published}):
        theirs: dict[tuple[Hashable, float], list[float]] = {}
        for each in compared:
            key = each.ours.models, each.ours.stat.mean
            if source in each.published:
                theirs.setdefault(key, []).extend(each.published[source])
        means = [(ours, math.fsum(values) / len(values)) for (_, ours), values in theirs.items()]
        correlations[source] = spearman(means), len(means)
    return correlations


def compared_dataset(name: str, published: Sequence[Published]) -> str:
    """Return the data set with whose published numbers ours are compared.

    The same one if it has any, else one that its name begins with (`cifar10-small`), else CIFAR-10.
    """
    family = name.partition("[")[0]
    known = sorted({row.dataset for row in published}, key=len, reverse=True)
    return next((each for each in known if family == each or family.startswith(each)), "cifar10")


def distinguishing(name: str, options: str, meanings: Meanings) -> frozenset[str]:
    """Return the options that make a method another one, without usual values and variants."""
    meaning = meanings.get(name, Meaning())
    return frozenset(
        part
        for part in comma_parts(options)
        if part not in meaning.usual and part.partition("=")[0] not in meaning.variants
    )


def as_published(name: str, options: str, meanings: Meanings) -> tuple[str, frozenset[str]]:
    """Return a method and what sets it apart, with a preset as the method that it is one of."""
    meaning = meanings.get(name, Meaning())
    if not meaning.preset_of:
        return name, distinguishing(name, options, meanings)
    given = comma_parts(options)
    names = {part.partition("=")[0] for part in given}
    implied = [part for part in sorted(meaning.preset) if part.partition("=")[0] not in names]
    return meaning.preset_of, distinguishing(
        meaning.preset_of, ",".join([*implied, *given]), meanings
    )


def _schedule(entry: Ours) -> tuple[str, str, str]:
    return entry.settings.dataset, entry.settings.arch, entry.settings.protocol


def _matching(
    entry: Ours, published: Sequence[Published], shortest: int, table: str, meanings: Meanings
) -> list[Published]:
    """Return the published numbers that compare with one entry."""
    s = entry.settings
    if (s.ratio != 1 and entry.attack != "none") or s.classes:
        return []
    dataset = compared_dataset(s.dataset, published)
    wanted = distinguishing(entry.attack, entry.attack_options, meanings)
    beside = entry.beside if entry.attack == "none" else ""
    implied = half_of(entry.attack, entry.attack_options, dataset, meanings)
    name, options = as_published(entry.defense, entry.defense_options, meanings)
    defense = options - implied
    rows = [
        row
        for row in published
        if row.dataset == dataset
        and row.attack == entry.attack
        and row.defense == name
        and distinguishing(row.attack, row.attack_options, meanings) == wanted
        and (
            row.beside == beside
            if beside and row.beside
            else distinguishing(row.defense, row.defense_options, meanings) - implied == defense
        )
    ]
    family = s.arch.partition("[")[0]
    archs = {row.arch for row in rows}
    arch = family if family in archs else "resnet18"
    rows = _of_table([row for row in rows if row.arch == arch], table)
    return _of_length(rows, entry.epochs, shortest)


def half_of(attack: str, options: str, dataset: str, meanings: Meanings) -> frozenset[str]:
    """Return the options of a defense that say no more than half of the attack's usual budget.

    With another budget in the attack's usual norm, only that norm is left of them.
    """
    meaning = meanings.get(attack, Meaning())
    changed = {part.partition("=")[0] for part in comma_parts(options) if part not in meaning.usual}
    if "norm" in changed or dataset not in N_TRAIN:
        return frozenset()
    return frozenset(o for o in meaning.half if "eps" not in changed or o.startswith("norm="))


def _of_table(rows: list[Published], table: str) -> list[Published]:
    """Return the rows of one table for each source that has some in it, else all of its rows."""
    here = {row.source for row in rows if table and row.table == table}
    return [row for row in rows if row.source not in here or row.table == table]


def _of_length(rows: list[Published], epochs: int | None, shortest: int) -> list[Published]:
    """Return of each source the rows of our epochs, or those as much longer than its shortest."""
    kept = []
    for source in dict.fromkeys(row.source for row in rows):
        mine = [row for row in rows if row.source == source]
        lengths = {row.epochs for row in mine if row.epochs}
        if len(lengths) > 1 and epochs:
            wanted = epochs if epochs in lengths else min(lengths) * epochs / max(shortest, 1)
            nearest = min(lengths, key=lambda length: abs(length - wanted))
            mine = [row for row in mine if row.epochs in (nearest, None)]
        kept += mine
    return kept


def _differences(
    entry: Ours, found: Sequence[Published], meanings: Meanings
) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    s = entry.settings
    dataset, arch = found[0].dataset, found[0].arch
    if s.dataset.partition("[")[0] != dataset:
        yield "data set", s.dataset, (dataset,)
    if s.n_train is not None and s.n_train != N_TRAIN.get(dataset, s.n_train):
        yield "training images", f"{s.n_train:,}", (f"{N_TRAIN[dataset]:,}",)
    if s.arch != arch:
        yield "network", s.arch, (arch,)
    if s.victim != SUPERVISED_VICTIM:
        yield "victim", s.victim, (SUPERVISED_VICTIM,)
    lengths = sorted({row.epochs for row in found if row.epochs})
    if entry.epochs is not None and lengths and entry.epochs not in lengths:
        yield "epochs", str(entry.epochs), tuple(map(str, lengths))
    if s.protocol.partition("[")[0] != "paper" or "[" in s.protocol:
        yield "protocol", s.protocol, ("the papers' own",)
    for name, options in (
        (entry.attack, entry.attack_options),
        (entry.defense, entry.defense_options),
    ):
        variants = meanings.get(name, Meaning()).variants
        varied = [o for o in comma_parts(options) if o.partition("=")[0] in variants]
        if varied and not (name == entry.defense and entry.beside):
            yield f"{name}'s options", ",".join(varied), ("the authors'",)
