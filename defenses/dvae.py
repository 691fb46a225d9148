"""D-VAE: a variational autoencoder that separates the perturbation from the image.

Source: Yu et al., "Purify Unlearnable Examples via Rate-Constrained Variational Autoencoders", ICML
2024, arXiv:2405.01460. An encoder that may pass on only little information reconstructs the image
without its perturbation, and a second decoder, which knows the class, predicts what is missing. In
the first stage that prediction is subtracted from the images. In the second, a new autoencoder with
a larger rate is trained on the result, and its reconstruction is what the target model is trained
on. Neither stage needs clean images or weights of others; test images stay as they are.

Published as D-VAE: BridgePure's column is the one that we have.

The latent code is sampled, also while purifying, so that the result depends on a seed. It is fixed
by the training set and the options: all training seeds of a cell share one purified set, which is
computed once and kept in the store.

The accuracy at its true size was not measured. A small test used 2,000 CIFAR-10 images averaged to
16 px, LSP and `width=16,batch_size=64`, which makes about 1,900 steps per stage where the authors
take 23,400; then resnet8, 24 epochs of `quick` (bf16, single runs on 1,000 test images, +- 3.1).
Clean training gives 50.0 and the poison 32.8. The first stage's prediction correlates with the
perturbation by 0.36 on average over the images, and training on its result gives 44.8. What is left
in the images correlates with the perturbation by 0.48 then, and by 0.09 after the second stage,
which blurs them (PSNR 21.8 dB), so that training gives 37.9. On 200 synthetic images of two classes
with a planted pattern of 24/255 the first stage's correlation is 0.96.

On all of CIFAR-10 (32 px, resnet8, `sprint`, +- 1.0) `width=16,epochs=4` brings LSP from 30.4 to
74.7, OPS from 15.3 to 60.2, AR from 11.2 to 76.3 and EM from 16.1 to 69.9; CUDA goes from 27.4 to
30.0, and clean images from 83.6 to 75.0.

Cost: at its own width a step takes 0.84 GFLOP per image forward where ResNet-18 takes 1.11, so two
stages of 60 epochs are the work of about 90 epochs of standard training of ResNet-18, and less than
any training of it with UEraser at the authors' length. They are computed once per poison. A step of
128 images takes 2.5 s at `width=64`, 0.77 s at 32 and 0.29 s at 16 (bf16, one thread of a shared
AMD EPYC, torch 2.14, processor time, best of four to six), so 50,000 images at the authors' size
take 33 hours there.

Departs from the authors' code: images are rounded to 8 bits after each stage, not truncated; the
batches of an epoch are of almost equal size, so that no image is left out; and images of more than
32 px pass the same network, where the authors cut a deeper one.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from uebench import Auto, Defense, Facts, Option, Run, Split, auto, defense
from uebench.data.split import content_hash
from uebench.learn.loops import DivergedError, shuffled_batches
from uebench.models.resnet import BasicBlock
from uebench.store.arrays import chunks, zeros

EPOCHS = {"cifar100": 100, "imagenet_subset": 20}
"""Of each stage, by data set; others take the 60 of CIFAR-10."""
KL_WEIGHT = 0.01
"""Of the divergence of the codes from the standard normal distribution, as in the authors' code."""
SMALLEST_PERTURBATION = 0.002
"""Mean square below which the perturbation's size is not punished."""
FREE_EPOCHS = 11
"""Epochs in which the perturbation's size is not punished at all."""


@defense("dvae", title="D-VAE", source="arXiv:2405.01460", family="purification")
class DisentanglingVAE(Defense):
    """The training set is purified in two stages before the target model is trained."""

    epochs: Annotated[int, Field(ge=1, le=10_000), Auto(), Option(quick=1)] = auto()
    """Epochs of each stage; auto: 60, or 100 on cifar100 and 20 on imagenet_subset."""
    rate: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Information per position, in nats, that the first stage's code may have for free."""
    second_rate: Annotated[float, Field(ge=0, le=1000)] = 3.0
    """The same in the second stage."""
    stages: Annotated[int, Field(ge=1, le=2)] = 2
    """1 trains on the images minus the first stage's perturbation."""
    width: Annotated[int, Field(ge=16, le=1024), Option(quick=16, variant=True)] = 64
    """Channels of the first layer; the code has four times as many. With fewer than 16 some
    transposed convolutions have fewer than 8, which corrupt the heap on CPUs (torch 2.15)."""
    lr: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Learning rate of Adam at the start; it falls to zero along a cosine."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images per step."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the networks and of the samples."""

    def resolve(self, facts: Facts) -> DisentanglingVAE:
        """Return the defense with its number of epochs filled in."""
        return self.fill_auto(epochs=EPOCHS.get(facts.dataset, 60))

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the purified training set."""
        recipe = {"data": content_hash(data), "precision": run.precision, **self.options()}
        tensors = run.kept(
            f"{self.info.name}, version {self.version}",
            recipe,
            lambda fresh: {"images": self._purified(data, fresh)},
        )
        return data.with_images(tensors["images"].to(data.images.device))

    def _purified(self, data: Split, run: Run) -> Tensor:
        """Return the 8-bit images after the last stage."""
        for stage, rate in list(enumerate((self.rate, self.second_rate), 1))[: self.stages]:
            model = self._trained(data, rate, stage, run)
            images = zeros(data.images.shape, torch.uint8, data.images.device)
            for part in chunks(images):
                images[part] = _purify(
                    model, data.pixels(part), data.labels[part], run, reconstruct=stage == 2
                )
            data = data.with_images(images)
        return data.images

    def _trained(self, data: Split, rate: float, stage: int, run: Run) -> Autoencoder:
        """Return an autoencoder trained on the images and labels of `data`."""
        model = run.build(lambda: Autoencoder(data.n_classes, data.shape, self.width))
        optimizer = torch.optim.Adam(model.parameters(), self.lr)
        loop = run.checkpoint(f"stage {stage}", model=model, optimizer=optimizer)
        model.train()
        for epoch in loop.steps(self.epochs):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
            total = torch.zeros((), device=run.device)
            batches = shuffled_batches(len(data), self.batch_size, run.rng)
            for batch in batches:
                with run.autocast():
                    loss = _loss(model, data.pixels(batch), data.labels[batch], rate, epoch, run)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                total += loss.detach()
            mean = total.item() / len(batches)
            if not math.isfinite(mean):
                raise DivergedError(
                    f"dvae: the loss is {mean} in epoch {epoch + 1} of stage {stage}; lower lr"
                )
            done = (stage - 1 + (epoch + 1) / self.epochs) / self.stages
            run.progress(done, f"stage {stage}, epoch {epoch + 1}, loss {mean:.4f}")
        model.eval()
        return model


def _loss(
    model: Autoencoder,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    rate: float,
    epoch: int,
    run: Run,
) -> Float[Tensor, ""]:
    """Return the loss of a batch: two reconstructions, the code's rate, the perturbation's size."""
    rebuilt, perturbation, information = model(images, labels, run.rng)
    loss: Tensor = F.mse_loss(rebuilt, images)
    loss = loss + F.mse_loss((rebuilt + perturbation).clamp(0, 1), images)
    loss = loss + KL_WEIGHT * information.clamp_min(rate)
    if epoch >= FREE_EPOCHS:
        loss = loss + perturbation.square().mean().clamp_min(SMALLEST_PERTURBATION)
    return loss


@torch.no_grad()
def _purify(
    model: Autoencoder,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    run: Run,
    *,
    reconstruct: bool,
    batch: int = 500,
) -> Tensor:
    """Return 8-bit images without the predicted perturbation, reconstructed where asked."""
    parts = []
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        with run.autocast():
            out = (x - model(x, y, run.rng)[1]).clamp(0, 1)
            if reconstruct:
                out = model(out, y, run.rng)[0]
        parts.append(out.float().mul(255).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)


class Autoencoder(nn.Module):
    """An encoder of ResNet-18's first layers, a decoder of images and one of perturbations."""

    def __init__(self, n_classes: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, *self.size = shape
        wide = 2 * width
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            BasicBlock(width, width, 1),
            BasicBlock(width, width, 1),
            BasicBlock(width, wide, 2),
        )
        self.mean = nn.Conv2d(wide, 2 * wide, 1)
        self.log_variance = nn.Conv2d(wide, 2 * wide, 1)
        self.projection = nn.Conv2d(2 * wide, wide, 1)
        self.decoder = _decoder(wide, channels)
        self.perturbation_decoder = _decoder(wide, channels)
        half = [math.ceil(side / 2) for side in self.size]
        self.embedding = nn.Parameter(torch.randn(n_classes, wide, *half))

    def forward(
        self, x: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstructions [b, c, h, w], perturbations [b, c, h, w] and information [].

        The information is the divergence of the code from a standard normal distribution, in nats,
        summed over channels and averaged over positions and images.
        """
        features = self.encoder(x.contiguous(memory_format=torch.channels_last))
        mean, log_variance = self.mean(features).float(), self.log_variance(features).float()
        spread = torch.randn(mean.shape, generator=rng, device=mean.device)
        code = self.projection(mean + spread * (log_variance / 2).exp())
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        h, w = self.size  # a side of odd length is one pixel longer after decoding
        rebuilt = self.decoder(code).float().sigmoid()[..., :h, :w]
        perturbation = self.perturbation_decoder(code + self.embedding[labels])
        return rebuilt, perturbation.float()[..., :h, :w], divergence.sum(1).mean()


def _decoder(width: int, channels: int) -> nn.Sequential:
    """Return a decoder that doubles the size of its input."""
    half, quarter = width // 2, width // 4
    return nn.Sequential(
        nn.ConvTranspose2d(width, half, 4, stride=2, padding=1),
        nn.ConvTranspose2d(half, half, 3, padding=1),
        nn.InstanceNorm2d(half),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(half, quarter, 3, padding=1),
        nn.InstanceNorm2d(quarter),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(quarter, channels, 3, padding=1),
    )
