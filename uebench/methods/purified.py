"""Training sets that others purified, as defenses: `purified:NAME`.

Diffusion models and other purifiers that uebench does not have are run by whoever has them. One
name may stand for several sets, each of which was made from another poison. The store's entry
`purified/NAME.POISON` holds a set and its record, where POISON is the key of that poison.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import Field

from ..common.errors import MissingError, UnknownNameError
from ..common.spec import PURIFIED, did_you_mean
from ..data.poison import Poison, PoisonError
from ..data.split import Split
from ..store.store import Store
from .base import Defense, MethodInfo
from .run import Run

_KIND = "purified"


class PurifiedSet(Defense):
    """A training set that somebody else purified, added by `uebench import --purified`.

    The target model is trained on the purified images as they are. A matrix has cells only for
    those poisons that were purified under this name, each as a whole.
    """

    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """The content of the set; filled in from its name and the poison."""

    def prepare(self, data: Split, run: Run) -> Split:
        """Raise MissingError: the purified images are in the store, which only a run reads."""
        raise MissingError(
            f"{self.info.name} can only be used by `uebench run`; to train on its images in "
            "Python, make a uebench.Poison of them and choose the defense standard"
        )


@cache
def purified_class(name: str) -> type[PurifiedSet]:
    """Return the defense class named `purified:NAME`, whether or not it was imported."""

    class Purified(PurifiedSet):
        __doc__ = PurifiedSet.__doc__
        info = MethodInfo("defense", name, name, "an imported file", "imported", "purification")

    return Purified


def remember_purified(
    store: Store,
    name: str,
    poison_key: str,
    purified: Poison,
    record: dict[str, Any],
    replace: bool,
) -> None:
    """Put a purified set into the store under a name and the key of its poison.

    Raises:
        PoisonError: the name has other images for this poison, and `replace` is not given.
    """
    key = f"{name}.{poison_key}"
    with store.lock(_KIND, key):
        entry = store.read(_KIND, key, tensors=False)
        if entry is not None and not replace and entry[1]["sha256"] != record["sha256"]:
            raise PoisonError(
                f"{PURIFIED}{name} already has other images for {entry[1]['of']} "
                f"({entry[1]['file']}, sha256 {entry[1]['sha256'][:12]}); choose another --name, "
                "or add --replace"
            )
        tensors = {name: getattr(purified, name) for name in ("images", "labels", "index")}
        store.write(_KIND, key, record, tensors, replace=True)


def bound_to(defense: PurifiedSet, store: Store, poison_key: str) -> PurifiedSet | None:
    """Return a purified set with its content, or None if this poison was not purified."""
    entry = store.read(_KIND, _entry_key(defense, poison_key), tensors=False)
    return None if entry is None else defense.with_options(sha256=entry[1]["sha256"])


def read_purified(defense: PurifiedSet, store: Store, poison_key: str) -> Poison:
    """Return a purified set in the place of the poison that it was made from.

    Raises:
        MissingError: they are gone from the store, or were replaced after the run was planned.
    """
    entry = store.read(_KIND, _entry_key(defense, poison_key))
    if entry is None or entry[1]["sha256"] != defense.sha256:
        raise MissingError(
            f"the images of {defense.info.name} are gone from the store, or were replaced; import "
            "them again and run the same command again"
        )
    tensors, record = entry
    return Poison(tensors["images"], tensors["labels"], tensors["index"], record)


def copy_purified(defense: PurifiedSet, source: Store, target: Store, poison_key: str) -> None:
    """Copy a purified set, which cannot be recomputed, from one store into another."""
    key = _entry_key(defense, poison_key)
    if (entry := source.read(_KIND, key)) is not None:
        target.write(_KIND, key, entry[1], entry[0])


def purified_records(store: Store) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and record of every purified set, in order of name."""
    folder = store.base / _KIND
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    entries = [(p.name.partition(".")[0], store.read(_KIND, p.name, tensors=False)) for p in paths]
    return [(name, entry[1]) for name, entry in entries if entry is not None]


def not_purified(name: str, store: Store) -> UnknownNameError:
    """Return the error for a purified set that fits no poison of a matrix."""
    records = purified_records(store)
    name = name.removeprefix(PURIFIED)
    fitting = [f"{r['of']} on {r['dataset']}" for other, r in records if other == name]
    if fitting:
        return UnknownNameError(
            f"{PURIFIED}{name} was made from {', '.join(fitting[:5])}, and this matrix does not "
            "have that poison as a whole, with the same seed and surrogate; add it, or leave the "
            "purified set out"
        )
    names = sorted({other for other, _ in records})
    known = f"there are {', '.join(names[:20])}" if names else "none was imported yet"
    return UnknownNameError(
        f"no purified set was imported as {name}{did_you_mean(name, names)}; {known}: type "
        "`uebench import FILE --purified --of ATTACK --by METHOD --dataset D --name NAME`"
    )


def _entry_key(defense: PurifiedSet, poison_key: str) -> str:
    return f"{defense.info.name.removeprefix(PURIFIED)}.{poison_key}"
