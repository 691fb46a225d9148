"""Which networks there are, and one way to build each: seeded, on the CPU, channels-last.

A network that has two forms takes the CIFAR form for images under 96 px and the ordinary one, which
is torchvision's, from 96 px on; `resnet18[form=cifar]` and `[form=imagenet]` say otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import nn

from ..common.errors import UserError
from ..common.options import check_name, explain_value
from ..common.spec import TIMM, format_spec, normalise, parse_spec, unknown
from .airbench import airbench
from .densenet import densenet121
from .from_timm import check_timm, timm_network, timm_options
from .mobilenet import mobilenet_v2
from .ordinary import ordinary
from .preactivation import senet18, wrn28_10
from .pretrained import pin, resnet18_imagenet
from .resnet import resnet8, resnet9, resnet18, resnet50
from .shallow import lenet5, linear, mlp2, mlp3
from .vgg import vgg11, vgg16, vgg19
from .weights import NoWeightsError

Shape = tuple[int, int, int]

ORDINARY_FROM = 96
"""Pixels of the longer side from which on networks have their ordinary form."""


class Architecture(NamedTuple):
    """A network family: how it is built and from where it comes."""

    build: Callable[..., nn.Module]
    title: str
    source: str
    options: dict[str, tuple[Any, Any]]
    """Name to type with its range, and default."""
    version: int = 1
    """Raise it when the network's numbers change: results of older versions are not reused."""
    sized: bool = False
    """Whether `build` takes the shape of the images in place of their number of channels."""


Width = Annotated[int, Field(ge=1, le=1024)]
BlockWidth = Annotated[int, Field(ge=8, le=1024)]
"""Narrower ResNets and VGGs corrupt the heap in channels-last on CPUs (torch 2.15, AVX2)."""
Units = Annotated[int, Field(ge=1, le=65_536)]
Form = Literal["auto", "cifar", "imagenet"]
_FORM: dict[str, tuple[Any, Any]] = {"form": (Form, "auto")}
_SHA256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]

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
        resnet18, "ResNet-18", "arXiv:1512.03385", {"width": (BlockWidth, 64), **_FORM}
    ),
    "resnet50": Architecture(
        resnet50, "ResNet-50", "arXiv:1512.03385", {"width": (BlockWidth, 64), **_FORM}
    ),
    "airbench": Architecture(
        airbench,
        "airbench's network, whitened",
        "arXiv:2404.00498",
        {
            "width": (Width, 64),
            "pool": (Literal["max", "mean"], "max"),
            "first": (Literal["whitened", "trained"], "whitened"),
        },
        version=2,
    ),
    "densenet121": Architecture(
        densenet121, "DenseNet-121", "arXiv:1608.06993", {"growth": (Width, 32), **_FORM}
    ),
    "mobilenet_v2": Architecture(
        mobilenet_v2, "MobileNet-V2", "arXiv:1801.04381", {"width": (Width, 32), **_FORM}
    ),
    "vgg11": Architecture(vgg11, "VGG-11", "arXiv:1409.1556", {"width": (BlockWidth, 64)}),
    "vgg16": Architecture(vgg16, "VGG-16", "arXiv:1409.1556", {"width": (BlockWidth, 64)}),
    "vgg19": Architecture(vgg19, "VGG-19", "arXiv:1409.1556", {"width": (BlockWidth, 64)}),
    "wrn28_10": Architecture(
        wrn28_10,
        "WRN-28-10",
        "arXiv:1605.07146",
        {"widen": (Annotated[int, Field(ge=1, le=64)], 10)},
    ),
    "senet18": Architecture(
        senet18,
        "SENet-18",
        "arXiv:1709.01507",
        {"width": (Annotated[int, Field(ge=16, le=1024)], 64)},
    ),
    "lenet5": Architecture(lenet5, "LeNet-5", "LeCun et al., 1998", {}),
    "mlp3": Architecture(
        mlp3, "perceptron of three layers", "arXiv:2603.03725", {"width": (Units, 512)}, sized=True
    ),
    "mlp2": Architecture(
        mlp2, "perceptron of two layers", "arXiv:2312.08898", {"width": (Units, 512)}, sized=True
    ),
    "linear": Architecture(linear, "linear model", "arXiv:2305.19254", {}, sized=True),
    "resnet18_imagenet": Architecture(
        resnet18_imagenet,
        "ResNet-18 with ImageNet weights from a file",
        "arXiv:2303.15127, Figure 4",
        {
            "weights": (str, ""),
            "sha256": (_SHA256, ""),
            "size": (Annotated[int, Field(ge=32, le=1024)], 224),
        },
    ),
}


def is_network(name: str) -> bool:
    """Return whether a name, with or without options, is that of a network."""
    bare = normalise(name.partition("[")[0])
    return bare in ARCHITECTURES or bare.startswith(TIMM)


def parse_arch(text: str, absent: list[str] | None = None) -> tuple[str, dict[str, Any]]:
    """Return the canonical spec of a network and its options, defaults left out of the spec.

    A file of weights is read, and its content's sha256 becomes an option.

    Args:
        text: the network's name with options in brackets.
        absent: where a missing file of weights is noted, for a plan of which nothing is computed:
            it then gets a sha256 that no file has. None: it is an error.

    Raises:
        KeyError: no such network, with the nearest name.
        ValueError: an unknown option, a value out of range, or a file that cannot be used.
    """
    name, options = _checked_options(text)
    if "weights" in options and not options["sha256"]:
        try:
            options["sha256"] = pin(options["weights"])
        except NoWeightsError as error:
            if absent is None:
                raise
            absent.append(str(error))
            options["sha256"] = hashlib.sha256(f"absent: {options['weights']}".encode()).hexdigest()
    return format_spec(name, _changed(name, options)), options


def _checked_options(text: str) -> tuple[str, dict[str, Any]]:
    """Return a network's name and all its options."""
    name, given = parse_spec(text)
    if name.startswith(TIMM):
        return name, timm_options(name.removeprefix(TIMM), given)
    if name not in ARCHITECTURES:
        raise unknown("network", name, ARCHITECTURES)
    known = ARCHITECTURES[name].options
    options = {}
    for key, value in given.items():
        check_name(key, known, name)
        try:
            options[key] = TypeAdapter(known[key][0]).validate_python(value)
        except ValidationError as error:
            raise UserError(f"{name}: {explain_value(error, key, known[key][0])}") from None
    return name, {key: default for key, (_, default) in known.items()} | options


def _changed(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults, in the order that they are listed in.

    Those of timm's networks have no defaults here, so all that were given count.
    """
    if name.startswith(TIMM):
        return dict(sorted(options.items()))
    known = ARCHITECTURES[name].options
    return {key: options[key] for key, (_, default) in known.items() if options[key] != default}


def is_ordinary(arch: str, shape: Shape) -> bool:
    """Return whether a network has its ordinary form for images of this shape.

    Raises:
        ValueError: an option was given that this form does not have.
    """
    name, options = _checked_options(arch)
    form = options.pop("form", "cifar")
    if form == "cifar" or (form == "auto" and max(shape[1:]) < ORDINARY_FROM):
        return False
    extra = _changed(name, options | {"form": "auto"})
    if extra:
        raise UserError(
            f"{arch}: {', '.join(extra)} belongs to the CIFAR form, and images of "
            f"{shape[1]}x{shape[2]} px get the ordinary one; leave it out, or add form=cifar"
        )
    return True


def network_recipe(arch: str, shape: Shape) -> dict[str, Any]:
    """Return what a key holds of a network: its spec without form and paths, and an ordinary form.

    Raises:
        ValueError: as for `is_ordinary`.
    """
    name, options = _checked_options(arch)
    if name.startswith(TIMM):
        check_timm(name.removeprefix(TIMM), tuple(sorted(options.items())), shape)
        return {"arch": format_spec(name, _changed(name, options))}
    known, version = ARCHITECTURES[name].options, ARCHITECTURES[name].version
    fixed = {key: known[key][1] for key in ("form", "weights") if key in known}
    recipe: dict[str, Any] = {"arch": format_spec(name, _changed(name, options | fixed))}
    if version > 1:  # left out at 1, so that the keys of older results stay what they were
        recipe["arch_version"] = version
    return recipe | ({"form": "imagenet"} if is_ordinary(arch, shape) else {})


def shown_arch(arch: str) -> str:
    """Return a network as it would be typed: without the content's hash of a file."""
    name, options = _checked_options(arch)
    hidden = {"sha256": ""} if "sha256" in options else {}
    return format_spec(name, _changed(name, options | hidden))


def build_network(arch: str, n_classes: int, shape: Shape, seed: int) -> nn.Module:
    """Return an untrained network for images of `shape`; the global generator is put back."""
    with seeded(seed):
        model = _built(arch, n_classes, shape)
    return model.to(memory_format=torch.channels_last)


def _built(arch: str, n_classes: int, shape: Shape) -> nn.Module:
    """Return an untrained network with weights from torch's global generator."""
    name, options = _checked_options(arch)
    if name.startswith(TIMM):
        return timm_network(name.removeprefix(TIMM), options, n_classes, shape)
    if is_ordinary(arch, shape):
        return ordinary(name, n_classes, shape[0])
    options.pop("form", None)
    known = ARCHITECTURES[name]
    size: dict[str, Any] = {"shape": shape} if known.sized else {"channels": shape[0]}
    return known.build(n_classes=n_classes, **size, **options)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's initial weights with a seed of their own, and put the global generator back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
        yield
