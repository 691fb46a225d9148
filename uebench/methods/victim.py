"""What the author of a victim sees: `Victim`, the `Target` that it is asked for, and `Trained`.

A victim is whoever trains a target model on a training set that may be poisoned and defended. It
gets images and labels and may ignore the labels, and its model is judged on clean test images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ..common.errors import UserError
from ..data.split import Split
from ..learn.checkpoint import Checkpoint, Stateful
from ..learn.loops import accuracy, confusion_matrix
from ..learn.protocol import Protocol
from .base import Defense, Facts, Method
from .run import Run


@dataclass(frozen=True)
class Trained:
    """A trained target model and its record of plain numbers; accuracies are in [0, 1].

    `images_per_second` counts the time of training epochs without evaluations, and `augment_share`
    is the share of that time that went into augmentation, including crops and flips.
    """

    model: nn.Module
    record: dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What a victim is asked to train, and what its model is judged on.

    Attributes:
        arch: the network; `run.network(target.arch)` builds it.
        protocol: how supervised target models are trained; a victim may have settings of its own.
        defense: what acts on the images. `prepare` was called; `before_crop`, `after_crop` and,
            for victims with `uses_loss`, `loss` are the victim's to call.
        test: the clean test set. Use it for nothing but evaluation.
        clean: the training set as it was before it was poisoned and defended.
        start: when the training began, as `time.perf_counter()` counts.
    """

    arch: str
    protocol: Protocol
    defense: Defense
    test: Split
    clean: Split
    start: float = field(default_factory=time.perf_counter)

    def checkpoint(self, run: Run, name: str, **parts: Tensor | Stateful) -> Checkpoint:
        """Return `run.checkpoint` of these parts and of the defense, if that has a state.

        If the defense has private attributes but no `state_dict`, the training cannot be resumed
        exactly, so nothing is saved.
        """
        if isinstance(self.defense, Stateful):
            return run.checkpoint(name, keep=True, defense=self.defense, **parts)
        return run.checkpoint(name, keep=not self.defense.__pydantic_private__, **parts)

    def judged(
        self,
        model: nn.Module,
        data: Split,
        run: Run,
        curve: Sequence[dict[str, float]] = (),
        **facts: Any,
    ) -> Trained:
        """Return a trained model with its record: accuracies, confusion matrix and times.

        Args:
            model: takes images in [0, 1] and returns logits [b, k].
            data: the training set that the model was trained on.
            run: device and precision.
            curve: one row per epoch with `epoch`, and `loss`, `lr` or `test_acc` where known. The
                last row gets the final accuracy; without rows, the only one is of the last epoch.
            **facts: more numbers for the record. `train_seconds` replaces the time since the
                training began, such as that of a resumed training.
        """
        seconds = time.perf_counter() - self.start
        rows = [dict(row) for row in curve] or [{"epoch": float(run.epochs)}]
        confusion = confusion_matrix(model, self.test, run)
        rows[-1]["test_acc"] = confusion.trace().item() / len(self.test)
        best = max((row for row in rows if "test_acc" in row), key=lambda row: row["test_acc"])
        train_acc = accuracy(model, data, run)
        if self.protocol.train_curve:
            rows[-1]["train_acc"] = train_acc
        record = {
            "test_acc": rows[-1]["test_acc"],
            "test_acc_best": best["test_acc"],
            "best_epoch": int(best["epoch"]),
            "train_acc": train_acc,
            "n_train": len(data),
            "n_test": len(self.test),
            "curve": rows,
            "confusion": confusion.tolist(),
            "train_seconds": seconds,
        }
        return Trained(model, record | facts)


class Victim(Method):
    """Trains a target model on a training set, which may be poisoned and defended.

    An author writes `train`, and may override `resolve`, `check` and `effort`.
    """

    uses_loss: ClassVar[bool] = False
    """Whether it trains with `Defense.loss`. If not, defenses that have a loss of their own make no
    sense under it, and such cells are refused."""
    reads: ClassVar[tuple[str, ...] | None] = None
    """The fields of the protocol that change its numbers, which enter the key; None for all. Those
    that only ask for more numbers, such as `robust`, enter it anyway."""

    def epochs_of(self, protocol: Protocol) -> int:
        """Return the passes over the training set, as tables show them.

        By default this is the option `epochs`, if there is one, or else the protocol's epochs.
        """
        return int(getattr(self, "epochs", protocol.epochs))

    def effort(self, protocol: Protocol) -> float:
        """Return how long a training takes relative to a supervised one, roughly.

        The cells that take longest are started first, and `--dry-run` multiplies by it.
        """
        return self.epochs_of(protocol) / protocol.epochs

    def check(self, arch: str, defense: Defense, facts: Facts) -> None:
        """Refuse a network or a defense that makes no sense under this victim.

        It is called while a matrix is planned. By default it refuses defenses with a loss of their
        own unless `uses_loss` is set.

        Args:
            arch: the target network.
            defense: the resolved defense.
            facts: the data set and the protocol.

        Raises:
            UserError: it makes no sense; the message says what to do instead.
        """
        if defense.acts_in_loss() and not self.uses_loss:
            raise UserError(
                f"defense {defense.info.name} acts in the loss of supervised training, and victim "
                f"{self.info.name} has another loss; leave one of the two out"
            )

    def train(self, data: Split, target: Target, run: Run) -> Trained:
        """Return the trained target model, judged: `target.judged(model, data, run)`.

        Args:
            data: the training set that `Defense.prepare` returned; leave its tensors unchanged.
            target: network, protocol, defense and test set.
            run: device, randomness and networks. Draw random numbers with `generator=run.rng` only,
                and save long loops with `run.checkpoint`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `train`; write it")
