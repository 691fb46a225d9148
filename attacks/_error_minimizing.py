"""The search that EM and its adaptive form share: network and noise lower the loss in turn.

Source: Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021,
arXiv:2101.04898, and its authors' code.
Departs from it: class-wise noise is the mean of noise that keeps each image of the batch in [0, 1],
while the noise that theirs averages only stays within eps. Images of 64 px and more take their
settings for ImageNet (where they make sample-wise noise for a fifth of the images), smaller ones
those for CIFAR-10, and `cifar100` those for CIFAR-100. The surrogate's order is shuffled in both
forms, theirs in the class-wise form only, and its last batch may be small, while theirs is dropped.
`legacy_export` reproduces the 8-bit images that the authors' data set class makes: it multiplies
the noise by 255, cuts it to [0, 255], which drops every negative change, and truncates; a change
of just 8 levels may come out as 7 in either, not always in the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor, nn

from uebench import (
    Attack,
    Auto,
    Facts,
    Fraction255,
    Option,
    Run,
    Split,
    auto,
    frozen,
)
from uebench.store.arrays import chunks, zeros

from ._class_wise import spread_over_images
from ._shared import (
    Batches,
    ImageLoss,
    ImageView,
    cross_entropy_of,
    descend,
    noisy_images,
    unchanged,
)

USUAL_DECAY = 5e-4
"""Weight decay of the surrogate on CIFAR-10."""
CLASS_SHARE = 0.2
"""Share of each class's images that class-wise noise is made from."""


Stage = Literal["training", "noise", "stop test"]
"""Where a round shows poisoned images to the surrogate: in its own steps, in those of the noise, or
when the stop test measures its accuracy."""


class Turn(NamedTuple):
    """A loss that one step lowers.

    Attributes:
        loss: of images and labels, summed over the images.
        draws: evaluations of a random loss whose gradients the step sums.
    """

    loss: ImageLoss
    draws: int = 1


class ErrorMinimizing(Attack):
    """A network and the noise of every image, or of every class, minimise the loss in turn."""

    version: ClassVar[int] = 2
    usual_rounds: ClassVar[int] = 7
    """Rounds after which the stop test has usually ended a search with the default settings: 5 to 7
    on 5,000 to 50,000 images, measured. Only estimates of the time depend on it."""
    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1), Auto()] = auto()
    """Largest change of one pixel value, in the pixel range [0, 1]; auto: 8/255, and 16/255
    from 64 px on, as the paper on ImageNet."""
    surrogate: Annotated[str, Option(variant=True)] = "auto"
    """The network that is trained along; auto: the protocol's (paper: resnet18)."""
    rounds: Annotated[int, Field(ge=1, le=100_000), Option(quick=2, variant=True)] = 100
    """Largest number of rounds if the stop test does not end the search earlier."""
    train_steps: Annotated[int, Field(ge=1, le=100_000), Auto(), Option(quick=10, variant=True)] = (
        auto()
    )
    """SGD steps of the surrogate per round; auto: 10 (from 64 px on: 100; sample-wise on
    `cifar100`: 20)."""
    steps: Annotated[int, Field(ge=1, le=10_000), Auto(), Option(quick=2, variant=True)] = auto()
    """Signed-gradient steps of the noise per round; auto: 20 (class-wise: 1 per batch)."""
    step: Annotated[Fraction255, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """Length of such a step in the pixel range [0, 1]; auto: eps/10."""
    stop_accuracy: Annotated[float, Field(gt=0, le=1), Auto(), Option(variant=True)] = auto()
    """The search ends when the surrogate is more accurate than this on the poisoned images; auto:
    0.99 (from 64 px on: 0.9)."""
    batch_size: Annotated[int, Field(ge=2, le=65_536), Auto(), Option(quick=16, variant=True)] = (
        auto()
    )
    """Images per step of the surrogate and per step of the noise; auto: 512 (from 64 px on: 32)."""
    lr: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.1
    """Learning rate of the surrogate, constant; momentum 0.9, gradient norm clipped at 5."""
    weight_decay: Annotated[float, Field(ge=0, le=1), Auto()] = auto()
    """L2 penalty of the surrogate; auto: 5e-4 (`cifar100` and from 64 px on: 5e-5)."""
    legacy_export: Annotated[bool, Option(later=True)] = False
    """Make the 8-bit images as the authors' data set class does, without the negative changes."""

    @property
    def by_class(self) -> bool:
        """Whether all images of a class share their noise."""
        return False

    def recipe(self) -> dict[str, Any]:
        """Return what the key holds.

        A weight decay of 5e-4 is left out, because keys were made before it was an option. The
        entry `batches` tells class-wise poisons apart from older ones, in which a small last batch
        decided the noise of its classes.
        """
        options = super().recipe()
        if options["weight_decay"] == USUAL_DECAY:
            del options["weight_decay"]
        return options | ({"batches": "whole"} if self.by_class else {})

    def view(self, run: Run, seen_in: Stage) -> ImageView:
        """Return how the surrogate sees poisoned images in a stage of one round."""
        return unchanged

    def turns(
        self, model: nn.Module, run: Run, seen_in: Stage, best_accuracy: float
    ) -> Sequence[Turn]:
        """Return the losses that the steps of a stage lower one after the other.

        Every batch of the network and every step of the noise takes one step for each of them. In
        the network's steps the losses are divided by their number.

        Args:
            model: the surrogate.
            run: device and randomness.
            seen_in: the stage.
            best_accuracy: the surrogate's highest accuracy in the stop tests of earlier rounds.
        """
        return [Turn(cross_entropy_of(model, run, self.view(run, seen_in)))]

    def resolve(self, facts: Facts) -> ErrorMinimizing:
        """Return the attack with budget, network, steps and stop test filled in."""
        large = max(facts.shape[1:]) >= 64
        cifar100 = facts.dataset == "cifar100"
        filled = self.with_options(surrogate=facts.surrogate_for(self.surrogate)).fill_auto(
            eps=(16 if large else 8) / 255,
            train_steps=100 if large else 20 if cifar100 and not self.by_class else 10,
            steps=1 if self.by_class else 20,
            stop_accuracy=0.9 if large else 0.99,
            batch_size=32 if large else 512,
            weight_decay=5e-5 if large or cifar100 else USUAL_DECAY,
        )
        return filled.fill_auto(step=filled.eps / 10)

    def image_passes(self, n: int) -> int:
        """Return the passes of as many rounds as the search usually takes."""
        return min(self.rounds, self.usual_rounds) * sum(self.passes_per_round(n))

    def passes_per_round(self, n: int) -> tuple[int, int]:
        """Return how many images pass for the network and for the noise in a round of `n` images.

        A `Turn` of several draws costs several times as much.
        """
        changed = round(CLASS_SHARE * n) if self.by_class else n
        return self.train_steps * min(self.batch_size, n), self.steps * changed

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return noise that a network in training finds easy, and other networks too."""
        model = run.network(self.surrogate)
        optimizer = torch.optim.SGD(
            model.parameters(), self.lr, momentum=0.9, weight_decay=self.weight_decay
        )
        rows = data.labels if self.by_class else torch.arange(len(data), device=run.device)
        n_rows = data.n_classes if self.by_class else len(data)
        noise = run.zeros(n_rows, *data.shape)
        share = data.subset(_share_of_each_class(data, run)) if self.by_class else None
        order = Batches(len(data), self.batch_size, run)
        loop = run.checkpoint("rounds", model=model, optimizer=optimizer, noise=noise, order=order)
        loop.facts = {"accuracy": 0.0, "best": 0.0, "done": 0, **loop.facts}
        for step in loop.steps(self.rounds):
            done, best = step + 1, loop.facts["best"]
            turns = self.turns(model, run, "training", best)
            self._train(turns, model, optimizer, data, noise, rows, order, run)
            with frozen(model):
                turns = self.turns(model, run, "noise", best)
                if share is None:
                    self._descend_images(turns, data, noise)
                    accuracy = self._accuracy(model, data, noise, rows, run)
                else:
                    self._descend_classes(turns, share, noise, run)
                    accuracy = self._accuracy(model, share, noise, share.labels, run)
            loop.facts |= {"accuracy": accuracy, "best": max(best, accuracy), "done": done}
            name = self.info.name
            text = f"{name} round {done}, accuracy {accuracy:.3f}"
            run.progress(done / self.rounds, text, at_most=True)
            if accuracy > self.stop_accuracy:
                break
        accuracy, done = loop.facts["accuracy"], loop.facts["done"]
        ended = "stop test" if accuracy > self.stop_accuracy else "cap"
        run.note(em_rounds=done, em_accuracy=round(accuracy, 5), em_ended_by=ended)
        if not self.by_class:
            return noise
        return spread_over_images(noise, data, run)

    def export(self, data: Split, delta: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the 8-bit images; with `legacy_export` as the authors' data set class does."""
        if not self.legacy_export:
            return super().export(data, delta)
        out = zeros(data.images.shape, torch.uint8, data.images.device)
        for part in chunks(out):
            noise = (delta[part].to(out.device) * 255).clamp(0, 255)
            out[part] = (data.images[part].float() + noise).clamp_(0, 255).to(torch.uint8)
        return out

    def _train(
        self,
        turns: Sequence[Turn],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data: Split,
        noise: Float[Tensor, "m c h w"],
        rows: Int[Tensor, " n"],
        order: Batches,
        run: Run,
    ) -> None:
        """Take the surrogate's steps of one round on the poisoned images, in train mode."""
        model.train()
        for _ in range(self.train_steps):
            batch = next(order)
            if len(batch) < 2:  # batch norm needs two images; an order may end in a single one
                batch = next(order)
            images = noisy_images(data, noise, batch, rows[batch])
            for loss_of, draws in turns:
                optimizer.zero_grad(set_to_none=True)
                for _ in range(draws):
                    loss = loss_of(images, data.labels[batch])
                    (loss / (len(batch) * draws * len(turns))).backward()
                    # as in the authors' code
                    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()

    def _descend_images(
        self, turns: Sequence[Turn], data: Split, noise: Float[Tensor, "n c h w"]
    ) -> None:
        """Lower every image's loss by changing its noise, in place."""
        for turn, steps in groupby(list(turns) * self.steps):
            descend(
                turn.loss,
                data,
                data.labels,
                noise,
                norm="linf",
                eps=self.eps,
                step=self.step,
                steps=len(list(steps)),
                batch_size=self.batch_size,
                draws=turn.draws,
            )

    def _descend_classes(
        self,
        turns: Sequence[Turn],
        share: Split,
        noise: Float[Tensor, "k c h w"],
        run: Run,
    ) -> None:
        """Lower the classes' loss on a share of the images, in a newly drawn order, in place.

        After every batch, the noise of a class becomes the mean of the noise of its images in that
        batch. An incomplete last batch is left out, since its few images would overwrite the mean
        of many.
        """
        order = torch.randperm(len(share), generator=run.rng, device=run.device)
        size = min(self.batch_size, len(share))
        for batch in order[: len(share) // size * size].split(size):
            part = share.subset(batch)
            delta = noise[part.labels]
            self._descend_images(turns, part, delta)
            for label in part.labels.unique():
                noise[label] = delta[part.labels == label].mean(0)

    @torch.no_grad()
    def _accuracy(
        self,
        model: nn.Module,
        data: Split,
        noise: Float[Tensor, "m c h w"],
        rows: Int[Tensor, " n"],
        run: Run,
    ) -> float:
        """Return the surrogate's accuracy on x + delta in eval mode."""
        view = self.view(run, "stop test")
        right = torch.zeros((), device=run.device)  # one synchronisation at the end, not per batch
        for start in range(0, len(data), self.batch_size):
            part = slice(start, start + self.batch_size)
            images = view(noisy_images(data, noise, part, rows[part]))
            with run.autocast():
                guesses = model(images).argmax(1)
            right += (guesses == data.labels[part]).sum()
        return right.item() / len(data)


def _share_of_each_class(data: Split, run: Run) -> Int[Tensor, " m"]:
    """Return the indices of a random fifth of each class's images, at least one per class."""
    order = torch.randperm(len(data), generator=run.rng, device=run.device)
    chosen = []
    for label in range(data.n_classes):
        mine = order[data.labels[order] == label]
        chosen.append(mine[: max(1, round(CLASS_SHARE * len(mine)))])
    return torch.cat(chosen)
