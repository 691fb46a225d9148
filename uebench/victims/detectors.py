"""Detectors: is a training set poisoned? They answer before anybody trains on it.

A detector is fitted to four fifths of the suspect images and scored on the others. Its score is a
share of correct answers in [0, 1], and the set counts as poisoned if the score exceeds the
detector's threshold and what guessing reaches.

Sources: `linear`, `two_layer` and `bias_shift` are from Zhu et al., "Detection and Defense of
Unlearnable Examples", AAAI 2024, arXiv:2312.08898; `noise` is the linear separability of Yu et al.,
KDD 2022, and of arXiv:2305.19254; `edge_pixels` follows the idea of Li et al., AAAI 2025,
arXiv:2311.18403, that convolutions with zero padding darken the borders of images.
Departs from them: the batch size, 128, is ours; 100 epochs also for 100 classes; `bias_shift` has
as many outputs as there are classes, and keeps the learning rate that its authors' code uses (0.01)
rather than the one that the code sets too late; `noise` is scored on held-out images too, while the
published number is the accuracy on the training images (`train_score`), and it takes at most 500
iterations from zero weights, where theirs are 50 calls of 20 from random weights; `edge_pixels` is
described below.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from ..augment import crop_flip
from ..common.errors import UserError
from ..common.options import option_texts, validated
from ..common.spec import format_spec, parse_spec, unknown
from ..data.split import Split
from ..learn.loops import DivergedError, accuracy, shuffled_batches
from ..learn.surrogate_training import CROP_PADDING
from ..methods.run import Run
from ..models import network_recipe, parse_arch
from ..store.arrays import chunks, zeros

BOUND = 0.7
UDP_BOUND = "arXiv:2312.08898"
OWN_BOUND = "our choice"
"""The same bound; clean CIFAR-10 stays well below it, and what these detect lies well above."""
BATCH_SIZE = 128
HELD_OUT = 5
"""One image in five is held out, as 10,000 of 50,000 are in arXiv:2312.08898."""
FEWEST = 50
"""With fewer images, ten or less would be held out, and a verdict on these would mean nothing."""
_LR = 0.01
_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4
DROPS = (0.75, 0.9)
"""Shares of the epochs after which the learning rate is divided by ten."""


class Suspect(NamedTuple):
    """A training set that may be poisoned, and which of its images are held out."""

    data: Split
    clean: Split
    """The clean images in the same order, which only `noise` looks at."""
    fitted: Tensor
    held_out: Tensor


class Scores(NamedTuple):
    """Shares of correct answers in [0, 1]; `chance` is what guessing reaches."""

    held_out: float
    train: float
    chance: float


class Detector(BaseModel):
    """What detectors share: options that are checked and recorded, and a threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    title: ClassVar[str]
    threshold: ClassVar[float] = BOUND
    source: ClassVar[str] = UDP_BOUND
    """Where the threshold comes from."""
    version: ClassVar[int] = 1
    """Raise it when the detector's numbers change: stored scores are then computed again."""

    def recipe(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return what changes the score, apart from the data and the seed."""
        return self.model_dump()

    def flags(self, score: float, chance: float) -> bool:
        """Return the verdict on a score: it is no evidence of poison if guessing reaches it."""
        return score > max(self.threshold, chance)

    def score(self, suspect: Suspect, run: Run) -> Scores:
        """Return how well the detector does on the images that it was and was not fitted to."""
        raise NotImplementedError


class TrainedDetector(Detector):
    """A network that is trained on the suspect set with SGD; poison is learned unusually well."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Passes over the images that are not held out."""
    shift: ClassVar[float] = 0.0
    """What is added to the pixels in training, but not when images are judged."""
    augments: ClassVar[bool] = False
    """Whether images are cropped and flipped at random."""

    def network(self, data: Split, run: Run) -> nn.Module:
        """Return the untrained network, seeded from `run.rng`."""
        raise NotImplementedError

    def score(self, suspect: Suspect, run: Run) -> Scores:
        """Train the network and return its accuracies."""
        data, held_out = (suspect.data.subset(rows) for rows in suspect[2:])
        model = self.network(data, run)
        optimizer = torch.optim.SGD(
            model.parameters(), _LR, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY
        )
        loop = run.checkpoint("detector", model=model, optimizer=optimizer)
        for epoch in loop.steps(self.epochs):
            for group in optimizer.param_groups:
                group["lr"] = _LR * 0.1 ** sum(epoch >= drop * self.epochs for drop in DROPS)
            self._train_epoch(model, optimizer, data, run)
            run.progress((epoch + 1) / self.epochs, f"epoch {epoch + 1} of {self.epochs}")
        return Scores(accuracy(model, held_out, run), accuracy(model, data, run), chance(held_out))

    def _train_epoch(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, data: Split, run: Run
    ) -> None:
        model.train()
        for batch in shuffled_batches(len(data), BATCH_SIZE, run.rng):
            images = data.take(batch)
            if self.augments:
                images = crop_flip(images, run.rng, CROP_PADDING, True)
            pixels = images.float().div_(255).add_(self.shift)
            loss = F.cross_entropy(
                model(pixels.contiguous(memory_format=torch.channels_last)), data.labels[batch]
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if not loss.isfinite():
            raise DivergedError(f"the loss of a detector is {loss.item()}")


class Linear(TrainedDetector):
    """A linear model on the pixels. It learns clean photographs badly and most poisons well."""

    title = "linear model"

    def network(self, data: Split, run: Run) -> nn.Module:
        """Return one linear layer."""
        return run.network_for("linear", data.shape, data.n_classes)


class TwoLayer(TrainedDetector):
    """A network with one hidden layer, on cropped and flipped images."""

    title = "two-layer network"
    width: Annotated[int, Field(ge=1, le=65_536)] = 3072
    """Hidden units."""
    augments = True

    def network(self, data: Split, run: Run) -> nn.Module:
        """Return two linear layers with a ReLU in between."""
        return run.network_for(f"mlp2[width={self.width}]", data.shape, data.n_classes)


class BiasShift(TrainedDetector):
    """A deep network trained on images from which 0.5 is subtracted, and judged without that.

    What it learned of images does not survive the shift, while what it learned of a poison does.
    """

    title = "bias shift"
    arch: str = "resnet18"
    """The network."""
    shift = -0.5

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        return parse_arch(arch)[0]

    def recipe(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return the options, with the network as every key holds it."""
        return {**self.model_dump(), **network_recipe(self.arch, shape)}

    def network(self, data: Split, run: Run) -> nn.Module:
        """Return the deep network."""
        return run.network(self.arch)


class EdgePixels(Detector):
    """A linear support vector machine that tells border lines from the lines inside of them.

    An image gives the means of its four border lines in each channel, less those of the next lines
    inside: 12 numbers for RGB. The same is measured one pixel further in. In natural images the two
    look alike (a score near 0.5), while a convolution with zero padding darkens the border alone.
    The source trains on the 12 sums of images that are known to be clean or convolved; this needs
    no such images, and differences do not depend on the brightness of an image.
    """

    title = "edge pixels"
    source = OWN_BOUND

    def score(self, suspect: Suspect, run: Run) -> Scores:
        """Fit the machine to the two kinds of lines and return its shares of correct answers."""
        # scikit-learn takes as long to load as torch, and its machine has an exact solver
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC

        features = edge_features(suspect.data).cpu()
        machine = make_pipeline(StandardScaler(), LinearSVC(dual=False))
        scores: list[float] = []
        for rows in (suspect.fitted.cpu(), suspect.held_out.cpu()):
            lines = features[rows].flatten(0, 1).numpy()
            is_border = torch.tensor([True, False]).repeat(len(rows)).numpy()
            if not scores:
                machine.fit(lines, is_border)
            scores.append(float(machine.score(lines, is_border)))
        return Scores(held_out=scores[1], train=scores[0], chance=0.5)


class Noise(Detector):
    """The linear separability of the perturbation, scaled to [0, 1]; it needs the clean images.

    A logistic regression with bias is fitted by L-BFGS on all images at once. AR is the known
    exception: its perturbation is not separable, and still unlearnable.
    """

    title = "noise, linearly"
    source = OWN_BOUND
    steps: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Iterations of L-BFGS at a learning rate of 0.5; it ends earlier once nothing changes."""

    def score(self, suspect: Suspect, run: Run) -> Scores:
        """Fit the regression to the perturbation and return its accuracies."""
        noise = perturbation(suspect.data, suspect.clean)
        low, high = float(noise.min()), float(noise.max())
        data, fitted = suspect.data, suspect.fitted
        weight = torch.zeros(data.n_classes, noise[0].numel(), device=run.device)
        bias = torch.zeros(data.n_classes, device=run.device)
        parameters = [weight.requires_grad_(), bias.requires_grad_()]
        optimizer = torch.optim.LBFGS(parameters, lr=0.5, max_iter=self.steps)
        done = 0

        def logits(rows: Tensor) -> Tensor:
            values = noise[rows.to(noise.device)].to(run.device).flatten(1).float()
            return F.linear((values - low) / max(high - low, 1.0), weight, bias)

        def parts(rows: Tensor) -> list[Tensor]:
            return [rows[part] for part in chunks(noise[:1].expand(len(rows), -1, -1, -1))]

        def loss() -> Tensor:
            nonlocal done
            optimizer.zero_grad()
            total = torch.zeros((), device=run.device)
            for rows in parts(fitted):
                losses = F.cross_entropy(logits(rows), data.labels[rows], reduction="sum")
                (losses / len(fitted)).backward()
                total += losses.detach() / len(fitted)
            done += 1
            run.progress(done / self.steps, f"step {done}")
            return total

        optimizer.step(loss)
        if not weight.isfinite().all():
            raise DivergedError("the regression on the noise diverged")
        scores = []
        with torch.no_grad():
            for these in (fitted, suspect.held_out):
                right = [
                    (logits(rows).argmax(1) == data.labels[rows]).sum() for rows in parts(these)
                ]
                scores.append(float(sum(right)) / len(these))
        return Scores(scores[1], scores[0], chance(data.subset(suspect.held_out)))


DETECTORS: dict[str, type[Detector]] = {
    "linear": Linear,
    "two_layer": TwoLayer,
    "bias_shift": BiasShift,
    "edge_pixels": EdgePixels,
    "noise": Noise,
}
CHEAP = ("linear", "edge_pixels", "noise")
"""Those that take a minute on a CPU, which are used unless others are asked for."""


def detector_class(name: str) -> type[Detector]:
    """Return the class of a detector.

    Raises:
        UnknownNameError: there is no such detector; the message has the nearest name.
    """
    if name not in DETECTORS:
        raise unknown("detector", name, DETECTORS)
    return DETECTORS[name]


def build_detector(spec: str) -> Detector:
    """Return the detector that a spec such as `two_layer[epochs=10]` describes.

    Raises:
        UserError: no such detector, an unknown option, or a value out of range.
    """
    name, options = parse_spec(spec)
    return validated(detector_class(name), options, owner=name)


def detector_spec(detector: Detector) -> str:
    """Return a detector as it would be typed, without the options that have their defaults."""
    name = next(name for name, cls in DETECTORS.items() if type(detector) is cls)
    fields = type(detector).model_fields
    changed = {k: v for k, v in detector.model_dump().items() if v != fields[k].default}
    return format_spec(name, option_texts(changed, fields))


def check_detectable(data: Split) -> None:
    """Check that a verdict on a training set would mean something.

    Raises:
        UserError: there are too few images, all of one class, or too small ones.
    """
    if len(data) < FEWEST:
        raise UserError(
            f"a detector needs at least {FEWEST} images, of which one in {HELD_OUT} is held out, "
            f"got {len(data)}; give a larger set"
        )
    if sum(size > 0 for size in data.class_sizes) < 2:
        raise UserError("a detector needs images of at least 2 classes to tell apart, got 1")
    if min(data.shape[1:]) < 3:
        _, height, width = data.shape
        raise UserError(f"a detector needs images of at least 3x3 px, got {height}x{width}")


def divided(data: Split, clean: Split, run: Run) -> Suspect:
    """Return a suspect set with a random fifth of its images held out."""
    order = torch.randperm(len(data), generator=run.rng, device=run.device)
    n_held = len(data) // HELD_OUT
    return Suspect(data, clean, fitted=order[n_held:], held_out=order[:n_held])


def chance(data: Split) -> float:
    """Return the share of the most frequent class."""
    return max(data.class_sizes) / len(data)


def perturbation(data: Split, clean: Split) -> Tensor:
    """Return the images less the clean ones, in levels: int16 [n, c, h, w]."""
    noise = zeros(data.images.shape, torch.int16, data.images.device)
    for part in chunks(noise):
        noise[part] = data.take(part).short().sub_(clean.take(part)).to(noise.device)
    return noise


def edge_features(data: Split) -> Float[Tensor, "n 2 d"]:
    """Return the steps from the border lines inwards, and those one pixel further in.

    The d columns are the top, bottom, left and right line, each with all channels.
    """
    parts = []
    for part in chunks(data.images):
        pixels = data.pixels(part)
        lines = [
            torch.cat(
                (
                    pixels[:, :, depth].mean(-1),
                    pixels[:, :, -1 - depth].mean(-1),
                    pixels[..., depth].mean(-1),
                    pixels[..., -1 - depth].mean(-1),
                ),
                dim=1,
            )
            for depth in range(3)
        ]
        parts.append(torch.stack((lines[0] - lines[1], lines[1] - lines[2]), dim=1))
    return torch.cat(parts)
