"""Which networks there are, and one way to build each: seeded, on the CPU, channels-last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import nn

from ..spec import did_you_mean, format_spec, parse_spec, unknown
from .resnet import resnet8, resnet9, resnet18


class Architecture(NamedTuple):
    """A network family: how it is built and from where it comes."""

    build: Callable[..., nn.Module]
    title: str
    source: str
    options: dict[str, tuple[Any, Any]]
    """Name to type with its range, and default."""


Width = Annotated[int, Field(ge=1, le=1024)]

ARCHITECTURES: dict[str, Architecture] = {
    "resnet9": Architecture(
        resnet9,
        "ResNet-9",
        "after cifar10-fast (D. Page, 2018)",
        {"width": (Width, 16)},
    ),
    "resnet8": Architecture(
        resnet8, "ResNet-8", "ours, after cifar10-fast (D. Page, 2018)", {"width": (Width, 16)}
    ),
    "resnet18": Architecture(
        resnet18, "ResNet-18 (CIFAR form)", "arXiv:1512.03385", {"width": (Width, 64)}
    ),
}


def parse_arch(text: str) -> tuple[str, dict[str, Any]]:
    """Return the canonical spec of a network and its options, defaults left out of the spec.

    Raises:
        KeyError: no such network, with the nearest name.
        ValueError: an unknown option, or a value out of range.
    """
    name, given = parse_spec(text)
    if name not in ARCHITECTURES:
        raise unknown("network", name, ARCHITECTURES)
    known = ARCHITECTURES[name].options
    options = {}
    for key, value in given.items():
        if key not in known:
            raise ValueError(
                f"{name} has no option {key}{did_you_mean(key, known)}; it has {', '.join(known)}"
            )
        try:
            options[key] = TypeAdapter(known[key][0]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise ValueError(f"{name}: {key}={value} is wrong: {reason}") from None
    changed = {key: value for key, value in options.items() if value != known[key][1]}
    return format_spec(name, changed), {key: v for key, (_, v) in known.items()} | options


def build_network(arch: str, n_classes: int, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """Return an untrained network for images of `shape`; the global generator is put back."""
    spec, options = parse_arch(arch)
    build = ARCHITECTURES[parse_spec(spec).name].build
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
    try:
        model = build(n_classes=n_classes, channels=shape[0], **options)
    finally:
        torch.random.set_rng_state(state)
    return model.to(memory_format=torch.channels_last)
