"""Read image files as 8-bit RGB, or refuse them by name: the one reader of pictures from disk.

- 8-bit and 1-bit images, grey, palette, colour or CMYK, are converted by Pillow, which ignores
  colour profiles. Of 16 bits per channel of a colour image, it keeps the upper eight.
- 16-bit grey is scaled so that the largest value of the file's bit depth becomes 255, and floats
  so that 1 becomes 255. Pillow's own conversion would clip both at 255, to white or to black.
- An alpha channel is dropped if all pixels are opaque, and photos are turned as EXIF says.

Refused are partly transparent images, files of several images (animations, TIFF stacks), 32-bit
whole numbers and floats outside 0..1, whose white is not known, and files that are damaged, cut
short or larger than `MAX_PIXELS`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..common.errors import UserError
from ..common.text import escaped
from .dataset import DatasetError, error_text

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
"""The formats that are read; other readers of Pillow may start programs."""
_SUFFIXES = "png jpg jpeg bmp gif webp tif tiff ppm pgm pbm pnm"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""In lower case."""
MAX_PIXELS = 8192**2
"""Largest number of pixels of one image; no data set for classification has larger ones."""
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
"""Tags of EXIF and TIFF."""


class RgbImage(NamedTuple):
    """An image in RGB, and the brightest value of its file if that had more than 8 bits."""

    image: Image.Image
    brightest: float | None
    """Share of white, in [0, 1]; None for files with at most 8 bits per value."""


def read_image(path: Path, *, upright: bool = True) -> RgbImage:
    """Return a file's image; see `as_rgb`.

    Raises:
        DatasetError: it cannot be read, or what its values mean is not known.
    """
    who = escaped(path)
    with opened_image(path, who) as image:
        return as_rgb(image, who, upright=upright)


@contextlib.contextmanager
def without_pillows_warnings() -> Iterator[None]:
    """Ignore what Pillow warns of; this is not safe in a thread, since threads share the filters.

    It warns of damaged metadata, which is not needed, and of large images, which are refused.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@contextlib.contextmanager
def opened_image(source: Path | IO[bytes], who: str) -> Iterator[Image.Image]:
    """Open an image whose pixels are not decoded yet, and report what goes wrong with it.

    Raises:
        DatasetError: it is not an image, has too many pixels, or is found damaged when decoded.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            w, h = image.size
            if w * h > MAX_PIXELS:
                raise DatasetError(
                    f"{who} has {w}x{h} px, at most {MAX_PIXELS:,} are read; scale it down"
                )
            yield image
    except UserError:
        raise
    except Exception as error:  # each format raises errors of its own
        raise DatasetError(
            f"{who} is not a readable image ({error_text(error)}); replace or remove it"
        ) from None


def as_rgb(image: Image.Image, who: str, *, upright: bool = True) -> RgbImage:
    """Return an opened image in RGB, 8 bits per channel.

    Args:
        image: an image that `opened_image` opened.
        who: its name in messages.
        upright: whether to turn it as its EXIF data says.

    Raises:
        DatasetError: it is partly transparent, one of several in its file, or its white is unknown.
    """
    if _is_one_of_several(image):
        raise DatasetError(
            f"{who} holds several images; save each as a file of its own, or only the one to use"
        )
    # Pillow's decoders note the form of the values in the file here, until the image is decoded.
    has_16_bits = ";16" in str(getattr(image, "tile", ""))
    if upright and _orientation(image) != 1:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        values = _unit_range(image, who)
        image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
        return RgbImage(image.convert("RGB"), float(values.max()))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise DatasetError(
                f"{who} is partly transparent; save it without alpha, on the background that it "
                "is meant to have"
            )
    image = image.convert("RGB")
    return RgbImage(image, np.asarray(image).max() / 255 if has_16_bits else None)


def _is_one_of_several(image: Image.Image) -> bool:
    """Return whether a file holds other images of the same kind, and not only a thumbnail."""
    if not getattr(image, "is_animated", False) or image.format == "MPO":
        return False  # the further images of a camera's JPEG (MPO) are previews or depth maps
    if image.format != "TIFF":
        return True
    size = image.size
    try:
        image.seek(1)
    except Exception:  # a damaged directory entry behind the image, which is not needed
        return False
    is_page = image.size == size
    image.seek(0)
    return is_page


def _orientation(image: Image.Image) -> int:
    """Return how EXIF says that an image is turned; 1, upright, if it does not or is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what Pillow raises for damaged EXIF data is not documented
        return 1


def _unit_range(image: Image.Image, who: str) -> NDArray[np.float64]:
    """Return the values of a grey image with more than 8 bits, with white as 1.

    Raises:
        DatasetError: the file does not say which value is white.
    """
    remedy = "scale it to 0..255 and save it as an 8-bit image"
    values: NDArray[np.float64] = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0:
        raise DatasetError(f"{who} has 0 as white in {image.mode} pixels; {remedy}")
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise DatasetError(
                f"{who} has float pixels from {low:.4g} to {high:.4g}; 0..1 is read: {remedy}"
            )
        return values
    if image.mode == "I" and image.format == "TIFF":
        raise DatasetError(
            f"{who} has signed or 32-bit whole numbers, whose white is not known; {remedy}"
        )
    n_bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    white: int = 2**n_bits - 1
    return values / white
