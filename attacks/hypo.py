"""HYPO, hypocritical perturbations: noise that a network trained on clean data finds easy.

Source: Tao et al., "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial
Training", NeurIPS 2021, arXiv:2102.04716, its perturbation P2; with `towards=next` its P1, which is
close to the class-targeted noise of TAP (Fowl et al., "Adversarial Examples Make Strong Poisons",
NeurIPS 2021, arXiv:2106.10807).
Departs from it: the budget is linf 8/255 and the surrogate the protocol's network, as in
arXiv:2303.15127 and its peers; the authors take l2 0.5 and VGG-16. The step is eps/10, where the
authors take eps/5. The 8-bit images are rounded, where theirs are truncated. Ours for other data
sets than CIFAR: the surrogate flips and crops by 4 px all the same.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from uebench import Auto, Facts, Fraction255, Option, Run, Split, attack, auto, frozen

from ._class_wise import check_classes
from ._delusive import CleanNetworkNoise
from ._shared import cross_entropy_of, descend


@attack("hypo", title="HYPO", source="arXiv:2102.04716", family="error-minimizing")
class HYPO(CleanNetworkNoise):
    """Noise that lowers a cleanly trained network's loss on every image."""

    version: ClassVar[int] = 2
    reach_steps = 10

    steps: Annotated[int, Field(ge=1, le=10_000), Option(quick=2, variant=True)] = 100
    """Gradient steps of every image's noise."""
    step: Annotated[Fraction255, Field(gt=0, le=100), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the pixel range [0, 1]; auto: eps/10."""
    towards: Literal["label", "next"] = "label"
    """Whose loss falls: that of the image's label, or of the next class."""
    batch_size: Annotated[int, Field(ge=1, le=65_536), Option(quick=16, variant=True)] = 512
    """Images per step of the noise; it changes the noise by rounding errors only."""

    def resolve(self, facts: Facts) -> HYPO:
        """Return the attack with what is open filled in; refuse a next class where there is one."""
        if self.towards == "next":
            check_classes(self.info.name, facts)
        filled = super().resolve(facts)
        assert isinstance(filled, HYPO)
        return filled

    def image_passes(self, n: int) -> int:
        """Return the passes of the surrogate's training and of the noise."""
        return n * (self.surrogate_epochs + self.steps)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return noise that makes each image easy to classify."""
        model = run.surrogate(data, self.surrogate, epochs=self.surrogate_epochs)
        labels = data.labels
        if self.towards == "next":
            labels = (labels + 1) % data.n_classes
        delta = run.zeros(*data.images.shape)
        loop = run.checkpoint("noise", delta=delta)
        with frozen(model):
            descend(
                cross_entropy_of(model, run),
                data,
                labels,
                delta,
                norm=self.norm,
                eps=self.eps,
                step=self.step,
                steps=self.steps,
                batch_size=self.batch_size,
                report=lambda share: run.progress(share, "hypo noise"),
                batches=loop.steps,
            )
        return delta
