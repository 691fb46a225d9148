"""EM, error-minimizing noise: perturbations that make the training loss small by themselves.

Source: Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021,
arXiv:2101.04898, and its authors' code.
This is the sample-wise form. Departs from it: the number of rounds is capped, and the record says
whether the cap or the stop test ended the search. `legacy_export` reproduces the 8-bit images that
the authors' data set class makes: it multiplies the noise by 255, cuts it to [0, 255], which drops
every negative change, and truncates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from uebench import Attack, Facts, Fraction255, Run, Split, attack, frozen, parse_arch, pgd


@attack("em", title="EM", source="arXiv:2101.04898")
class EM(Attack):
    """Sample-wise error-minimizing noise: a network and the noise minimise the loss in turns."""

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change of one pixel value, in the pixel range [0, 1]; the paper takes 16/255 on
    ImageNet."""
    surrogate: str = "auto"
    """The network that is trained along; auto: the protocol's (paper: resnet18)."""
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Most rounds before the search gives up on the stop test."""
    train_steps: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = "auto"
    """SGD steps of the surrogate a round; auto: 10 (CIFAR-100: 20, from 64 px on: 100)."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Signed-gradient steps of every image's noise a round."""
    step: Annotated[Fraction255, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """Length of such a step in the pixel range [0, 1]; auto: eps/10."""
    stop_accuracy: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """The search ends when the surrogate is more accurate than this on the poisoned images; auto:
    0.99 (from 64 px on: 0.9)."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 512
    """Images a step of the surrogate, and a step of the noise."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Learning rate of the surrogate, constant; momentum 0.9, weight decay 5e-4, gradient norm
    clipped at 5."""
    legacy_export: bool = False
    """Make the 8-bit images as the authors' data set class does, without the negative changes."""

    def resolve(self, facts: Facts) -> EM:
        """Return the attack with network, steps and stop test named."""
        large = max(facts.shape[1:]) >= 64
        changes: dict[str, float | str] = {}
        if self.surrogate == "auto":
            changes["surrogate"] = facts.surrogate
        else:
            changes["surrogate"] = parse_arch(self.surrogate)[0]
        if self.train_steps == "auto":
            changes["train_steps"] = 100 if large else 20 if facts.dataset == "cifar100" else 10
        if self.step == "auto":
            changes["step"] = self.eps / 10
        if self.stop_accuracy == "auto":
            changes["stop_accuracy"] = 0.9 if large else 0.99
        return self.with_options(**changes)

    def image_passes(self, n: int) -> int:
        """Return the passes of all rounds; the stop test usually ends the search sooner."""
        assert isinstance(self.train_steps, int)
        return self.rounds * (self.train_steps * min(self.batch_size, n) + self.steps * n)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return noise that a network in training finds easy, and other networks too."""
        model = run.network(self.surrogate)
        optimizer = torch.optim.SGD(model.parameters(), self.lr, momentum=0.9, weight_decay=5e-4)
        delta = torch.zeros(data.images.shape, device=run.device)
        order = self._order(len(data), run)
        accuracy, done = 0.0, 0
        for done in range(1, self.rounds + 1):
            self._train(model, optimizer, data, delta, order, run)
            accuracy = self._descend(model, data, delta, run)
            run.progress(done / self.rounds, f"em round {done}, accuracy {accuracy:.3f}")
            if accuracy > float(self.stop_accuracy):
                break
        ended = "stop test" if accuracy > float(self.stop_accuracy) else "cap"
        run.note(em_rounds=done, em_accuracy=round(accuracy, 5), em_ended_by=ended)
        return delta

    def _order(self, n: int, run: Run) -> Iterator[Tensor]:
        """Yield batches of a shuffled order that goes on from round to round, for ever."""
        while True:
            shuffled = torch.randperm(n, generator=run.rng, device=run.device)
            yield from shuffled.split(min(self.batch_size, n))

    def _train(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data: Split,
        delta: Float[Tensor, "n c h w"],
        order: Iterator[Tensor],
        run: Run,
    ) -> None:
        """Take the surrogate's steps of one round on the poisoned images, in train mode."""
        assert isinstance(self.train_steps, int)
        model.train()
        for _ in range(self.train_steps):
            batch = next(order)
            if len(batch) < 2:  # batch norm needs two; only the end of an order is this short
                batch = next(order)
            with run.autocast():
                logits = model(self._poisoned(data, delta, batch))
            loss = F.cross_entropy(logits.float(), data.labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()

    def _descend(
        self, model: nn.Module, data: Split, delta: Float[Tensor, "n c h w"], run: Run
    ) -> float:
        """Lower every image's loss by changing its noise, in place; return the accuracy after."""
        correct = torch.zeros((), device=run.device)
        with frozen(model):
            for start in range(0, len(data), self.batch_size):
                part = slice(start, start + self.batch_size)
                labels = data.labels[part]

                def loss(x: Tensor, labels: Tensor = labels) -> Tensor:
                    with run.autocast():
                        logits = model(x)
                    return F.cross_entropy(logits.float(), labels, reduction="sum")

                images = data.pixels(part).contiguous(memory_format=torch.channels_last)
                delta[part] = pgd(
                    loss,
                    images,
                    norm="linf",
                    eps=self.eps,
                    step=float(self.step),
                    steps=self.steps,
                    towards="min",
                    start=delta[part].contiguous(memory_format=torch.channels_last),
                )
                with torch.no_grad(), run.autocast():
                    guesses = model(self._poisoned(data, delta, part)).argmax(1)
                correct += (guesses == labels).sum()
        return correct.item() / len(data)

    @staticmethod
    def _poisoned(
        data: Split, delta: Float[Tensor, "n c h w"], part: Tensor | slice
    ) -> Float[Tensor, "b c h w"]:
        """Return x + delta, formed in float32."""
        images = data.pixels(part) + delta[part]
        return images.contiguous(memory_format=torch.channels_last)

    def export(self, data: Split, delta: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the 8-bit images; with `legacy_export` as the authors' data set class does."""
        if not self.legacy_export:
            return super().export(data, delta)
        noise = (delta * 255).clamp(0, 255)
        return (data.images.float() + noise).clamp_(0, 255).to(torch.uint8)
