"""Adaptive EM: error-minimizing noise made against the defense's augmentation.

Source: Qin et al., "Learning the Unlearnable", arXiv:2303.15127, section 4.3 and Table 5.
`L(f(T(x + delta)), y)`: the surrogate's steps and the noise's steps both see the augmentation after
the noise is added. Ours, where the paper is silent: every image draws its T again at every step;
operations without a gradient (posterize, equalize, solarize) pass it straight through; the stop
test is on x + delta without augmentation. With T it may never be passed, so the rounds are capped.
The options `operation`, `redraw`, `gradient`, `augmented` and `stop_on` hold the other readings.
With `augmented=noise` UEraser withstands it, as the paper prints (docs/differences.md).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import AfterValidator
from torch import Tensor

from uebench import Option, Policy, Run, attack

from ._error_minimizing import ErrorMinimizing, Stage
from ._shared import ImageView, unchanged

Letters = Annotated[str, AfterValidator(lambda letters: Policy(letters).letters)]


@attack(
    "adaptive_em",
    title="Adaptive EM",
    source="arXiv:2303.15127, section 4.3",
    family="error-minimizing",
)
class AdaptiveEM(ErrorMinimizing):
    """Error-minimizing noise whose network and noise see UEraser's augmentation, with gradients."""

    usual_rounds: ClassVar[int] = 12
    policy: Letters = "p+c+t"
    """Parts of the augmentation: any of p (plasma brightness and contrast), c (channel shuffle) and
    t (TrivialAugment) or, in its place, a (AutoAugment), joined by "+"."""
    strength: Annotated[Literal["paper", "authors", "notebook", "2023"], Option(variant=True)] = (
        "paper"
    )
    """Whose numbers for plasma and shuffle, as for the defense."""
    kornia: Annotated[Literal["0.6", "0.9"], Option(variant=True)] = "0.6"
    """Whose behaviour the operations have, as for the defense."""
    operation: Annotated[Literal["image", "batch"], Option(variant=True, later=True)] = "image"
    """Whether an image or the whole batch draws a TrivialAugment operation."""
    redraw: Annotated[Literal["step", "round"], Option(variant=True, later=True)] = "step"
    """When the augmentation is drawn again: at every step, or once a round, for each place in a
    batch, for the surrogate's steps and again for the noise's."""
    gradient: Annotated[Literal["through", "around"], Option(variant=True, later=True)] = "through"
    """Whether the noise's gradient is that through the augmentation, or the one with respect to the
    augmented images, as though the augmentation left them as they are."""
    augmented: Annotated[Literal["both", "training", "noise"], Option(variant=True, later=True)] = (
        "both"
    )
    """Whose steps see the augmentation: the surrogate's and the noise's, or only one of them."""
    stop_on: Annotated[Literal["images", "augmented"], Option(variant=True, later=True)] = "images"
    """What the stop test measures the accuracy on: x + delta or T(x + delta)."""

    def view(self, run: Run, seen_in: Stage) -> ImageView:
        """Return the augmentation, drawn again at every call or, with `redraw=round`, not again."""
        if seen_in == "stop test":
            sees_it = self.stop_on == "augmented"
        else:
            sees_it = self.augmented in ("both", seen_in)
        if not sees_it:
            return unchanged
        policy = Policy(
            self.policy, strength=self.strength, kornia=self.kornia, draw=self.operation
        )
        rng = run.rng
        seed = None
        if self.redraw == "round":
            seed = int(torch.randint(2**62, (), generator=run.rng, device=run.device))
            rng = torch.Generator(run.device)

        def view(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
            if seed is not None:
                rng.manual_seed(seed)
            if self.gradient == "through":
                return policy(images, rng)
            return images + (policy(images.detach(), rng) - images).detach()

        return view
