"""Imported poisons as attacks: `imported:NAME` has images already and crafts none.

Such an attack is identified by its content; where it came from and how its file was read is in its
record. What a name means depends on the data set: the store's entry `imported/NAME.FINGERPRINT`
holds the record, and the images lie under `poison`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ..common.errors import MissingError, UnknownNameError, UserError
from ..common.options import Auto, auto
from ..common.spec import IMPORTED, Fraction255, did_you_mean, normalise, shorten
from ..data.poison import Budget, PoisonError
from ..data.split import Split
from ..store.store import Store, key_of
from .asked import Asked
from .base import Attack, MethodInfo
from .mixture import MixedPoison
from .run import Run

Record = dict[str, Any]
_KIND = "imported"


class ImportedPoison(Attack):
    """A poison that somebody else crafted, added to the store by `uebench import`.

    Its budget is what was measured on its 8-bit images, in linf unless another norm is asked for;
    defenses that are tied to the budget, such as adversarial training, take it from there.
    """

    norm: Literal["linf", "l2", "l0", "none"] = "linf"  # type: ignore[assignment]
    """The norm that its budget is measured in; l0 counts changed pixels, none sets no bound. For
    these two, adversarial training uses the radius that it has on clean data."""
    eps: Annotated[Fraction255, Field(gt=0, le=1_000_000), Auto()] = auto()
    """Its budget in that norm, in the pixel range [0, 1], or in pixels for l0; auto: as measured on
    its images. Not used where norm is none."""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """Its content; filled in from its name and the data set."""

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return the norm and the measured or given bound."""
        return Budget(self.norm, None if self.norm == "none" else self.eps)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Raise MissingError: there is nothing to craft."""
        raise MissingError(f"{self.info.name} cannot be crafted; import its file")


@cache
def imported_class(name: str) -> type[ImportedPoison]:
    """Return the attack class named `imported:NAME`, whether or not it was imported."""

    class Imported(ImportedPoison):
        __doc__ = ImportedPoison.__doc__
        info = MethodInfo("attack", name, name, "an imported file", "imported", "imported")

    return Imported


def imported_recipe(fingerprint: str, sha256: str) -> dict[str, Any]:
    """Return the recipe of an imported poison: its content and its data set's."""
    return {"what": "poison", "dataset": fingerprint, "imported": sha256}


def poison_name(name: str) -> str:
    """Return the name of an imported poison in snake_case, without `imported:`.

    Raises:
        PoisonError: it cannot be a name.
    """
    snake_case = normalise(name.removeprefix(IMPORTED))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", snake_case):
        raise PoisonError(
            f"--name {shorten(name)} is not a name; use letters, digits and _, such as em_authors"
        )
    return snake_case


def check_free(store: Store, name: str, fingerprint: str, sha256: str, replace: bool) -> None:
    """Check that a name may be given to this content on a data set.

    Raises:
        PoisonError: the name means other content there, and `replace` is not given.
    """
    entry = store.read(_KIND, f"{name}.{fingerprint}")
    if entry is None or replace:
        return
    record = entry[1]
    if record.get("sha256") != sha256:
        source = f"{record.get('file', 'a file')}, sha256 {str(record.get('sha256'))[:12]}"
        raise PoisonError(
            f"imported:{name} already exists with other images ({source}); choose another --name, "
            "or add --replace"
        )


def remember(store: Store, name: str, fingerprint: str, record: Record, replace: bool) -> None:
    """Record in the store what a name means on a data set.

    Raises:
        PoisonError: the name means other content there, and `replace` is not given.
    """
    key = f"{name}.{fingerprint}"
    with store.lock(_KIND, key):
        check_free(store, name, fingerprint, record["sha256"], replace)
        store.write(_KIND, key, record, replace=True)


def known_records(store: Store) -> list[tuple[str, Record]]:
    """Return the name and record of every imported poison, in order of name."""
    folder = store.base / _KIND
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    entries = [(path.name.partition(".")[0], store.read(_KIND, path.name)) for path in paths]
    return [(name, entry[1]) for name, entry in entries if entry is not None]


def bind(asked: Asked[Attack], store: Store, dataset: str, fingerprint: str) -> Asked[Attack]:
    """Return an imported attack with its content and budget on a data set; others as they are.

    Those of a mixture are bound as well.

    Raises:
        UnknownNameError: no poison was imported under this name.
        PoisonError: it was imported for other data sets, or its images are gone.
    """
    attack = asked.method
    if isinstance(attack, MixedPoison):
        return Asked(attack.each(lambda part: bind(part, store, dataset, fingerprint).method))
    if not isinstance(attack, ImportedPoison):
        return asked
    name = attack.info.name.removeprefix(IMPORTED)
    entry = store.read(_KIND, f"{name}.{fingerprint}")
    if entry is None:
        raise _missing(store, name, dataset)
    record = entry[1]
    if not store.has("poison", key_of(imported_recipe(fingerprint, record["sha256"]))):
        raise PoisonError(f"the images of imported:{name} are gone from the store; import it again")
    measured = {"l2": record["l2_max"], "l0": record["l0_max"]}.get(
        attack.norm, record["linf_max"] / 255
    )
    bound = attack.fill_auto(eps=measured).with_options(sha256=record["sha256"])
    if bound.norm == "linf" and bound.eps > 1:
        raise PoisonError(
            f"imported:{name}: eps must lie in (0, 1], got {bound.eps:g}; divide by 255"
        )
    return Asked(bound)


def _missing(store: Store, name: str, dataset: str) -> UserError:
    """Return the error for a name that means nothing on a data set."""
    records = known_records(store)
    datasets = [str(record["dataset"]) for other, record in records if other == name]
    if datasets:
        return PoisonError(
            f"imported:{name} belongs to {', '.join(datasets[:5])}, not to {dataset}; run it "
            "there, or import its file for this data set"
        )
    names = sorted({other for other, _ in records})
    known = f"there are {', '.join(names[:20])}" if names else "none was imported yet"
    return UnknownNameError(
        f"no poison was imported as {name}{did_you_mean(name, names)}; {known}: type "
        "`uebench import PATH --dataset D --name NAME`"
    )
