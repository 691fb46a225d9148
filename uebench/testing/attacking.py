"""Promises of every attack: budget, labels and order are kept; one seed gives one poison."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from ..data import Dataset
from ..data.poison import Poison
from ..methods.base import Attack
from .data import CASES, LARGE, case, make_run
from .generators import DRAW, reseeded, states
from .promises import demand, promised_by
from .stand_in import some_gpu
from .subject import Subject

IN_PARTS = "use run.rng alone, keep eps, and write `perturb` for any size and number of classes"


def crafted(attack: Attack, dataset: Dataset, **options: Any) -> Poison:
    """Return the poison that an attack crafts of a training set."""
    return attack.craft(dataset.train, make_run(dataset, **options))


@promised_by("attack", cases=CASES, costly=LARGE, remedy=IN_PARTS)
def budget(subject: Subject, name: str) -> None:
    """The 8-bit images keep the budget; labels and order stay, whatever the size and classes."""
    dataset = case(name)
    attack = subject.attack(dataset)
    poison = crafted(attack, dataset)
    _same_set(poison, dataset)
    changed = _kept(attack, poison, dataset)
    if subject.name != "none":
        # such small networks give some images no gradient at all, so not all need be changed
        demand(
            (changed.flatten(1) != 0).any(1).float().mean() > 0.5,
            "most images are unchanged",
            "check that `perturb` fills all rows, in the range [0, 1]: one level is 1/255, not 1",
        )


@promised_by("attack", remedy="narrow the option: norm: Literal['linf'] = 'linf', with a docstring")
def norms(subject: Subject, _: str) -> str:
    """The budget is kept in every norm that the option `norm` accepts."""
    dataset = case("two classes")
    accepted = get_args(subject.cls.model_fields["norm"].annotation)
    changes: dict[str, dict[str, Any]] = {"l2": {"norm": "l2"}, "linf": {"norm": "linf"}}
    if "l2" in accepted and not isinstance(subject.asked().options()["eps"], str):
        changes["l2"]["eps"] = 1.0
    for norm in accepted:
        attack = subject.attack(dataset, **changes.get(norm, {"norm": norm}))
        _kept(attack, crafted(attack, dataset), dataset)
    return ", ".join(accepted)


def _same_set(poison: Poison, dataset: Dataset) -> None:
    """Check that a poison has the shape, labels and order of the clean set."""
    train = dataset.train
    demand(
        poison.images.dtype == torch.uint8 and poison.images.shape == train.images.shape,
        f"the poison is {poison.images.dtype} {list(poison.images.shape)}, not uint8 "
        f"{list(train.images.shape)}",
        "return one perturbation per image from `perturb`, in the order of data.images",
    )
    demand(
        torch.equal(poison.labels, train.labels),
        "labels were changed",
        "leave the labels alone: the attacks here are clean-label",
    )
    demand(
        torch.equal(poison.index, torch.arange(len(train))),
        "the order was changed",
        "keep the images in the order of data.images",
    )


def _kept(attack: Attack, poison: Poison, dataset: Dataset) -> Tensor:
    """Return the changes in levels of 0..255, having checked that they keep the budget."""
    changed = poison.images.int() - dataset.train.images.int()
    norm, eps = attack.budget(dataset.shape)
    asked = attack.options().get("eps")
    demand(
        not isinstance(asked, float)
        or norm != attack.norm
        or (eps is not None and eps <= asked + 1e-9),
        f"`budget` allows {eps}, but the option eps is {asked}",
        "let `budget` return what the options say",
    )
    if norm == "none" or eps is None:
        return changed
    if norm == "linf":
        most, allowed = float(changed.abs().max()), float(round(255 * eps))
    elif norm == "l0":
        most, allowed = float((changed != 0).any(1).flatten(1).sum(1).max()), float(eps)
    else:
        most = float((changed.flatten(1).float().norm(dim=1) / 255).max())
        allowed = eps + 0.5 / 255 * dataset.train.images[0].numel() ** 0.5 + 1e-5
    demand(
        most <= allowed,
        f"an image is changed by {most:.4g} in {norm}, but {allowed:.4g} is allowed",
        "project the perturbation: delta.clamp(-eps, eps), or scale it down to l2 = eps",
    )
    return changed


@promised_by("attack", remedy=DRAW)
def randomness(subject: Subject, _: str) -> None:
    """Same seed, same poison; other seed, other poison; global generators are neither read nor set.

    Attacks that declare themselves `deterministic` are exempt from the second.
    """
    dataset = case("two classes")
    attack = subject.attack(dataset)
    poisons = []
    for world, seed in ((1, 3), (2, 3), (3, 4)):
        before = reseeded(world)
        poisons.append(crafted(attack, dataset, seed=seed, shared_seed=seed).images)
        demand(
            before == states(),
            "a global generator of torch or numpy was used or set",
            DRAW,
        )
    demand(
        torch.equal(poisons[0], poisons[1]),
        "the same seed gave two different poisons",
        f"{DRAW}; do not depend on the time, the process or the order of a set",
    )
    demand(
        attack.deterministic or not torch.equal(poisons[0], poisons[2]),
        "another seed gave the same poison",
        f"{DRAW}; or, if the poison depends on the data alone, say so in the class: "
        "deterministic: ClassVar[bool] = True",
    )


@promised_by("attack", remedy="compute in float32, or networks inside `with run.autocast():`")
def precision(subject: Subject, _: str) -> None:
    """It crafts in bf16 too, which GPUs and newer processors take."""
    dataset = case("two classes")
    attack = subject.attack(dataset)
    _kept(attack, crafted(attack, dataset, precision="bf16"), dataset)


@promised_by("attack", remedy="make tensors with device=run.device, and move nothing to the CPU")
def gpu(subject: Subject, _: str) -> str:
    """It crafts on a GPU, or on a stand-in for one where there is none."""
    dataset = case("two classes")
    attack = subject.attack(dataset)
    with some_gpu() as (device, name):
        poison = attack.craft(dataset.train.to(device), make_run(dataset, device=device))
    _kept(attack, poison, dataset)
    return name
