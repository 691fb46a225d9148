"""Networks of timm, untrained: `timm:vit_small_patch16_224[patch_size=4]`.

Options are the arguments of timm's own function, such as `patch_size`, `depth` or `embed_dim`; the
size of the images is passed on to networks that ask for it. timm is an extra of this package.
Departs from timm: dropout and stochastic depth are switched off, because they draw from torch's
global generator, and a cell must depend on its own seed alone.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..common.errors import UnknownNameError, UserError
from ..common.spec import TIMM, format_spec, parse_number, printable

DRAWING = ("drop", "pretrained", "checkpoint", "scriptable", "exportable", "no_jit")
"""Beginnings of arguments that draw random numbers, fetch weights or change no number."""
OURS = ("num_classes", "in_chans", "img_size")
"""Arguments that follow from the data set."""


def timm() -> ModuleType:
    """Return the library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm as library
    except ImportError as error:
        raise UserError(
            f"networks of timm need timm, which is not installed ({error}); type "
            "`pip install 'uebench[timm]'`"
        ) from None
    return library


def timm_options(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the checked options of a network of timm, as Python's values.

    Args:
        name: the name behind `timm:`.
        given: the options as text.

    Raises:
        UserError: timm is not installed or has no such network, or an option is not allowed.
    """
    known = timm().list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise UnknownNameError(
            f"timm has no network {printable(name)!r}{hint}; `python -c 'import timm; "
            "print(*timm.list_models())'` lists the names"
        )
    for option in given:
        if option in OURS:
            raise UserError(f"{TIMM}{name}: {option} follows from the data set; leave it out")
        if option.startswith(DRAWING):
            raise UserError(
                f"{TIMM}{name}: {option} is not supported, since networks are trained from "
                "scratch and draw no random numbers; leave it out"
            )
    return {key: _value(text) for key, text in given.items()}


def _value(text: str) -> Any:
    """Return a number, true or false as Python's value, and anything else as text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return parse_number(text)  # canonical specs write 0.2 as 51/255


def timm_network(
    name: str, options: Mapping[str, Any], n_classes: int, shape: tuple[int, int, int]
) -> nn.Module:
    """Return an untrained network of timm for images of `shape`.

    Raises:
        UserError: timm refuses an option, or a patch does not divide the image.
    """
    arguments = {"num_classes": n_classes, "in_chans": shape[0], **options}
    create = timm().create_model
    try:
        try:
            model: nn.Module = create(name, img_size=shape[1:], **arguments)
        except TypeError as error:  # convolutional networks take images of any size
            if "img_size" not in str(error):
                raise
            model = create(name, **arguments)
    except Exception as error:  # each network checks its arguments in its own way
        spec = format_spec(TIMM + name, options)
        raise UserError(
            f"{spec} cannot be built for {shape[1]}x{shape[2]} px: {_first_line(error)}; "
            "change its options"
        ) from None
    _check_patches(model, name, options, shape)
    for module in model.modules():
        for attribute in ("p", "drop_prob", "drop_rate"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
    return model


@functools.lru_cache(maxsize=256)
def check_timm(
    name: str, options: tuple[tuple[str, Any], ...], shape: tuple[int, int, int]
) -> None:
    """Check that a network of timm can be built for images of a shape and passes them.

    Raises:
        UserError: it does not; the message is that of `timm_network`, or timm's own.
    """
    with torch.device("meta"):  # shapes alone, which takes no memory and little time
        model = timm_network(name, dict(options), 2, shape)
        try:
            model(torch.zeros(2, *shape))
        except Exception as error:
            spec = format_spec(TIMM + name, dict(options))
            raise UserError(
                f"{spec} does not take images of {shape[1]}x{shape[2]} px "
                f"({_first_line(error)}); choose another network, or options for smaller images"
            ) from None


def _check_patches(
    model: nn.Module, name: str, options: Mapping[str, Any], shape: tuple[int, int, int]
) -> None:
    """Refuse patches that do not divide the image, of which timm would ignore the rest.

    Raises:
        UserError: a patch does not divide the image; the message has the sizes that do.
    """
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", options.get("patch_size"))
    sides = patch if isinstance(patch, (tuple, list)) else (patch, patch)
    if patch is None or not any(size % side for size, side in zip(shape[1:], sides, strict=True)):
        return
    common = math.gcd(*shape[1:])
    fitting = [str(side) for side in range(1, common + 1) if common % side == 0]
    raise UserError(
        f"{TIMM}{name}: patches of {sides[0]}x{sides[1]} px do not divide images of "
        f"{shape[1]}x{shape[2]} px; give patch_size={' or '.join(fitting)}"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return printable(text.splitlines()[0])
