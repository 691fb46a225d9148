"""Victims that start from weights which somebody has trained on other images.

`finetune` trains all layers further, and `linear_probe` only a new last layer. Both train with
labels, as the protocol says and under the defense's loss. Sources: the transfer setting of
arXiv:2303.15127, Figure 4, and Sadasivan et al., arXiv:2303.04278, who report both.

The weights come from a file, whose content enters the key, or the network is first trained on
another data set of the suite (`pretrain_on=cifar100`), which needs no download of weights, and
which all training seeds share. Networks see images at their own size unless `size` says otherwise.
Departs from them: batch norm of a frozen network keeps the statistics of its pretraining.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ..common.errors import UserError
from ..data import Dataset, load_dataset
from ..data.split import Split, content_hash
from ..learn.protocol import MEASURES
from ..methods.base import Defense, Facts
from ..methods.registry import build_defense, victim
from ..methods.run import Run
from ..methods.victim import Target, Trained, Victim
from ..models import build_network, encoder_of, last_linear, network_recipe
from ..models.pretrained import Prepared
from ..models.weights import fitting, read_state
from .supervised import train_supervised

PRETRAINING_VERSION = 1
"""Raise it when the numbers of pretrained weights change: stored ones are then trained again."""


class Frozen(nn.Module):
    """An encoder that stays as it is, and a last layer that is trained."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.head = head

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the encoder stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        out: Tensor = self.head(self.encoder(x).flatten(1))
        return out


class Pretrained(Victim):
    """Trains a network that was trained on other images before."""

    uses_loss = True
    frozen: ClassVar[bool]

    weights: str = ""
    """File with the network's weights, .safetensors or torch's own format."""
    pretrain_on: str = ""
    """Data set of the suite that the network is trained on first, as the protocol says, with images
    of the same size; in place of `weights`."""
    size: Annotated[int, Field(ge=0, le=1024)] = 0
    """Side in pixels that images are resized to; 0 keeps their own size."""
    normalise: Literal["none", "imagenet"] = "none"
    """imagenet subtracts ImageNet's mean and divides by its standard deviation, as torchvision's
    and timm's weights expect."""
    content: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """The sha256 of the file or of the data set's training images, which is filled in."""

    def resolve(self, facts: Facts) -> Self:
        """Return the victim with the hash of its weights or of its other data set.

        Raises:
            UserError: neither or both of the two are given, or one cannot be read or does not fit.
        """
        name = self.info.name
        if bool(self.weights) == bool(self.pretrain_on):
            raise UserError(
                f"victim {name} starts from a file or from another data set; give one of "
                f"{name}[weights=FILE] and {name}[pretrain_on=cifar100]"
            )
        if self.normalise == "imagenet" and facts.shape[0] != 3:
            raise UserError(f"{name}: normalise=imagenet needs images of three channels; leave it")
        if self.weights:
            return self.with_options(content=self._state()[1])
        other = _dataset(self.pretrain_on)
        if other.shape != facts.shape:
            raise UserError(
                f"{name}: images of {self.pretrain_on} have the shape {list(other.shape)}, and "
                f"{list(facts.shape)} is needed; pretrain on images of the same shape"
            )
        return self.with_options(content=content_hash(other.train))

    def recipe(self) -> dict[str, Any]:
        """Return the options without the path or name of what the weights come from."""
        options = self.options()
        source = "pretrain_on" if self.pretrain_on else "weights"
        del options["weights"], options["pretrain_on"]
        return {"from": source, **options}

    def check(self, arch: str, defense: Defense, facts: Facts) -> None:
        """Refuse weights that do not fit the network.

        Raises:
            UserError: a tensor is missing, has another shape, or is not finite.
        """
        super().check(arch, defense, facts)
        if self.weights:
            with torch.device("meta"):
                model = build_network(arch, facts.n_classes, self._shape(facts.shape), 0)
            self._fitting(model, arch)

    def train(self, data: Split, target: Target, run: Run) -> Trained:
        """Return the network, trained further on `data`.

        Raises:
            UserError: the file was changed since the cell was planned.
            DivergedError: the loss became NaN or infinite.
        """
        model = run.network_for(target.arch, self._shape(data.shape))
        model.load_state_dict(self._weights(model, target, run), strict=False)
        if self.frozen:
            _, head = last_linear(model)
            model = Frozen(encoder_of(model)[0], head)
        if self.size or self.normalise != "none":
            model = Prepared(model, self.size, self.normalise == "imagenet").to(run.device)
        return train_supervised(data, target, run, model)

    def _shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of the images that the network itself sees."""
        return (shape[0], self.size, self.size) if self.size else shape

    def _state(self) -> tuple[dict[str, Tensor], str]:
        path = Path(self.weights).expanduser()
        advice = f"name a file of weights: {self.info.name}[weights=FILE]"
        return read_state(path, f"victim {self.info.name}", advice)

    def _fitting(self, model: nn.Module, arch: str) -> dict[str, Tensor]:
        """Return the weights of the file, checked for a network."""
        state, content = self._state()
        source = f"victim {self.info.name} with {arch}: {self.weights}"
        if content != self.content:
            raise UserError(f"{source} was changed since the cell was planned; run again")
        return fitting(state, model, last_linear(model)[0], source)

    def _weights(self, model: nn.Module, target: Target, run: Run) -> dict[str, Tensor]:
        """Return the weights that training starts from, except those of the last layer."""
        if self.weights:
            return self._fitting(model, target.arch)
        protocol = target.protocol.model_copy(update=dict.fromkeys(MEASURES, False))
        recipe = {
            **network_recipe(target.arch, self._shape(target.clean.shape)),
            "data": self.content,
            "size": self.size,
            "normalise": self.normalise,
            "protocol": protocol.model_dump(exclude={"name", "arch", "surrogate", "precision"}),
            "precision": run.precision,
            **({"version": PRETRAINING_VERSION} if PRETRAINING_VERSION > 1 else {}),
        }

        def make(fresh: Run) -> dict[str, Tensor]:
            return self._pretrained(target, protocol.epochs, fresh)

        return run.kept("pretrained", recipe, make)

    def _pretrained(self, target: Target, epochs: int, run: Run) -> dict[str, Tensor]:
        """Return the weights of a network that is trained on clean images of the other data set."""
        other = _dataset(self.pretrain_on)
        if content_hash(other.train) != self.content:
            raise UserError(f"{self.pretrain_on} was changed since the cell was planned; run again")
        shape = self._shape(other.shape)
        network = run.network_for(target.arch, shape, other.n_classes)
        head = last_linear(network)[0]
        model = network
        if self.size or self.normalise != "none":
            model = Prepared(network, self.size, self.normalise == "imagenet").to(run.device)
        run.epochs = epochs
        standard = build_defense("standard").method
        data, test = other.train.to(run.device), other.test.to(run.device)
        once = target.protocol.model_copy(update={"eval_every": epochs})
        train_supervised(data, Target(target.arch, once, standard, test, data), run, model)
        state = network.state_dict()
        return {name: value for name, value in state.items() if not name.startswith(f"{head}.")}


@lru_cache(maxsize=2)
def _dataset(spec: str) -> Dataset:
    return load_dataset(spec)


@victim("finetune", title="Fine-tuning", source="arXiv:2303.04278")
class FineTune(Pretrained):
    """Trains all layers of a pretrained network, the last one from scratch."""

    frozen = False


@victim("linear_probe", title="Linear probe", source="arXiv:2303.04278")
class LinearProbe(Pretrained):
    """Trains a new last layer on the frozen features of a pretrained network."""

    frozen = True
