"""An imported poison as an attack: `imported:NAME`, which has images already and crafts none.

What it is named by is its content; where it came from and how it was read is in its record.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ..common.errors import MissingError
from ..common.options import Auto, auto
from ..common.spec import Fraction255
from ..data.split import Split
from .base import Attack, MethodInfo
from .run import Run


class ImportedPoison(Attack):
    """A poison that somebody else made, kept by `uebench import`.

    Its budget is what was measured on its 8-bit images, in linf unless l2 is asked for; defenses
    that are tied to the budget, such as adversarial training, take it from there.
    """

    norm: Literal["linf", "l2"] = "linf"
    """The norm that its budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=10_000), Auto()] = auto()
    """Its budget in that norm, in the pixel range [0, 1]; auto: as measured on its images."""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """Its content; filled in from its name and the data set."""

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Raise LookupError: there is nothing to craft."""
        raise MissingError(f"{self.info.name} cannot be crafted; import its file")


@cache
def imported_class(name: str) -> type[ImportedPoison]:
    """Return the attack that tables call `imported:NAME`, whether it was imported or not."""

    class Imported(ImportedPoison):
        __doc__ = ImportedPoison.__doc__
        info = MethodInfo("attack", name, name, "an imported file", "imported")

    return Imported


def imported_recipe(fingerprint: str, sha256: str) -> dict[str, Any]:
    """Return what names an imported poison in the store: its content and its data set's."""
    return {"what": "poison", "dataset": fingerprint, "imported": sha256}
