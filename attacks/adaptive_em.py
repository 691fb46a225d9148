"""Adaptive EM: error-minimizing noise made against the defense's augmentation.

Source: Qin et al., "Learning the Unlearnable", arXiv:2303.15127, section 4.3 and Table 5.
`L(f(T(x + delta)), y)`: the surrogate's steps and the noise's steps both see the augmentation after
the noise is added. Ours, where the paper is silent: T is drawn again at every step; operations
without a gradient (posterize, equalize, solarize) pass it straight through; the stop test is on
x + delta without augmentation. With T it may never be passed, so the rounds are capped.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from uebench import Option, Policy, Run, attack

from ._error_minimizing import ErrorMinimizing
from ._shared import ImageView

Letters = Annotated[str, AfterValidator(lambda letters: Policy(letters).letters)]


@attack("adaptive_em", title="Adaptive EM", source="arXiv:2303.15127, section 4.3")
class AdaptiveEM(ErrorMinimizing):
    """Error-minimizing noise whose network and noise see UEraser's augmentation, with gradients."""

    policy: Letters = "p+c+t"
    """Parts of the augmentation: any of p (plasma brightness and contrast), c (channel shuffle) and
    t (TrivialAugment) or, in its place, a (AutoAugment), joined by "+"."""
    strength: Annotated[Literal["paper", "authors", "notebook", "2023"], Option(variant=True)] = (
        "paper"
    )
    """Whose numbers for plasma and shuffle, as for the defense."""
    kornia: Annotated[Literal["0.6", "0.9"], Option(variant=True)] = "0.6"
    """Whose behaviour the operations have, as for the defense."""

    def view(self, run: Run) -> ImageView:
        """Return the augmentation, drawn again at every call."""
        policy = Policy(self.policy, strength=self.strength, kornia=self.kornia)
        return lambda images: policy(images, run.rng)
