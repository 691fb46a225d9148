"""What a method is given to work with: `Run`.

The defaults of its surrogates, which are networks that an attack trains on clean images, are those
of Tao et al., "Better Safe Than Sorry", NeurIPS 2021, arXiv:2102.04716, and its authors' code: 150
epochs of SGD, learning rate 0.1 and x0.1 at two thirds and five sixths, batch 128, weight decay
5e-4, random crops and flips, the best epoch on 1,000 held-out training images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..common.errors import UserError
from ..data.split import Split
from ..learn.checkpoint import Checkpoint, Stateful, Unfinished
from ..learn.stopwatch import Stopwatch
from ..learn.surrogate_training import Adversary, Surrogate, Training, surrogate_weights
from ..models import build_network, parse_arch, seeded
from ..store.arrays import as_tensor, zeros
from ..store.store import Store, key_of, seed_of

USUAL = Training()

M = TypeVar("M", bound=nn.Module)


class ShowProgress(Protocol):
    """Something that shows how far a task is."""

    def __call__(self, share: float, text: str, at_most: bool = False, /) -> None:
        """Show the share that is done, from 0 to 1, and a text; see `Run.progress`."""


class Run:
    """What a method is given to work with: device, randomness, networks and progress.

    Attributes:
        device: the device that all tensors are on.
        rng: a generator on that device, and the only permitted source of randomness.
        epoch: the current epoch of the target model's training, counted from 0.
        epochs: the number of epochs.
        label_smoothing: the protocol's, in [0, 1); `cross_entropy` applies it.
        precision: `fp32` or `bf16`, the precision that `autocast()` selects.
        augmenting: a stopwatch. Put `with run.augmenting:` around what a defense does to images
            before the network sees them; its share of the time enters the cell's record.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        n_classes: int,
        seed: int,
        device: torch.device | str = "cpu",
        epochs: int = 1,
        precision: Literal["fp32", "bf16"] = "fp32",
        shared_seed: int = 0,
        store: Store | None = None,
        progress: ShowProgress | None = None,
        leads_to: tuple[str, str] | None = None,
        source: str | None = None,
    ) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # else fp32 in a key would mean TF32
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.epoch = 0
        self.epochs = epochs
        self.precision = precision
        self.notes: dict[str, Any] = {}
        self.augmenting = Stopwatch(self.device)
        self.label_smoothing = 0.0
        self._shape = shape
        self._n_classes = n_classes
        self._shared_seed = shared_seed
        self._store = store
        self._progress = progress
        self._source = source
        self._target: Unfinished | None = None
        if store is not None and leads_to is not None:
            self._target = Unfinished(store, *leads_to, str(self.device.type))

    def progress(self, fraction: float, text: str = "", *, at_most: bool = False) -> None:
        """Report what share of the work is done, in [0, 1], with a short text to display.

        `at_most` says that the work may end before the fraction is 1, as a search with a stop test
        does, so that the time left is a bound and not an estimate.
        """
        if self._progress is not None:
            self._progress(min(max(fraction, 0.0), 1.0), text, at_most)

    def note(self, **facts: Any) -> None:
        """Add facts to the record of this run, such as what ended a search.

        Numbers of numpy and torch become Python's. What a record cannot hold raises here, in the
        line of the method, and not after hours when the record is written.
        """
        self.notes |= json.loads(
            json.dumps(facts, allow_nan=False, default=lambda value: value.tolist())
        )

    def checkpoint(
        self, name: str, /, *, keep: bool = True, **parts: Tensor | Stateful
    ) -> Checkpoint:
        """Return the checkpoint of a long loop, resumed if an earlier process was killed in it.

        Call it right before the loop, once everything that the loop changes exists, and pass all of
        that: networks, optimizers, tensors, or anything with `state_dict` and `load_state_dict`.
        The random generators are saved automatically, and so is what is put into its `facts`:

            loop = run.checkpoint("rounds", model=model, optimizer=optimizer, noise=noise)
            for done in loop.steps(self.rounds):
                ...  # one round
                loop.facts["accuracy"] = accuracy

        `steps` yields the steps that are still to be done and saves about once a minute. `name`
        distinguishes the loop from others of the same method. Without a store, or with
        `keep=False`, nothing is saved.
        """
        checkpoint = Checkpoint(self._target if keep else None, name, self.rng, dict(parts))
        if checkpoint.resumed:
            self.note(resumed={**self.notes.get("resumed", {}), name: checkpoint.resumed})
        return checkpoint

    def cross_entropy(
        self,
        logits: Float[Tensor, "b k"],
        labels: Int[Tensor, " b"],
        *,
        reduction: Literal["mean", "none"] = "mean",
    ) -> Float[Tensor, ...]:
        """Return the loss that the protocol trains a target model with, computed in float32.

        It is the cross-entropy with the protocol's label smoothing, [] or [b]. A defense that calls
        `torch.nn.functional.cross_entropy` instead trains without the smoothing.
        """
        return F.cross_entropy(
            logits.float(), labels, reduction=reduction, label_smoothing=self.label_smoothing
        )

    def forget_checkpoints(self) -> None:
        """Remove the checkpoints of this run, once its result is in the store."""
        if self._target is not None:
            self._target.forget()

    def zeros(self, *shape: int) -> Tensor:
        """Return float32 zeros of this shape, for the noise of a whole data set.

        They are on the device if they take less than a quarter of its memory, otherwise in host
        memory or in a memory-mapped temporary file. Read rows with
        `uebench.taken(noise, index, run.device)`, and write to slices.
        """
        return zeros(shape, device=self.device)

    def network(self, arch: str) -> nn.Module:
        """Return an untrained network for this data set, seeded from `rng`, on the device."""
        return self.network_for(arch, self._shape)

    def network_for(
        self, arch: str, shape: tuple[int, int, int], n_classes: int | None = None
    ) -> nn.Module:
        """Return an untrained network for images of another shape or for other classes."""
        model = build_network(arch, n_classes or self._n_classes, shape, self._seed())
        return model.to(self.device)

    def build(self, make: Callable[[], M]) -> M:
        """Return the network that `make` builds, seeded from `rng`, on the device."""
        with seeded(self._seed()):
            model = make()
        return model.to(self.device)

    def _seed(self) -> int:
        return int(torch.randint(2**62, (), generator=self.rng, device=self.device))

    def surrogate(
        self,
        data: Split,
        arch: str,
        *,
        epochs: int = 150,
        lr: float = 0.1,
        batch_size: int = 128,
        held_out: int = 1000,
        at: Adversary | None = None,
        training: Training = USUAL,
    ) -> nn.Module:
        """Return a network trained on `data`, in eval mode, from the store if it is there.

        Everyone who asks with the same data, settings and poison seed gets the same network, and a
        cache hit changes no later random number.

        Args:
            data: clean training images.
            arch: the network, such as `resnet18`.
            epochs: passes over the images that are not held out.
            lr: initial learning rate of SGD.
            batch_size: images per step.
            held_out: images, over all classes, that only select the best epoch; a tenth of `data`
                if it has fewer than ten times as many. 0 returns the last epoch.
            at: train adversarially, against this adversary.
            training: schedule, weight decay and augmentation; by default crops and flips, and a
                learning rate that is divided by ten after two thirds and five sixths of the epochs.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        arch = parse_arch(arch)[0]
        settings = Surrogate(arch, epochs, lr, batch_size, held_out, at=at, training=training)
        weights = self._surrogate_weights(data, settings)
        held_out_acc = weights.pop("held_out_acc").item()
        if held_out_acc >= 0:
            self.note(surrogate_held_out_acc=round(held_out_acc, 4))
        return self._with_weights(arch, weights)

    def surrogates(
        self,
        data: Split,
        arch: str,
        *,
        checkpoints: int,
        epochs: int,
        lr: float = 0.1,
        batch_size: int = 128,
        training: Training = USUAL,
    ) -> list[nn.Module]:
        """Return the networks of equidistant epochs of one training, in eval mode, the last last.

        They are kept together in the store. No images are held out.

        Args:
            data: clean training images.
            arch: the network, such as `resnet18`.
            checkpoints: number of networks.
            epochs: passes over the images; at least as many as checkpoints.
            lr: initial learning rate of SGD.
            batch_size: images per step.
            training: schedule, weight decay and augmentation.

        Raises:
            DivergedError: the loss is no longer finite.
            UserError: there are more checkpoints than epochs.
        """
        if not 1 <= checkpoints <= epochs:
            raise UserError(
                f"{checkpoints} checkpoints cannot be taken from {epochs} epochs, of which each "
                "gives at most one; ask for fewer checkpoints or more epochs"
            )
        arch = parse_arch(arch)[0]
        settings = Surrogate(arch, epochs, lr, batch_size, 0, checkpoints, training=training)
        weights = self._surrogate_weights(data, settings)
        numbered: list[dict[str, Tensor]] = [{} for _ in range(checkpoints)]
        for key, value in weights.items():
            number, _, name = key.partition(" ")
            numbered[int(number)][name] = value
        return [self._with_weights(arch, each) for each in numbered]

    def _surrogate_weights(self, data: Split, settings: Surrogate) -> dict[str, Tensor]:
        """Return what `surrogate_weights` returns, from the store if it is there."""
        recipe = settings.recipe(data, self.precision)
        return self._kept("surrogate", recipe, lambda run: surrogate_weights(data, settings, run))

    def _with_weights(self, arch: str, weights: dict[str, Tensor]) -> nn.Module:
        """Return a network with stored weights, in eval mode."""
        model = self.network(arch)
        model.load_state_dict(weights)
        return model.eval()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks are evaluated in this run's precision."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
        )

    def kept(
        self, name: str, recipe: Mapping[str, Any], make: Callable[[Run], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the tensors that `make` computes, once per recipe, from the store afterwards.

        `make` gets a run with a seed of its own, derived from the recipe and, while a poison is
        crafted, from the poison seed. So a cache hit changes no later random number, equal recipes
        give equal tensors, and all training seeds share what defenses and victims keep.

        Args:
            name: what the tensors are, such as `surrogate`.
            recipe: everything that changes them, including the precision if networks are trained.
            make: computes them. Its code enters the recipe automatically.
        """
        source = {} if self._source is None else {"source": self._source}
        return self._kept(name, source | dict(recipe), make)

    def _kept(
        self, name: str, recipe: Mapping[str, Any], make: Callable[[Run], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Do what `kept` does, without the code of the method: surrogates are shared by all."""
        recipe = {"what": name, "seed": self._shared_seed, **recipe}

        def fresh() -> dict[str, Tensor]:
            run = Run(
                shape=self._shape,
                n_classes=self._n_classes,
                seed=seed_of("kept", key_of(recipe)),
                device=self.device,
                precision=self.precision,
                shared_seed=self._shared_seed,
                store=self._store,
                progress=self._progress,
                leads_to=("kept", key_of(recipe)),
                source=self._source,
            )
            runs.append(run)
            return {key: as_tensor(value).cpu() for key, value in make(run).items()}

        runs: list[Run] = []
        if self._store is None:
            tensors = fresh()
        else:
            tensors, _ = self._store.get_or_make("kept", key_of(recipe), lambda: (fresh(), recipe))
        for run in runs:
            run.forget_checkpoints()
        return {key: value.to(self.device) for key, value in tensors.items()}
