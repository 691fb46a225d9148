"""What victims that learn without labels share: two views of every image, and a probe at the end.

A network without its last layer, the encoder, learns to map two augmented views of an image to
similar features. Then it is frozen, and a linear layer is fitted to its features with labels, whose
accuracy on the test images is the result, next to that of nearest neighbours (`knn_acc`).

Sources: the augmentation is SimCLR's (arXiv:2002.05709). The papers on poisons follow three public
conventions, which the option `convention` names: `apbench` (arXiv:2308.03258), `cp`
(arXiv:2202.11202) and `aue` (arXiv:2402.04010). `ours` takes the optimizer of `aue` and the probe
of `cp`, and scales with the protocol: five epochs for each of the protocol's, which are the papers'
1,000 under `paper`, and four times its batches, 512 at most.
Departs from them:
- The probe is a logistic regression on features without augmentation, solved by L-BFGS, and not
  100 epochs of SGD; it reports what the last encoder is worth, and no best epoch.
- The projector is that of `aue` under all conventions, since the others do not state theirs.
- `apbench` does not shuffle its batches; here they are always shuffled.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ..augment import contrastive, crop_flip
from ..common.errors import UserError
from ..common.options import Auto, Option, auto
from ..data.split import Split
from ..learn.loops import DivergedError, shuffled_batches
from ..learn.protocol import Protocol, check_warmup
from ..learn.surrogate_training import cosine
from ..methods.base import Defense, Facts
from ..methods.checked import augmented_by, presented_by
from ..methods.run import Run
from ..methods.victim import Target, Trained, Victim
from ..models import encoder_of
from .probe import linear_probe, neighbours_accuracy

SGD_MOMENTUM = 0.9
EPOCHS_FACTOR = 5
BATCH_FACTOR = 4
LARGEST_BATCH = 512
"""Batch size of the papers, for which their learning rates are stated."""
WARMUP_SHARE = 0.01
"""Ten of 1,000 epochs, as in arXiv:2402.04010."""
COST_OF_VIEWS = 2.5
"""Time of a step relative to supervised training: two views, and their augmentation."""

CONVENTIONS: dict[str, dict[str, Any]] = {
    "apbench": {"epochs": 500, "warmup_epochs": 0.0, "crop": 0.2, "probe": "clean"},
    "cp": {"epochs": 1000, "warmup_epochs": 0.0, "crop": 0.2, "probe": "clean"},
    "aue": {"epochs": 1000, "warmup_epochs": 10.0, "crop": 0.08, "probe": "poisoned"},
}


class Objective(nn.Module):
    """An encoder, what is trained with it, and the loss of two views of a batch."""

    encoder: nn.Module

    def loss(
        self, first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Return the loss of two views of the same images."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Update what follows the encoder without a gradient, after each step of the optimizer."""


class Contrastive(Victim):
    """Trains an encoder without labels and judges it by a linear probe."""

    reads: ClassVar[tuple[str, ...] | None] = ("flip",)
    rate: ClassVar[float] = 0.5
    """The papers' peak learning rate for batches of 512 images."""

    convention: Literal["ours", "apbench", "cp", "aue"] = "ours"
    """Whose settings take the place of those that are left open; ours scales with the protocol."""
    epochs: Annotated[int, Field(ge=1, le=10_000), Auto(), Option(quick=2)] = auto()
    """Passes over the training set; by default five times the protocol's."""
    batch_size: Annotated[int, Field(ge=4, le=65_536), Auto()] = auto()
    """Images per step, each in two views; by default four times the protocol's, at most 512."""
    lr: Annotated[float, Field(gt=0, le=100), Auto()] = auto()
    """Peak learning rate of SGD; by default the papers' for 512 images, times the share of 512."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """L2 penalty on every parameter."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000), Auto()] = auto()
    """Epochs over which the learning rate rises linearly, before it falls along a cosine."""
    crop: Annotated[float, Field(gt=0, le=1), Auto()] = auto()
    """Smallest share of the image's area that a view shows."""
    hidden: Annotated[int, Field(ge=1, le=65_536), Option(quick=32)] = 2048
    """Hidden units of the projector."""
    dim: Annotated[int, Field(ge=1, le=65_536), Option(quick=16)] = 128
    """Outputs of the projector, between which views are compared."""
    probe: Annotated[Literal["clean", "poisoned"], Auto()] = auto()
    """Images that the linear probe is fitted to: clean ones, which measure what the features are
    worth, or those of the training set itself."""

    def resolve(self, facts: Facts) -> Self:
        """Return the victim with the settings of its convention in place of those left open.

        Raises:
            UserError: the warm-up takes the whole training.
        """
        batch_size = self.batch_size
        if isinstance(batch_size, str):
            ours = min(LARGEST_BATCH, BATCH_FACTOR * facts.batch_size)
            batch_size = ours if self.convention == "ours" else LARGEST_BATCH
        of_convention = CONVENTIONS.get(self.convention, {"epochs": EPOCHS_FACTOR * facts.epochs})
        epochs = of_convention["epochs"] if isinstance(self.epochs, str) else self.epochs
        ours = {
            "epochs": epochs,
            "warmup_epochs": WARMUP_SHARE * epochs,
            "crop": 0.2,
            "probe": "clean",
        }
        chosen = ours | of_convention
        lr = self.rate * batch_size / LARGEST_BATCH
        filled = self.fill_auto(**chosen, batch_size=batch_size, lr=lr)
        check_warmup(filled.warmup_epochs, epochs, self.info.name)
        return filled

    def recipe(self) -> dict[str, Any]:
        """Return the options without the name of the convention, which the others spell out."""
        options = self.options()
        del options["convention"]
        return options

    def effort(self, protocol: Protocol) -> float:
        """Return the number of epochs relative to the protocol's, each more than twice as long."""
        return COST_OF_VIEWS * self.epochs / protocol.epochs

    def check(self, arch: str, defense: Defense, facts: Facts) -> None:
        """Refuse defenses with a loss of their own, and a network without hidden layers.

        Raises:
            UserError: there is nothing to train, or the defense acts in another loss.
        """
        super().check(arch, defense, facts)
        if arch == "linear":
            raise UserError(
                f"victim {self.info.name} trains what is below a network's last layer, and linear "
                "has nothing there; choose another --arch, such as mlp2"
            )

    def objective(self, encoder: nn.Module, n_features: int) -> Objective:
        """Return what is trained; new layers are drawn from torch's generator, seeded for them."""
        raise NotImplementedError(f"{type(self).__name__} has no `objective`; write it")

    def train(self, data: Split, target: Target, run: Run) -> Trained:
        """Return the encoder with its linear probe.

        Raises:
            DivergedError: the loss became NaN or infinite.
        """
        run.epochs = self.epochs
        encoder, n_features = encoder_of(run.network(target.arch))
        objective = run.build(lambda: self.objective(encoder, n_features))
        optimizer = torch.optim.SGD(
            objective.parameters(), self.lr, momentum=SGD_MOMENTUM, weight_decay=self.weight_decay
        )
        start = time.perf_counter()
        loop = target.checkpoint(run, "contrastive", objective=objective, optimizer=optimizer)
        loop.facts = {"curve": [], "seconds": 0.0, "augmenting": 0.0, **loop.facts}
        before = loop.facts["seconds"]
        for epoch in loop.steps(self.epochs):
            run.epoch = epoch
            row = self._train_epoch(objective, optimizer, data, target, run)
            loop.facts["augmenting"] += run.augmenting.taken()
            loop.facts["curve"].append({"epoch": epoch + 1, **row})
            loop.facts["seconds"] = before + time.perf_counter() - start
            run.progress((epoch + 1) / self.epochs, f"epoch {epoch + 1}, loss {row['loss']:.3f}")
        trained_s = before + time.perf_counter() - start
        labelled = data if self.probe == "poisoned" else target.clean.to(run.device)
        model = linear_probe(encoder, labelled, run)
        return target.judged(
            model,
            data,
            run,
            loop.facts["curve"],
            train_seconds=before + time.perf_counter() - start,
            images_per_second=self.epochs * len(data) / trained_s,
            augment_share=loop.facts["augmenting"] / trained_s,
            knn_acc=neighbours_accuracy(encoder, labelled, target.test, run),
        )

    def _train_epoch(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        data: Split,
        target: Target,
        run: Run,
    ) -> dict[str, float]:
        """Train for one epoch; return its mean loss and last learning rate."""
        objective.train()
        batches = shuffled_batches(len(data), self.batch_size, run.rng)
        total, rate = torch.zeros((), device=run.device), 0.0
        for number, batch in enumerate(batches):
            rate = self._rate(run.epoch + number / len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            with run.augmenting, torch.no_grad():
                views = self._views(data, batch, target, run)
            with run.autocast():
                loss = objective.loss(*views)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            objective.after_step()
            total += loss.detach()
        mean = total.item() / len(batches)
        if not abs(mean) < float("inf"):
            raise DivergedError(
                f"the loss is {mean} in epoch {run.epoch + 1}; set a lower {self.info.name}.lr"
            )
        return {"loss": mean, "lr": rate}

    def _rate(self, epoch: float) -> float:
        """Return the learning rate after a number of epochs."""
        if epoch < self.warmup_epochs:
            return self.lr * (epoch + 1 / self.epochs) / (self.warmup_epochs + 1 / self.epochs)
        return cosine(self.lr, (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))

    def _views(
        self, data: Split, batch: Tensor, target: Target, run: Run
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Return two views of the images of a batch, after what the defense does to images."""
        images = presented_by(target.defense, data.take(batch), run)
        # a defense may return images of another size: larger ones are cropped, smaller ones padded
        sides = zip(data.shape[1:], images.shape[2:], strict=True)
        padding = max(0, *(math.ceil((wanted - side) / 2) for wanted, side in sides))
        images = crop_flip(images, run.rng, padding, False, size=data.shape[1:])
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        images = augmented_by(target.defense, images, run)
        first, second = (
            contrastive(images, run.rng, crop=self.crop, mirror=target.protocol.flip).contiguous(
                memory_format=torch.channels_last
            )
            for _ in range(2)
        )
        return first, second


def perceptron(inputs: int, hidden: int, outputs: int, *, normed: bool) -> nn.Sequential:
    """Return a projector or predictor of two linear layers, with batch norm after the first.

    Args:
        inputs: features that it takes.
        hidden: its hidden units.
        outputs: its outputs.
        normed: whether batch norm also follows the last layer.
    """
    layers = [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    last = [nn.Linear(hidden, outputs), *([nn.BatchNorm1d(outputs)] if normed else [])]
    return nn.Sequential(*layers, *last)


def similarity(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the mean cosine between the rows of two tensors, in float32."""
    return F.cosine_similarity(a.float(), b.float()).mean()
