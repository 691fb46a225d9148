"""GUE, game unlearnable examples: a generator of noise leads, and a network follows.

Source: Liu, Wang, Gao, "Game-Theoretic Unlearnable Example Generator", AAAI 2024, arXiv:2401.17523,
and its authors' code.
The leader is a U-Net whose output, times eps, is the noise of its input; it lowers
`f = mean max_{k != y} CE(theta(x), k)` on clean images, where theta minimises the cross-entropy g
of poisoned images. The game is solved by first-order steps (BOME). Each batch trains a copy of
theta by 10 steps of Adam on the poisoned images; q is g under theta minus g under the copy. With
`lambda = max(0, (eta |grad q|^2 - <grad_theta f, grad_theta q>) / |grad q|^2)` the generator
descends lambda grad q, and theta descends grad f + lambda grad q. Both are plain SGD.
Departs from it: the last generator makes the noise, where theirs is chosen by the accuracy of
networks on test images; the noise of a batch is computed once, where theirs is computed again in
each step of the copy, which gives the same noise but lets the running statistics of the generator's
batch norm see each batch 12 times; and pooling rounds up, for sides not divisible by 8.
Cost: 650 passes, and 50 of the generator, each as much as a pass of ResNet-18 at its usual width.
"""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import Attack, Facts, Fraction255, Option, Run, Split, attack
from uebench.learn.loops import DivergedError, eval_batches, shuffled_batches

from ._class_wise import check_classes

TINY = 1e-8
"""Added to the squared length that lambda is divided by, as in the authors' code."""


@attack("gue", title="GUE", source="arXiv:2401.17523", family="bi-level")
class GUE(Attack):
    """Noise of a generator that plays a game against the network that is trained on it."""

    uncounted = "its generator, which takes several times as long"
    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change of one pixel value, in the pixel range [0, 1]."""
    surrogate: Annotated[str, Option(variant=True)] = "auto"
    """The network that follows; auto: the protocol's (paper: resnet18)."""
    width: Annotated[int, Field(ge=1, le=1024), Option(quick=2, variant=True)] = 64
    """Channels of the generator's first layer; the innermost has eight times as many."""
    epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=1, variant=True)] = 50
    """Epochs of the game."""
    copy_steps: Annotated[int, Field(ge=1, le=1000), Option(quick=2, variant=True)] = 10
    """Steps of Adam by which a copy of the network approaches the best answer to a batch."""
    copy_lr: Annotated[float, Field(gt=0, le=1), Option(variant=True)] = 1e-4
    """Their learning rate."""
    lr: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.01
    """Learning rate of the network."""
    generator_lr: Annotated[float, Field(gt=0, le=100), Option(variant=True)] = 0.1
    """Learning rate of the generator."""
    eta: Annotated[float, Field(ge=0, le=1000), Option(variant=True)] = 1.5
    """How strongly the steps insist on the network's best answer, against the leader's aim."""
    batch_size: Annotated[int, Field(ge=2, le=65_536), Option(quick=16, variant=True)] = 256
    """Images per step of the game."""

    def resolve(self, facts: Facts) -> GUE:
        """Return the attack with its network filled in; refuse a single class."""
        check_classes(self.info.name, facts)
        return self.with_options(surrogate=facts.surrogate_for(self.surrogate))

    def image_passes(self, n: int) -> int:
        """Return the passes of the network and its copies; those of the generator come on top."""
        return n * self.epochs * (self.copy_steps + 3)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return the noise of the generator after the last epoch, in eval mode."""
        _, generator = self.played(data, run)
        delta = run.zeros(*data.images.shape)
        generator.eval()
        with torch.no_grad():
            for part in eval_batches(data):
                delta[part] = self.noise(generator, data.pixels(part), run).to(delta.device)
        return delta

    def played(self, data: Split, run: Run) -> tuple[nn.Module, nn.Module]:
        """Return network and generator after the game.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        network = run.network(self.surrogate)
        generator = run.build(lambda: Generator(data.shape[0], self.width))
        movers = (
            torch.optim.SGD(network.parameters(), self.lr),
            torch.optim.SGD(generator.parameters(), self.generator_lr),
        )
        loop = run.checkpoint(
            "epochs", network=network, generator=generator, first=movers[0], second=movers[1]
        )
        for epoch in loop.steps(self.epochs):
            network.train()
            generator.train()
            for batch in shuffled_batches(len(data), self.batch_size, run.rng):
                loss = self.play(network, generator, data.subset(batch), run)
                for mover in movers:
                    mover.step()
            if not loss.isfinite():
                raise DivergedError(
                    f"gue: the poisoned loss is {loss.item()}, so the network diverged; lower lr"
                )
            done = epoch + 1
            run.progress(done / self.epochs, f"gue epoch {done}, poisoned loss {loss.item():.3f}")
        return network, generator

    def noise(
        self, generator: nn.Module, images: Float[Tensor, "b c h w"], run: Run
    ) -> Float[Tensor, "b c h w"]:
        """Return the generator's noise for images in [0, 1]."""
        with run.autocast():
            noise: Tensor = generator(images.contiguous(memory_format=torch.channels_last))
        return self.eps * noise.float()

    def play(
        self, network: nn.Module, generator: nn.Module, part: Split, run: Run
    ) -> Float[Tensor, ""]:
        """Leave the gradients of a step in both players, and return the poisoned loss."""
        images, labels = part.pixels(), part.labels
        poisoned = (images + self.noise(generator, images, run)).clamp(0, 1)
        theta, phi = list(network.parameters()), list(generator.parameters())
        best = self._best_answer(network, poisoned.detach(), labels, run)
        aim = hardest_wrong_loss(self._logits(network, images, run), labels)
        of_aim = torch.autograd.grad(aim, theta)
        own = F.cross_entropy(self._logits(network, poisoned, run), labels)
        *of_theta, at_images = torch.autograd.grad(own, [*theta, poisoned], retain_graph=True)
        reached = F.cross_entropy(self._logits(best, poisoned, run), labels)
        (at_best,) = torch.autograd.grad(reached, poisoned, retain_graph=True)
        of_phi = torch.autograd.grad(poisoned, phi, grad_outputs=at_images - at_best)
        squared = torch.stack([each.square().sum() for each in (*of_theta, *of_phi)]).sum()
        inner = torch.stack([(a * b).sum() for a, b in zip(of_aim, of_theta, strict=True)]).sum()
        weight = torch.relu((self.eta * squared - inner) / (squared + TINY))
        for parameter, gradient in zip(phi, of_phi, strict=True):
            parameter.grad = weight * gradient
        for parameter, first, second in zip(theta, of_aim, of_theta, strict=True):
            parameter.grad = first + weight * second
        return own.detach()

    def _best_answer(
        self,
        network: nn.Module,
        poisoned: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> nn.Module:
        """Return a frozen copy of the network after its steps on a poisoned batch."""
        best = copy.deepcopy(network)
        optimizer = torch.optim.Adam(best.parameters(), self.copy_lr)
        for _ in range(self.copy_steps):
            loss = F.cross_entropy(self._logits(best, poisoned, run), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return best.requires_grad_(False)

    def _logits(
        self, network: nn.Module, images: Float[Tensor, "b c h w"], run: Run
    ) -> Float[Tensor, "b k"]:
        with run.autocast():
            logits: Tensor = network(images.contiguous(memory_format=torch.channels_last))
        return logits.float()


def hardest_wrong_loss(
    logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Return the mean of each image's largest cross-entropy over the classes but its own."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return -logits.log_softmax(1).masked_fill(own, torch.inf).amin(1).mean()


class Generator(nn.Module):
    """A U-Net of three levels with average pooling, from images to values in (-1, 1)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(
            _double(a, b) for a, b in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _double(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Sequential(nn.Conv2d(width, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return what is added to each image, in units of the budget."""
        x, skipped = images, []
        for level in self.down:
            skipped.append(level(x))
            x = F.avg_pool2d(skipped[-1], 2, ceil_mode=True)
        x = skipped.pop()
        for level in self.up:
            skip = skipped.pop()
            x = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=True)
            x = level(torch.cat([x, skip], 1))
        return torch.tanh(self.last(x))


def _double(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
