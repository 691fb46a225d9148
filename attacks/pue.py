"""PUE, provably unlearnable examples: error-minimizing noise for a network under weight noise.

Source: Wang et al., "Provably Unlearnable Data Examples", NDSS 2025, arXiv:2405.03316, and its
authors' code.
`min_theta min_delta E L(f_{theta + w}(x + delta), y)` over Gaussian noise w on all parameters, so
that the noise works for all networks near the surrogate, and small changes of the weights do not
bring back what the poison hides. The search is EM's, without w until the surrogate classifies more
than half of the poisoned images. From then on the standard deviation of w rises from 0 to
`weight_noise` by `level_step`: each batch of the network and each step of the noise takes one step
at every level, the network along the mean gradient of `network_draws` draws over the number of
levels, and the noise along the summed gradients of `draws`. The levels and the late start are in
the authors' code alone; without them the surrogate stayed at 10 to 13 % on 5,000 CIFAR-10 images.
The paper's certificate is not part of it.
Departs from it: the level without noise takes a single draw, since all its draws are the same; the
stop test is EM's, at weights without noise, as theirs, so that w may never come into play if EM
passes it at once; and images of 64 px and more take EM's settings.
On the first 5,000 images of CIFAR-10 (resnet8, `quick`, bf16; `network_draws=10,draws=5`) the stop
test ended the search after 19 rounds, and after 28 in fp32, of which the first 7 had no w. Standard
training then gives 17.4, where class-wise EM gives 53.9 and clean images 64.7 (single runs on 1,000
test images, +- 3.1).
Cost: EM's until w comes into play, and then 23 passes for each round of 50,000 images; 485 with 28
rounds, of which 7 have no w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from uebench import Auto, Facts, Option, Run, UserError, attack, auto

from ._error_minimizing import ErrorMinimizing, Stage, Turn
from ._shared import cross_entropy_of

LEARNED = 0.5
"""Accuracy on the poisoned images above which there is noise on the weights from then on."""
USUAL_PLAIN = 7
"""The first of the usual rounds, which have no noise on the weights. Both numbers were measured on
5,000 images, with 10 draws for the network and 5 for the noise."""


@attack("pue", title="PUE", source="arXiv:2405.03316", family="error-minimizing")
class PUE(ErrorMinimizing):
    """Error-minimizing noise that holds for networks whose weights differ from the surrogate's."""

    version: ClassVar[int] = 3
    usual_rounds: ClassVar[int] = 28
    train_steps: Annotated[int, Field(ge=1, le=100_000), Auto(), Option(quick=10, variant=True)] = (
        auto()
    )
    """Batches of the surrogate per round, with an SGD step at every level; auto: 10 (`cifar100`:
    20; from 64 px on: 100)."""
    steps: Annotated[int, Field(ge=1, le=10_000), Auto(), Option(quick=2, variant=True)] = auto()
    """Signed-gradient steps of the noise per round at every level; auto: 1 per batch (sample-wise:
    20 in all)."""
    stop_accuracy: Annotated[float, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """The search ends when the surrogate is more accurate than this on the poisoned images; auto:
    0.9."""
    batch_size: Annotated[int, Field(ge=2, le=65_536), Auto(), Option(quick=16, variant=True)] = (
        auto()
    )
    """Images per step of the surrogate and per step of the noise; auto: 128 (from 64 px on: 32)."""
    wise: Literal["class", "sample"] = "class"
    """Whether all images of a class share their noise, or each image has noise of its own."""
    weight_noise: Annotated[float, Field(ge=0, le=100)] = 0.25
    """Largest standard deviation of the noise on every parameter of the surrogate."""
    level_step: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.05
    """Distance between the standard deviations that are used in turn, from 0 to `weight_noise`."""
    network_draws: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 100
    """Draws of that noise for each step of the network."""
    draws: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 10
    """Draws of that noise for each step of the noise on the images."""

    @property
    def by_class(self) -> bool:
        """Whether all images of a class share their noise."""
        return self.wise == "class"

    @property
    def levels(self) -> list[float]:
        """The standard deviations of the noise on the parameters, which are used in turn."""
        n = int(self.weight_noise / self.level_step + 1e-6)  # 0.15 / 0.05 is a little below 3
        return [i * self.level_step for i in range(n + 1)]

    def resolve(self, facts: Facts) -> PUE:
        """Return the attack with budget, network, steps and stop test filled in.

        Raises:
            UserError: the levels do not end at `weight_noise`.
        """
        if abs(self.levels[-1] - self.weight_noise) > 1e-6 * self.weight_noise:
            raise UserError(
                f"pue: weight_noise={self.weight_noise:g} is not a multiple of level_step="
                f"{self.level_step:g}, by which the noise rises to it; change one of the two"
            )
        own = self
        if max(facts.shape[1:]) < 64:
            steps = 20 if facts.dataset == "cifar100" else 10
            own = self.fill_auto(train_steps=steps, stop_accuracy=0.9, batch_size=128)
        filled = super(PUE, own).resolve(facts)
        assert isinstance(filled, PUE)
        return filled

    def image_passes(self, n: int) -> int:
        """Return the passes of as many rounds as the search usually takes."""
        network, noise = self.passes_per_round(n)
        rounds = min(self.rounds, self.usual_rounds)
        noisy = max(0, rounds - USUAL_PLAIN) * (len(self.levels) - 1)
        drawn = network * self.network_draws + noise * self.draws
        return rounds * (network + noise) + noisy * drawn

    def turns(
        self, model: nn.Module, run: Run, seen_in: Stage, best_accuracy: float
    ) -> Sequence[Turn]:
        """Return the cross-entropy under each level of noise on the parameters."""
        plain = Turn(cross_entropy_of(model, run))
        if best_accuracy <= LEARNED:
            return [plain]
        draws = self.network_draws if seen_in == "training" else self.draws
        noisy = [NoisyWeights(model, sd, run.rng) for sd in self.levels[1:]]
        return [plain, *(Turn(cross_entropy_of(each, run), draws) for each in noisy)]


class NoisyWeights(nn.Module):
    """A network whose parameters get Gaussian noise at every call; its gradients reach them."""

    def __init__(self, model: nn.Module, sd: float, rng: torch.Generator) -> None:
        super().__init__()
        self.model, self.sd, self.rng = model, sd, rng

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits under the next draw of the noise."""
        weights = {
            name: weight
            + self.sd * torch.randn(weight.shape, generator=self.rng, device=weight.device)
            for name, weight in self.model.named_parameters()
        }
        logits: Tensor = functional_call(self.model, weights, (images,))
        return logits
