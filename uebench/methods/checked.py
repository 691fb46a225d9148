"""Ask a method for something, and check what its author returns."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ..common.errors import MethodError
from ..data.poison import Budget
from ..data.split import Split, content_hash
from ..learn.protocol import Protocol
from .base import Attack, Defense, Method
from .returned import FLOATS, checked_crop, kind_and_name, wrong_return
from .run import Run
from .victim import Target, Trained, Victim


def prepared_by(defense: Defense, data: Split, run: Run) -> Split:
    """Return the training set that a defense's `prepare` makes of the poisoned one.

    Raises:
        MethodError: it is not a set of labelled 8-bit images of the same size and classes, or the
            given one was changed in place.
    """
    if type(defense).prepare is Defense.prepare:
        return data
    given = content_hash(data)
    prepared = defense.prepare(data, run)
    if not isinstance(prepared, Split):
        wrong_return(
            defense, "prepare", prepared, "a Split is needed, such as data.with_images(images)"
        )
    if (prepared.shape, prepared.n_classes) != (data.shape, data.n_classes) or not len(prepared):
        wanted = f"at least one image {list(data.shape)} of {data.n_classes} classes is needed"
        wrong_return(defense, "prepare", prepared, wanted)
    if content_hash(data) != given:
        raise MethodError(
            f"{kind_and_name(defense)}: prepare changed the images or labels that it was given, in "
            "place, and other cells use them too; work on a clone"
        )
    return prepared


def presented_by(
    defense: Defense, images: UInt8[Tensor, "b c h w"], run: Run
) -> UInt8[Tensor, "b c h1 w1"] | Float[Tensor, "b c h1 w1"]:
    """Return the images of a batch as a defense's `before_crop` passes them on.

    Raises:
        MethodError: they are not as many images with as many channels, as 8-bit or float numbers.
    """
    shown = defense.before_crop(images, run)
    if (
        not isinstance(shown, Tensor)
        or shown.ndim != 4
        or shown.shape[:2] != images.shape[:2]
        or shown.dtype not in (torch.uint8, *FLOATS)
    ):
        b, c = images.shape[:2]
        wanted = f"uint8 or float32 [{b}, {c}, height, width] is needed"
        wrong_return(defense, "before_crop", shown, wanted)
    return shown


def augmented_by(
    defense: Defense, images: Float[Tensor, "b c h w"], run: Run
) -> Float[Tensor, "b c h w"]:
    """Return the images of a batch as a defense's `after_crop` passes them on.

    Raises:
        MethodError: they are not float images of the same shape.
    """
    return checked_crop(defense, defense.after_crop(images, run), images)


def loss_of(
    defense: Defense,
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    run: Run,
) -> Float[Tensor, ""]:
    """Return a defense's loss of a batch.

    Raises:
        MethodError: it is not one number with a gradient.
    """
    loss = defense.loss(model, images, labels, run)
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.requires_grad:
        wanted = "one number with a gradient is needed, such as run.cross_entropy(logits, labels)"
        wrong_return(defense, "loss", loss, wanted)
    return loss


def adjusted_by(defense: Defense, protocol: Protocol) -> Protocol:
    """Return the protocol with the settings that a defense needs, and its own number of epochs.

    Raises:
        MethodError: it is not a protocol.
        UserError: the warm-up would take all of the defense's epochs.
    """
    adjusted = defense.adjust(protocol)
    if not isinstance(adjusted, Protocol):
        wanted = "a Protocol is needed, such as protocol.asked(clip_norm=5.0)"
        wrong_return(defense, "adjust", adjusted, wanted)
    return adjusted.lengthened(defense.times_epochs)


def defense_effort_of(defense: Defense) -> float:
    """Return how long a training step of a defense takes relative to standard training.

    Raises:
        MethodError: it is not a number above 0.
    """
    return _effort(defense, defense.effort())


def victim_effort_of(victim: Victim, protocol: Protocol) -> float:
    """Return how long a victim's training takes relative to a supervised one.

    Raises:
        MethodError: it is not a number above 0.
    """
    return _effort(victim, victim.effort(protocol))


def _effort(method: Method, effort: Any) -> float:
    try:
        number = float(effort)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        wrong_return(method, "effort", effort, "a number above 0 is needed")
    return number


def budget_of(attack: Attack, shape: tuple[int, int, int]) -> Budget:
    """Return an attack's budget for images of a shape.

    Raises:
        MethodError: it is not a budget.
    """
    budget = attack.budget(shape)
    if not isinstance(budget, Budget):
        wrong_return(
            attack, "budget", budget, 'a Budget is needed, such as Budget("linf", self.eps)'
        )
    return budget


def trained_by(victim: Victim, data: Split, target: Target, run: Run) -> Trained:
    """Return the target model that a victim trains, with its record.

    Raises:
        MethodError: it is not what `target.judged` returns.
    """
    trained = victim.train(data, target, run)
    if not isinstance(trained, Trained):
        wrong_return(victim, "train", trained, "return target.judged(model, data, run)")
    return trained
