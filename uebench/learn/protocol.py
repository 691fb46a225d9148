"""Protocols: how a target model is trained. `PROTOCOLS` holds the named ones.

Sources: `paper` is arXiv:2303.15127, section 4.1 (SGD, momentum 0.9, weight decay 5e-4, batch 128,
lr 0.01; 200 epochs for CIFAR-10, 300 for CIFAR-100 and ImageNet-subset, 150 for SVHN).
Departs from it: the learning rate falls to zero along a cosine, whereas the paper's text keeps it
fixed and its scripts disagree with each other; `schedule=constant` follows the text. `quick` and
`sprint` are ours: they change the schedule and the network, but not what is measured. `transfer`,
for Figure 4, is ours too, because the paper gives no settings: all layers of a network with
ImageNet weights are fine-tuned with lr 0.01, batch size 64 and weight decay 1e-4, which are usual
values for fine-tuning.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..common.errors import UserError
from ..common.options import check_name, option_texts, validated
from ..common.spec import format_spec, unknown
from ..data.catalog import DATASETS

Schedule = Literal["constant", "cosine", "step", "onecycle", "linear"]
Precision = Literal["auto", "fp32", "bf16"]


def check_warmup(warmup_epochs: float, epochs: int, owner: str = "") -> None:
    """Refuse a warm-up that takes the whole training.

    Args:
        warmup_epochs: epochs over which the learning rate rises.
        epochs: epochs of the training.
        owner: what the message begins with, such as the name of a victim; may be empty.

    Raises:
        UserError: the learning rate would never fall.
    """
    if warmup_epochs >= epochs:
        raise UserError(
            f"{owner and f'{owner}: '}warmup_epochs={warmup_epochs:g} leaves none of the {epochs} "
            "epochs for the learning rate to fall; set fewer"
        )


def times_as_many(epochs: int, factor: float) -> int:
    """Return a number of epochs times a factor, rounded, and at least 1."""
    return max(1, math.floor(epochs * factor + 0.5))


class Protocol(BaseModel):
    """How a target model is trained, independently of the attack and the defense."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "paper"
    """Its name in tables, with the settings that differ from the named protocol in brackets."""
    arch: str = "resnet18"
    """The target network, unless --arch names another one."""
    surrogate: str = "resnet18"
    """The network that attacks craft with, unless their own option names another one."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Passes over the training set."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Approximate number of images per step. The batches of an epoch are of almost equal size, so
    that none is small: 5,000 images at 128 give 39 batches of 128 or 129."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.01
    """Peak learning rate of SGD, Adam and AdamW, or of Muon for convolution filters."""
    optimizer: Literal["sgd", "muon", "adam", "adamw"] = "sgd"
    """sgd; muon, which orthogonalises the gradients of filters and trains the rest with SGD; adam
    and adamw, which transformers want, with a learning rate of about 1e-3."""
    head_lr: Annotated[float, Field(gt=0, le=100)] = 1e-5
    """With muon, the peak learning rate of linear layers, for each image of a batch: the mean loss
    of 2,000 images is followed at 2,000 times this rate."""
    bias_lr: Annotated[float, Field(gt=0, le=100)] = 0.05
    """With muon, the same for biases and the scales of normalisations."""
    rest_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.85
    """With muon, the momentum of all parameters that are not filters."""
    schedule: Schedule = "cosine"
    """constant; cosine to zero; step: x0.1 at 50 % and 75 %; onecycle: up and down to zero; linear
    to zero."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD, or of Muon for filters. With adam and adamw, how slowly the running mean of
    the gradient forgets; that of its square keeps 0.999 in each step."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    """L2 penalty on every parameter. With adamw, what a step takes away of every parameter is this
    times the learning rate. With muon, the share that a step at the peak learning rate
    takes away, for each image of a batch, of all parameters but filters, whose length is fixed."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of a label's weight that is spread over all classes in the training loss."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0
    """Epochs over which the learning rate rises linearly from zero; if 0, a defense may set it."""
    clip_norm: Annotated[float, Field(ge=0, le=1e6)] = 0
    """Largest norm of the gradient; if 0, there is no clipping unless a defense sets it."""
    crop_padding: Annotated[int, Field(ge=0, le=64)] = 4
    """Padding of the random crop, in pixels."""
    crop_fill: Literal["zero", "reflect"] = "zero"
    """What the padding holds: black, or the image mirrored at its border."""
    flip: bool = True
    """Flip images horizontally at random."""
    alternate: bool = False
    """Flip each image in every other epoch instead of at random, so that two successive epochs show
    it from both sides; which one comes first is random (airbench, arXiv:2404.00498)."""
    normalise: Literal["none", "dataset"] = "none"
    """dataset adds a fixed first layer that subtracts the training set's mean and divides by its
    standard deviation."""
    precision: Precision = "auto"
    """auto is bf16 if the machine computes in it, else fp32; the result enters the cell's key."""
    eval_every: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Epochs between two evaluations on the test set, for the best-epoch column and the curve."""
    train_curve: bool = False
    """Also evaluate on the training images, without augmentation, each time; used in plots."""
    compile: bool = False
    """Compile the network with torch.compile, which needs a C++ compiler and takes minutes."""
    recovery: bool = False
    """Also measure the accuracy after the last layer was refitted to 5,000 clean images, and the
    best one under small random changes of the weights."""
    robust: bool = False
    """Also measure the accuracy under PGD-20, within the ball that AT trained with, or else within
    half of the poison's budget."""

    @model_validator(mode="after")
    def _trains(self) -> Self:
        """Refuse what torch's SGD refuses, and a warm-up that takes the whole training."""
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise UserError("momentum=0: Nesterov momentum needs some; set nesterov=false as well")
        check_warmup(self.warmup_epochs, self.epochs)
        return self

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        total = self.epochs * steps_per_epoch
        warmup = self.warmup_epochs * steps_per_epoch
        done = step / total
        if self.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * done))
        elif self.schedule == "step":
            factor = 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
        elif self.schedule == "onecycle":
            peak = 0.25
            factor = (step + 1) / (total * peak + 1) if done < peak else (1 - done) / (1 - peak)
        elif self.schedule == "linear":
            factor = 1 - done
        else:
            factor = 1.0
        return self.lr * factor * min(1.0, (step + 1) / (warmup + 1))

    def lengthened(self, factor: float) -> Protocol:
        """Return the protocol with its epochs multiplied, and the same learning-rate schedule.

        Args:
            factor: 1.5 turns 200 epochs into 300; see `times_as_many`.

        Raises:
            UserError: the warm-up would take the whole training.
        """
        if factor == 1:
            return self
        epochs = times_as_many(self.epochs, factor)
        check_warmup(self.warmup_epochs, epochs)
        return self.model_copy(update={"epochs": epochs})

    def asked(self, **wishes: Any) -> Protocol:
        """Return the protocol with the settings that a defense needs; the user's settings stay.

        A wish is granted only if the field is zero, which means "none, unless a defense needs it".
        Any other value was set on purpose.
        """
        granted = {key: value for key, value in wishes.items() if not getattr(self, key)}
        return self.model_copy(update=granted)


_OF_MUON = ("head_lr", "bias_lr", "rest_momentum")
"""Fields that no other optimizer reads."""

MEASURES = ("recovery", "robust", "train_curve")
"""Fields that ask for more numbers of a trained model and change none of the others."""

PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(name="paper"),
    "sprint": Protocol(
        name="sprint",
        epochs=16,
        batch_size=256,
        lr=0.4,
        schedule="onecycle",
        nesterov=True,
        alternate=True,
    ),
    "airbench": Protocol(
        name="airbench",
        arch="airbench",
        surrogate="resnet8",
        epochs=10,
        batch_size=2000,
        optimizer="muon",
        lr=0.24,
        momentum=0.6,
        nesterov=True,
        head_lr=1e-5,  # 0.67 over 256 squared, since the source divides the logits by 256
        bias_lr=0.053,
        rest_momentum=0.85,
        weight_decay=2e-6,
        label_smoothing=0.2,
        schedule="linear",
        crop_padding=4,  # the source's 2 ends at 93.1 after ten epochs, this at 93.4
        crop_fill="reflect",
        alternate=True,
        normalise="dataset",
    ),
    "quick": Protocol(
        name="quick",
        arch="resnet8",
        surrogate="resnet8",
        epochs=12,
        batch_size=64,
        lr=0.1,  # at 0.2 one seed in three fails under UEraser-Lite on `synthetic`
        schedule="onecycle",
        nesterov=True,
    ),
    "transfer": Protocol(
        name="transfer", arch="resnet18_imagenet", epochs=15, batch_size=64, weight_decay=1e-4
    ),
}
"""The named protocols. `named_protocol` gives `paper` the number of epochs of the data set."""


def named_protocol(name: str, dataset: str = "", /, **changes: Any) -> Protocol:
    """Return a named protocol for a data set, with some of its fields changed.

    Its new name lists the changes, as in `quick[lr=0.1]`, except for fields such as the epochs that
    tables show in columns of their own.

    Raises:
        UnknownNameError: there is no such protocol; the message names the nearest one.
        UserError: a field is unknown, a value is out of range, or a field has no effect.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    fields = PROTOCOLS[name].model_dump()
    entry = DATASETS.get(dataset)
    if entry is not None:
        if name == "paper":
            fields["epochs"] = entry.paper_epochs
        # the data set may forbid flips: mirrored digits are not digits
        fields["flip"] = fields["flip"] and entry.flip
        if entry.crop_padding is not None:
            fields["crop_padding"] = entry.crop_padding
    return with_fields(Protocol.model_validate(fields), **changes)


def with_fields(protocol: Protocol, /, **changes: Any) -> Protocol:
    """Return a protocol with some of its fields changed; its new name lists them.

    Raises:
        UserError: a field is unknown, a value is out of range, or a field has no effect.
    """
    fields = protocol.model_dump()
    names = [key for key in fields if key != "name"]
    for key in changes:
        check_name(key, names, "protocol", "field")
    changed = validated(Protocol, fields | changes, owner="protocol")
    without_effect = [key for key in _OF_MUON if getattr(changed, key) != fields[key]]
    if without_effect and changed.optimizer != "muon":
        raise UserError(
            f"protocol: {without_effect[0]} has no effect with optimizer={changed.optimizer}; add "
            "optimizer=muon, or leave it out"
        )
    shown_elsewhere = (
        "epochs",
        "arch",
        "surrogate",
        "precision",
        "recovery",
        "robust",
        "train_curve",
    )
    differing = {
        key: value
        for key, value in changed.model_dump().items()
        if value != fields[key] and key not in shown_elsewhere
    }
    name, _, before = protocol.name.removesuffix("]").partition("[")
    earlier = [text for text in before.split(",") if text.partition("=")[0] not in differing]
    shown = option_texts(differing, Protocol.model_fields)
    texts = [text for text in [*earlier, shown] if text]
    return changed.model_copy(update={"name": format_spec(name, ",".join(texts))})
