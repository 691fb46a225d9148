"""EntF, entangled features: noise that mixes the features of an adversarially trained network.

Source: Wen et al., "Is Adversarial Training Really a Silver Bullet for Mitigating Data Poisoning?",
ICLR 2023 (openreview zKvm1ETDOq), and its authors' code.
`push` raises the distance between the penultimate features of T(x + delta) and the mean of their
class on clean images; `pull` lowers the distance to the nearest mean of another class, chosen again
at every step. T is TAP's shift and flip. It is meant to hurt adversarial training even where its
radius equals the budget.
Departs from it: the own class is left out of the search for the nearest mean, where their code
gives it the distance 1, which fails once all others are farther. `untargeted`, `targeted` and
`reference=standard` are the other forms of the shared search.
Cost: 1,100 passes for the network (PGD-10 over 100 epochs) and 300 for the noise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from uebench import Option, Training, attack

from ._adversarial import AdversarialNoise, Objective


@attack("entf", title="EntF", source="openreview:zKvm1ETDOq", family="error-maximizing")
class EntF(AdversarialNoise):
    """Noise that moves the features of an adversarially trained network away from their class."""

    objective: Objective = "push"
    """What the noise is made for: `push` moves features away from the mean of their class, and
    `pull` towards the nearest mean of another class; `targeted` lowers the cross-entropy of the
    next class, and `untargeted` raises that of the label."""
    reference: Literal["standard", "at"] = "at"
    """Whether the network is trained in the standard way or adversarially."""
    surrogate_epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=10, variant=True)] = 100
    """Epochs of the network's training, of which the last is taken."""
    steps: Annotated[int, Field(ge=1, le=10_000), Option(quick=2, variant=True)] = 300
    """Signed-gradient steps of every image's noise."""
    restarts: Annotated[int, Field(ge=1, le=100), Option(variant=True)] = 1
    """Searches of the noise of all images, of which the one with the lowest mean loss is taken."""
    batch_size: Annotated[int, Field(ge=1, le=65_536), Option(quick=16, variant=True)] = 128
    """Images whose noise is searched together; it changes the noise by its random draws only."""

    def training(self) -> Training:
        """Return the schedule of `reference=at` for a network trained in the standard way."""
        return Training((0.75, 0.9))
