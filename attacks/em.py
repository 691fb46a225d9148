"""EM, error-minimizing noise: perturbations that make the training loss small by themselves.

Source: Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021,
arXiv:2101.04898, and its authors' code.
Departs from it: the number of rounds is capped, and the record says whether the cap or the stop
test ended the search. `legacy_export` reproduces the 8-bit images that the authors' data set class
makes: it multiplies the noise by 255, cuts it to [0, 255], which drops every negative change, and
truncates; a change of just 8 levels may come out as 7 in either, not always in the same places.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from uebench import Split, attack
from uebench.store.arrays import chunks, zeros

from ._error_minimizing import ErrorMinimizing


@attack("em", title="EM", source="arXiv:2101.04898")
class EM(ErrorMinimizing):
    """Error-minimizing noise: a network and the noise minimise the loss in turn."""

    wise: Literal["sample", "class"] = "sample"
    """Whether each image has noise of its own, or all images of a class share theirs."""
    legacy_export: bool = False
    """Make the 8-bit images as the authors' data set class does, without the negative changes."""

    @property
    def by_class(self) -> bool:
        """Whether all images of a class share their noise."""
        return self.wise == "class"

    def export(self, data: Split, delta: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the 8-bit images; with `legacy_export` as the authors' data set class does."""
        if not self.legacy_export:
            return super().export(data, delta)
        out = zeros(data.images.shape, torch.uint8, data.images.device)
        for part in chunks(out):
            noise = (delta[part].to(out.device) * 255).clamp(0, 255)
            out[part] = (data.images[part].float() + noise).clamp_(0, 255).to(torch.uint8)
        return out
