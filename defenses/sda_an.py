"""SDA+AN: adversarial noise of a simple network is added once, then strong augmentation.

Source: Zhu et al., "Detection and Defense of Unlearnable Examples", AAAI 2024, arXiv:2312.08898.
Simple networks learn a poison at once, so a network of two linear layers is trained adversarially
(PGD-10, 8/255, each search from the image itself, without crop and flip) on the poisoned images;
the noise that raises its loss on an image hides what it has learned. That noise is added to the
training images once, before the target model is trained with the augmentation of contrastive
learning: a resized crop of 10 to 100 % of the area, mirroring, colour jitter and random gray. It
takes the place of the protocol's crop and flip, which are switched off; images are not mirrored
where the protocol does not. Test images stay as they are.

The authors' numbers are not known to us; they train ResNet-18 for 200 epochs.

Cost: a training step of ResNet-18 takes 1.01 (0.99 to 1.03) of the time of standard training,
because of its augmentation; the noise is computed once (`benchmarks/step_costs.py --images 128`:
bf16, one thread of a shared AMD EPYC, torch 2.14, processor time, median and range of 3 rounds).
The noise takes 11 passes per epoch of a network of two layers: about 5 hours for 50,000 images on
such a thread, estimated from the first of its 100 epochs, alongside other work.

Departs from it: the noise is added to the 8-bit images, which is all that a data user has, where
the authors' code adds it to the perturbation before clipping; the pixels of the simple network are
not normalised; and the noise depends on the training set and the options alone, so that all
training seeds share one noisy set, which is computed once and kept in the store.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from uebench import (
    Adversary,
    Auto,
    Defense,
    Facts,
    Fraction255,
    Option,
    Protocol,
    Run,
    Split,
    Training,
    auto,
    defense,
)
from uebench.augment import contrastive
from uebench.data.split import content_hash
from uebench.learn.surrogate_training import adversarial, train_epoch
from uebench.store.arrays import chunks, zeros

LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
"""Of the simple network."""
DROPS = 0.75, 0.9
"""Shares of its epochs after which the learning rate is divided by ten."""


@defense("sda_an", title="SDA+AN", source="arXiv:2312.08898", family="adversarial training")
class StrongAugmentationAdversarialNoise(Defense):
    """A simple network's adversarial noise hides the poison; strong augmentation does the rest."""

    version: ClassVar[int] = 2
    noise: bool = True
    """Add the adversarial noise; false leaves the strong augmentation alone."""
    augment: bool = True
    """Train with the strong augmentation; false leaves the protocol's crop and flip."""
    mirror: Annotated[bool, Auto()] = auto()
    """Mirror half of the images in the strong augmentation; auto: if the protocol does."""
    epochs: Annotated[int, Field(ge=1, le=10_000), Option(quick=1)] = 100
    """Passes of the simple network over the training set."""
    width: Annotated[int, Field(ge=1, le=65_536), Option(quick=16)] = 3072
    """Its hidden units."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest noise of a pixel value, also while the simple network is trained."""
    steps: Annotated[int, Field(ge=1, le=1000), Option(quick=1)] = 10
    """Steps of each search."""
    step: Annotated[Fraction255, Field(gt=0, le=1)] = 2 / 255
    """Length of a step while the simple network is trained."""
    noise_step: Annotated[Fraction255, Field(gt=0, le=1)] = 1 / 255
    """Length of a step of the search for the noise that is added."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images per step of the simple network's training."""

    def resolve(self, facts: Facts) -> StrongAugmentationAdversarialNoise:
        """Return the defense, which mirrors images if the protocol does."""
        return self.fill_auto(mirror=facts.flip)

    def recipe(self) -> dict[str, Any]:
        """Return the options, without `mirror` where images are mirrored, as they once always were.

        So the keys of those results hold.
        """
        return {k: v for k, v in self.options().items() if k != "mirror" or not v}

    def adjust(self, protocol: Protocol) -> Protocol:
        """Switch the protocol's crop and flip off, since the augmentation has its own."""
        if not self.augment:
            return protocol
        return protocol.model_copy(update={"crop_padding": 0, "flip": False})

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the training set with the adversarial noise of the simple network."""
        if not self.noise:
            return data
        options = {k: v for k, v in self.options().items() if k not in ("augment", "mirror")}
        recipe = {"data": content_hash(data), "precision": run.precision, **options}
        tensors = run.kept(
            f"{self.info.name}, version {self.version}",
            recipe,
            lambda fresh: {"images": self._noisy(data, fresh)},
        )
        return data.with_images(tensors["images"].to(data.images.device))

    def after_crop(self, images: Float[Tensor, "b c h w"], run: Run) -> Float[Tensor, "b c h w"]:
        """Return the strongly augmented images."""
        if not self.augment:
            return images
        return contrastive(images, run.rng, mirror=self.mirror)

    def _noisy(self, data: Split, run: Run) -> Tensor:
        """Return the 8-bit images with the noise that raises the simple network's loss."""
        model = self._simple_network(data, run)
        adversary = Adversary(self.eps, self.steps, self.noise_step, random_start=False)
        images = zeros(data.images.shape, torch.uint8, data.images.device)
        for part in chunks(images):
            points = adversarial(model, data.pixels(part), data.labels[part], adversary, run)
            images[part] = (255 * points).round_().clamp_(0, 255).to(torch.uint8)
        return images

    def _simple_network(self, data: Split, run: Run) -> nn.Module:
        """Return two linear layers, trained adversarially on the images and labels of `data`."""
        model = run.network_for(f"mlp2[width={self.width}]", data.shape, data.n_classes)
        optimizer = torch.optim.SGD(
            model.parameters(), LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        adversary = Adversary(self.eps, self.steps, self.step, random_start=False)
        training = Training(DROPS, augment="none")
        loop = run.checkpoint("simple network", model=model, optimizer=optimizer)
        for epoch in loop.steps(self.epochs):
            schedule = (LR, epoch, self.epochs)
            train_epoch(model, optimizer, data, self.batch_size, run, schedule, adversary, training)
            run.progress((epoch + 1) / self.epochs, f"simple network, epoch {epoch + 1}")
        return model
