"""What the author of an attack or a defense sees: `Attack`, `Defense`, `Run`, `Facts`.

A method is a frozen pydantic model: its fields are the hyper-parameters, with range, unit and
default, so one definition gives the checks, `uebench show`, the record and the key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..common.spec import Fraction255, format_options, format_spec
from ..data.poison import Budget, Norm, Poison, measure, quantise
from ..data.split import Split
from ..learn.checkpoint import Checkpoint, Stateful, Target
from ..learn.protocol import Protocol
from ..learn.timing import Stopwatch
from ..models import build_network
from ..store.arrays import is_finite, zeros

if TYPE_CHECKING:
    from ..store.store import Store

__all__ = ["Attack", "Defense", "Facts", "Fraction255", "Method", "MethodInfo", "Run"]


@dataclass(frozen=True)
class MethodInfo:
    """What the registry knows of a method beside its class."""

    kind: Literal["attack", "defense"]
    name: str
    title: str
    source: str
    origin: str
    """Where it was registered: `built-in`, `entry point NAME`, `file PATH` or `session`."""


@dataclass(frozen=True)
class Facts:
    """What `plan()` knows of a cell and a method may turn into numbers before anything runs.

    Attributes:
        dataset: its name, such as `cifar10`.
        n_classes: number of classes.
        shape: channels, height, width.
        epochs: epochs of the target model's training.
        surrogate: the network that the protocol crafts with.
        norm: the norm that the poison's budget is measured in; `linf` on clean data.
        eps: the poison's budget in that norm; 8/255 on clean data.
    """

    dataset: str
    n_classes: int
    shape: tuple[int, int, int]
    epochs: int
    surrogate: str
    norm: Norm = "linf"
    eps: float = 8 / 255


class Run:
    """What a method is given to work with: device, randomness, networks, progress.

    Attributes:
        device: where tensors lie.
        rng: a generator on that device; the only source of randomness.
        epoch: the present epoch of the target model's training, from 0.
        epochs: how many there will be.
        precision: `fp32` or `bf16`, what `autocast()` computes in.
        augmenting: `with run.augmenting:` around what a defense does to images before the network
            sees them; its share of the time enters the cell's record.
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
        progress: Callable[[float, str], None] | None = None,
        leads_to: tuple[str, str] | None = None,
    ) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # fp32 shall mean fp32 in the key and the table
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.epoch = 0
        self.epochs = epochs
        self.precision = precision
        self.notes: dict[str, Any] = {}
        self.augmenting = Stopwatch(self.device)
        self._shape = shape
        self._n_classes = n_classes
        self._shared_seed = shared_seed
        self._store = store
        self._progress = progress
        self._target: Target | None = None
        if store is not None and leads_to is not None:
            self._target = Target(store, *leads_to, str(self.device.type))

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how much of the work is done, in [0, 1], and what is going on."""
        if self._progress is not None:
            self._progress(min(max(fraction, 0.0), 1.0), text)

    def note(self, **facts: Any) -> None:
        """Keep facts of this run with its record, such as what ended a search."""
        self.notes |= facts

    def checkpoint(
        self, name: str, /, *, keep: bool = True, **parts: Tensor | Stateful
    ) -> Checkpoint:
        """Return where a long loop stands, taken over from a process that was killed.

        Call it right before the loop, when all that the loop changes is made, and give it that:
        networks, optimizers, tensors, or anything with `state_dict` and `load_state_dict`. The
        generators are kept by themselves, and so is what is put into its `facts`:

            loop = run.checkpoint("rounds", model=model, optimizer=optimizer, noise=noise)
            for done in loop.steps(self.rounds):
                ...  # one round
                loop.facts["accuracy"] = accuracy

        `steps` yields what is still to be done and saves about once a minute. `name` tells the loop
        from others of the method. Without a store, or with `keep=False`, it is a plain loop.
        """
        made = Checkpoint(self._target if keep else None, name, self.rng, dict(parts))
        if made.resumed:
            self.note(resumed={**self.notes.get("resumed", {}), name: made.resumed})
        return made

    def forget_checkpoints(self) -> None:
        """Remove the checkpoints of this run, whose result is kept."""
        if self._target is not None:
            self._target.forget()

    def zeros(self, *shape: int) -> Tensor:
        """Return float32 zeros for the noise of a whole data set.

        They lie on the device where they take less than a quarter of its memory, else in host
        memory, or in a temporary file of which the system keeps in memory what is in use. Read
        them by `uebench.taken(noise, index, run.device)`, and write slices of them.
        """
        return zeros(shape, device=self.device)

    def network(self, arch: str) -> nn.Module:
        """Return an untrained network for this data set, seeded from `rng`, on the device."""
        seed = int(torch.randint(2**62, (), generator=self.rng, device=self.device))
        return build_network(arch, self._n_classes, self._shape, seed).to(self.device)

    def surrogate(
        self,
        data: Split,
        arch: str,
        *,
        epochs: int = 150,
        lr: float = 0.1,
        batch_size: int = 128,
        held_out: int = 1000,
    ) -> nn.Module:
        """Return a network trained on `data`, in eval mode, kept in the store.

        It is the same for whoever asks with the same data, settings and poison seed, and a cache
        hit changes no later number. The learning rate falls to a tenth after two thirds and five
        sixths of the epochs; the best epoch on `held_out` images of `data` is returned.
        """
        from .surrogate import kept_surrogate

        return kept_surrogate(
            data, self, arch=arch, epochs=epochs, lr=lr, batch_size=batch_size, held_out=held_out
        )

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks are evaluated in this run's precision."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
        )

    def kept(
        self, name: str, recipe: Mapping[str, Any], make: Callable[[Run], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the tensors that `make` gives, made once for each recipe and kept in the store.

        `recipe` names everything that changes them, the precision where networks are trained.

        `make` gets a run with a seed of its own, derived from the recipe and the poison seed, so
        that a cache hit changes no later number, and whoever asks for the same gets the same.
        """
        from ..store.store import key_of, seed_of

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
            )
            runs.append(run)
            return {key: value.cpu() for key, value in make(run).items()}

        runs: list[Run] = []
        if self._store is None:
            made = fresh()
        else:
            made, _ = self._store.get_or_make("kept", key_of(recipe), lambda: (fresh(), recipe))
        for run in runs:
            run.forget_checkpoints()
        return {key: value.to(self.device) for key, value in made.items()}


class Method(BaseModel):
    """What attacks and defenses share: options that are checked, shown, recorded and hashed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
    version: ClassVar[int] = 1
    """Raised when the method's numbers change, which makes the stored cells stale."""
    info: ClassVar[MethodInfo]

    def options(self) -> dict[str, Any]:
        """Return every option with its value."""
        return self.model_dump()

    def recipe(self) -> dict[str, Any]:
        """Return what the key holds of the method: every option.

        A method with an option that changes no number, such as a path, leaves it out, and puts in
        what does, such as the file's hash.
        """
        return self.options()

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        fields = type(self).model_fields
        return {k: v for k, v in self.options().items() if v != fields[k].default}

    @property
    def changed_text(self) -> str:
        """The changed options as they would be typed: `eps=16/255,rounds=5`."""
        return format_options(self.changed())

    def __str__(self) -> str:
        return format_spec(self.info.name, self.changed())

    def resolve(self, facts: Facts) -> Self:
        """Return the method with what depends on the cell turned into numbers.

        The result enters the key. The default: as it is.
        """
        return self

    def with_options(self, **options: Any) -> Self:
        """Return the method with some options changed, without another check."""
        return self.model_copy(update=options)


class Attack(Method):
    """Changes training images within a budget so that a network trained on them learns nothing.

    An author writes `perturb`; `craft` is final.
    """

    norm: Literal["linf", "l2"] = "linf"
    """The norm that the budget is measured in."""
    eps: Annotated[Fraction255, Field(gt=0, le=1)] = 8 / 255
    """Largest change: of one pixel value (linf) in the pixel range [0, 1]."""

    def budget(self, shape: tuple[int, int, int]) -> Budget:
        """Return norm and radius that the 8-bit images are held to, for images of this shape."""
        return Budget(self.norm, self.eps)

    def perturb(self, data: Split, run: Run) -> Float[Tensor, "n c h w"]:
        """Return what is added to each image, float, in the pixel range [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it perturbs")

    def export(self, data: Split, delta: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the 8-bit images that a data user receives: round(255 * clip(x + delta, 0, 1))."""
        return quantise(data.images, delta)

    def image_passes(self, n: int) -> int:
        """Return about how many images go forward and backward through a surrogate.

        `--dry-run` multiplies it by a measured time. Where a stop test ends a search, count what it
        usually takes. 0: no surrogate.
        """
        return 0

    @final
    def craft(self, data: Split, run: Run) -> Poison:
        """Return the poisoned training set: perturbed, clipped, quantised and audited.

        Raises:
            ValueError: the perturbation is no tensor, has the wrong shape, is not finite, or the
                8-bit images exceed the budget.
        """
        delta = self.perturb(data, run)
        if not isinstance(delta, Tensor):
            raise ValueError(
                f"{self}: perturb returned {type(delta).__name__}; a float tensor of shape "
                f"{tuple(data.images.shape)} is needed (is its `return` missing?)"
            )
        if delta.shape != data.images.shape:
            raise ValueError(
                f"{self} returned a perturbation of shape {tuple(delta.shape)}; "
                f"{tuple(data.images.shape)} is needed"
            )
        if not is_finite(delta):
            raise ValueError(f"{self} returned a perturbation with NaN or infinite values")
        images = self.export(data, delta)
        budget = self.budget(data.shape)
        measured = measure(data.images, images, device=data.device)
        budget.check(measured, data.shape, str(self))
        index = torch.arange(len(data))
        return Poison(images.cpu(), data.labels.cpu(), index, {**run.notes, **measured.record()})


class Defense(Method):
    """Trains a target model so that it learns although the training images were perturbed."""

    keep_prepared: ClassVar[bool] = False
    """Whether `prepare` is deterministic and slow enough for its result to be kept in the store."""

    def adjust(self, protocol: Protocol) -> Protocol:
        """Return the protocol with what this defense asks for, such as gradient clipping."""
        return protocol

    def effort(self) -> float:
        """Return about how long a training step takes against a plain one: long cells go first."""
        return 1.0

    def prepare(self, data: Split, run: Run) -> Split:
        """Return the training set to train on; called once, before training. Default: as it is."""
        return data

    def loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        run: Run,
    ) -> Float[Tensor, ""]:
        """Return a batch's loss, a scalar with gradient. Default: the mean cross-entropy.

        `images` lie in [0, 1] and were cropped and flipped once an image.
        """
        return F.cross_entropy(model(images), labels)
