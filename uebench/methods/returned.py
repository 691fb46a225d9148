"""Refuse what a method's author returned, with the method's name and what is needed.

Without these checks, a forgotten `return` becomes an error of Python's in code that the author has
never seen.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.errors import MethodError
from ..data.split import Split

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Types of images that networks take; float64 fails in their first layer."""


def kind_and_name(method: Any) -> str:
    """Return the kind and the name of a method, as messages begin."""
    return f"{method.info.kind} {method.info.name}"


def checked_crop(method: Any, shown: Any, images: Float[Tensor, "b c h w"]) -> Tensor:
    """Return what `after_crop` made of the images of a batch.

    Raises:
        MethodError: they are not float images of the same shape.
    """
    if not isinstance(shown, Tensor) or shown.shape != images.shape or shown.dtype not in FLOATS:
        wrong_return(method, "after_crop", shown, f"float32 {list(images.shape)} is needed")
    return shown


def wrong_return(method: Any, step: str, got: Any, wanted: str) -> NoReturn:
    """Raise MethodError for what a step of a method returned."""
    missing = " (is its `return` missing?)" if got is None else ""
    raise MethodError(
        f"{kind_and_name(method)}: {step} returned {_in_words(got)}{missing}; {wanted}"
    )


def _in_words(got: Any) -> str:
    """Return what was returned, in words of bounded length."""
    if isinstance(got, Split):
        return f"{len(got)} images {list(got.shape)} of {got.n_classes} classes"
    if isinstance(got, Tensor):
        kind = str(got.dtype).removeprefix("torch.")
        constant = got.shape == () and not got.requires_grad
        return f"{kind} {list(got.shape)}{' without gradient' if constant else ''}"
    if isinstance(got, int | float):
        return f"{got!r:.40}"
    return "nothing" if got is None else f"a {type(got).__name__}"
