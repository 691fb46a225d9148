"""AAP, augmented adversarial poisoning: TAP under the augmentation of contrastive learning.

Source: Wang et al., "Efficient Availability Attacks against Supervised and Contrastive Learning
Simultaneously", NeurIPS 2024, arXiv:2402.04010, and its authors' code.
`min_delta L(f(aug(x + delta)), y + 1)`: the network is trained under the augmentation (random
resized crop, flip, colour jitter, gray), and the noise is searched through it; from zero, with
steps of 2.5 eps over their number, and without restarts.
Departs from it: as `contrastive` of the suite does (the order of the colour operations and the
proportions of a crop). Ours: the strength of 100 classes and more is the authors' for CIFAR-100.
Cost: 40 passes for the network and 250 for the noise.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from uebench import Option, Training, attack

from ._adversarial import AdversarialNoise


@attack("aap", title="AAP", source="arXiv:2402.04010", family="error-maximizing")
class AAP(AdversarialNoise):
    """Adversarial examples of a network trained under contrastive augmentation, through it."""

    version: ClassVar[int] = 3
    objective: Literal["targeted", "untargeted"] = "targeted"
    """Whether the noise lowers the cross-entropy of the next class or raises that of the label."""
    augment: Literal["contrastive", "shift"] = "contrastive"
    """The random views: the augmentation of contrastive learning, or fractional shifts and
    flips. The network is trained under it too, unless it is trained adversarially."""
    surrogate_epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=2, variant=True)] = 40
    """Epochs of the network's training, of which the last is taken."""
    surrogate_lr: Annotated[float, Field(gt=0, le=100), Option(quick=0.05, variant=True)] = 0.5
    """Its initial learning rate: a quarter of the epochs warm up, then it falls like a cosine;
    batches of 128, momentum 0.9, weight decay 1e-4. With `reference=at` it falls in steps, as for
    `entf`."""
    steps: Annotated[int, Field(ge=1, le=10_000), Option(quick=12, variant=True)] = 250
    """Signed-gradient steps of every image's noise."""
    start: Annotated[Literal["normal", "zero"], Option(variant=True)] = "zero"
    """Where noise starts: at zero, or at draws from N(0, eps) cut off at eps."""
    restarts: Annotated[int, Field(ge=1, le=100), Option(variant=True)] = 1
    """Searches of the noise of all images, of which the one with the lowest mean loss is taken."""
    batch_size: Annotated[int, Field(ge=1, le=65_536), Option(quick=16, variant=True)] = 128
    """Images whose noise is searched together; it changes the noise by its random draws only."""

    def usual_step(self) -> float:
        """Return the step with which a pixel can cross the budget, whatever the number of steps."""
        return min(1.0, 2.5 * self.eps / self.steps)

    def training(self) -> Training:
        """Return how the authors train the network: the warm-up takes 10 of 40 epochs."""
        usual = super().training()
        return Training(
            None,
            warmup=self.surrogate_epochs / 4,
            stairs=True,
            weight_decay=1e-4,
            augment=usual.augment,
            strength=usual.strength,
        )
