"""EM, error-minimizing noise: perturbations that make the training loss small by themselves.

Source: Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021,
arXiv:2101.04898, and its authors' code.
Departs from it: the number of rounds is capped, and the record says whether the cap or the stop
test ended the search.
"""

from __future__ import annotations

from typing import Literal

from uebench import attack

from ._error_minimizing import ErrorMinimizing


@attack("em", title="EM", source="arXiv:2101.04898", family="error-minimizing")
class EM(ErrorMinimizing):
    """Error-minimizing noise: a network and the noise minimise the loss in turn."""

    wise: Literal["sample", "class"] = "sample"
    """Whether each image has noise of its own, or all images of a class share theirs."""
    legacy_export: bool = False  # in every key, since EM always had it
    """Make the 8-bit images as the authors' data set class does, without the negative changes."""

    @property
    def by_class(self) -> bool:
        """Whether all images of a class share their noise."""
        return self.wise == "class"
