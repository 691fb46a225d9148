"""AUE, augmented unlearnable examples: EM under the augmentation of contrastive learning.

Source: Wang et al., "Efficient Availability Attacks against Supervised and Contrastive Learning
Simultaneously", NeurIPS 2024, arXiv:2402.04010, and its authors' code.
`min_theta min_delta L(f(aug(x + delta)), y)`: an epoch of the network on augmented poisoned images,
then one sweep of the noise through the augmentation, in turn.
Departs from it: as `contrastive` of the suite does (the order of the colour operations and the
proportions of a crop), and the last, smaller batch of an epoch is spread over the others. The
authors' form with one noise for each class is left out. Ours: from 100 classes on the strength is
the authors' for CIFAR-100, below it theirs for CIFAR-10; their default elsewhere is 1.
Cost: 360 passes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from uebench import Auto, Facts, Option, Run, attack, auto
from uebench.augment import contrastive

from ._alternating import Alternating
from ._shared import ImageView


@attack("aue", title="AUE", source="arXiv:2402.04010", family="error-minimizing")
class AUE(Alternating):
    """Error-minimizing noise whose network and noise see contrastive augmentation."""

    version: ClassVar[int] = 2

    strength: Annotated[float, Field(ge=0, le=1), Auto(), Option(variant=True)] = auto()
    """Strength of the augmentation; auto: 0.6 (from 100 classes on: 1)."""

    def resolve(self, facts: Facts) -> AUE:
        """Return the attack with strength, network and step filled in."""
        filled = super().resolve(facts).fill_auto(strength=1.0 if facts.n_classes >= 100 else 0.6)
        assert isinstance(filled, AUE)
        return filled

    def view(self, run: Run) -> ImageView:
        """Return the augmentation, drawn again at every call."""
        return lambda images: contrastive(images, run.rng, self.strength)
