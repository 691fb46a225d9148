"""Every kind of picture is read as it looks, or refused by name: never white or black."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from uebench.data import DatasetError, load_dataset
from uebench.data.image_files import read_image

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)


def saved(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> None:
    """Save pixels, converted to `mode` if one is given."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)


def write_png(path: Path, pixels: np.ndarray, colour_type: int) -> None:
    """Write 16-bit channels, which Pillow does not."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def write_tiff(path: Path, data: bytes, n_bits: int, photometric: int = 1, sign: int = 1) -> None:
    """Write an 8x8 grey TIFF of one strip with any number of bits per value."""
    tags = {256: 8, 257: 8, 258: n_bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 8}
    tags |= {279: len(data), 339: sign}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + body + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)


def twelve_bits(values: np.ndarray) -> bytes:
    """Pack pairs of 12-bit values into three bytes."""
    first, second = values.reshape(-1, 2).astype(np.uint16).T
    parts = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    return np.stack(parts, axis=1).astype(np.uint8).tobytes()


def opaque(mode: str) -> Image.Image:
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(255)
    return image


DEEP = RAMP.astype(np.uint16) * 257
GREY: dict[str, Callable[[Path], None]] = {
    "8.png": lambda path: saved(path, RAMP),
    "8.PGM": lambda path: saved(path, RAMP, format="PPM"),
    "16.png": lambda path: saved(path, DEEP),
    "16.tif": lambda path: saved(path, DEEP),
    "16be.tif": lambda path: saved(path, Image.fromarray(DEEP.astype(">u2"))),
    "16.pgm": lambda path: saved(path, Image.fromarray(DEEP.astype(np.int32))),
    "16lzw.tiff": lambda path: saved(path, DEEP, compression="tiff_lzw"),
    "12.tif": lambda path: write_tiff(path, twelve_bits(RAMP.astype(int) * 4095 // 255), 12),
    "float.tif": lambda path: saved(path, (RAMP / 255).astype(np.float32)),
    "opaque LA.png": lambda path: saved(path, opaque("L")),
    "opaque RGBA.png": lambda path: saved(path, opaque("RGB")),
    "palette.png": lambda path: saved(path, RAMP, "P"),
    "opaque palette.png": lambda path: saved(path, RAMP, "P", transparency=bytes([255] * 256)),
    "palette.gif": lambda path: saved(path, RAMP),
    "16 LA.png": lambda path: write_png(path, np.stack([DEEP, DEEP * 0 + 65535], 2), 4),
    "16 colour.png": lambda path: write_png(path, np.stack([DEEP] * 3, 2), 2),
    "white is zero.tif": lambda path: write_tiff(path, (255 - RAMP).tobytes(), 8, photometric=0),
}


@pytest.mark.parametrize("kind", GREY)
def test_a_grey_ramp_comes_out_in_eight_bits(kind: str, tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        GREY[kind](tmp_path / place / kind)
    images = load_dataset(f"folder:{tmp_path}").test.images.int().numpy()
    assert images.shape == (2, 3, 8, 8)
    assert np.abs(images - RAMP).max() <= (1 if kind == "12.tif" else 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "P", "1"])
def test_colour_is_read_as_pillow_reads_it(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    saved(path, COLOUR, mode)
    with Image.open(path) as image:
        assert np.array_equal(read_image(path).image, image.convert("RGB"))


def half_transparent(mode: str) -> Image.Image:
    image = Image.new("LA", (8, 8), (0, 255))
    image.putpixel((3, 3), (255, 0))
    return image.convert(mode)


def frames(path: Path, **options: Any) -> None:
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    first.save(path, save_all=True, append_images=[second], **options)


ONES = np.ones((8, 8))
REFUSED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "LA.png": ("partly transparent", lambda path: saved(path, half_transparent("LA"))),
    "RGBA.webp": (
        "partly transparent",
        lambda path: saved(path, half_transparent("RGBA"), lossless=True),
    ),
    "palette.png": (
        "partly transparent; save it without alpha",
        lambda path: saved(path, RAMP, "P", transparency=bytes([0] + [255] * 255)),
    ),
    "index.gif": ("partly transparent", lambda path: saved(path, RAMP, transparency=0)),
    "key.png": ("partly transparent", lambda path: saved(path, RAMP, transparency=0)),
    "moving.gif": ("several images", frames),
    "moving.webp": ("several images", frames),
    "moving.png": ("several images", frames),
    "stack.tif": ("several images; save each", frames),
    "levels.tif": ("from 0 to 255; 0..1 is read", lambda p: saved(p, RAMP.astype(np.float32))),
    "signed.tif": ("-1 to -1", lambda p: saved(p, -ONES.astype(np.float32))),
    "nan.tif": ("nan", lambda path: saved(path, (ONES * np.nan).astype(np.float32))),
    "32.tif": ("white is not known", lambda path: saved(path, RAMP.astype(np.int32))),
    "16 signed.tif": (
        "white is not known",
        lambda p: write_tiff(p, DEEP.astype("<i2").tobytes(), 16, sign=2),
    ),
    "inverted.tif": ("0 as white", lambda p: write_tiff(p, DEEP.tobytes(), 16, photometric=0)),
    "12 in 16.png": (
        "6.2% of white, and would become almost black; scale them",
        lambda path: saved(path, RAMP.astype(np.uint16) * 16),
    ),
    "14 in 16 colour.png": (
        "almost black",
        lambda path: write_png(path, np.stack([RAMP.astype(int) * 64] * 3, 2), 2),
    ),
    "dark float.tif": ("almost black", lambda p: saved(p, (RAMP / 2550).astype(np.float32))),
    "empty.png": ("not a readable image", lambda path: path.write_bytes(b"")),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_rightly_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    expected, write = REFUSED[kind]
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        write(tmp_path / place / kind)
    with pytest.raises(DatasetError) as error:
        load_dataset(f"folder:{tmp_path}")
    assert expected in str(error.value)
    assert f"train/a/{kind}" in str(error.value)


def test_one_dark_image_of_16_bits_is_only_dark(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        saved(tmp_path / place / "0.png", DEEP)
    saved(tmp_path / "train/a/1.png", DEEP // 257)
    saved(tmp_path / "train/b/1.png", DEEP * 0)
    images = load_dataset(f"folder:{tmp_path}").train.images
    assert images[1].max() == 1
    assert images[3].max() == 0


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: np.rot90(stored, 2),
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}
"""What a viewer does with the stored rows and columns, by the value of the tag Orientation."""


@pytest.mark.parametrize("kind", ["png", "webp", "16.png"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photos_are_turned_as_exif_says(kind: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored, path = COLOUR[:6], tmp_path / f"a.{kind}"
    if kind == "16.png":
        stored = np.stack([RAMP[:6]] * 3, 2)
        saved(path, DEEP[:6], exif=exif)
    else:
        saved(path, stored, exif=exif, lossless=True)
    assert np.array_equal(read_image(path).image, UPRIGHT[orientation](stored))
    assert np.array_equal(read_image(path, upright=False).image, stored)


def test_damaged_exif_data_is_ignored(tmp_path: Path) -> None:
    saved(tmp_path / "a.jpg", COLOUR, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 30)
    saved(tmp_path / "b.jpg", COLOUR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(
            read_image(tmp_path / "a.jpg").image, read_image(tmp_path / "b.jpg").image
        )


def test_the_thumbnail_in_a_tiff_and_the_preview_of_a_camera_do_not_matter(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    small = image.resize((4, 4))
    image.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert np.array_equal(read_image(tmp_path / "a.tif").image, COLOUR)
    image.save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[image])
    image.save(tmp_path / "c.jpg")
    assert np.array_equal(
        read_image(tmp_path / "b.jpg").image, read_image(tmp_path / "c.jpg").image
    )


CUT: dict[str, dict[str, Any]] = {
    "png": {},
    "jpeg": {},
    "jpg": {"progressive": True},
    "bmp": {},
    "gif": {},
    "webp": {"lossless": True},
    "ppm": {},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("suffix", CUT)
def test_what_is_cut_short_is_refused_or_whole(suffix: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, Image.registered_extensions()[f".{suffix}"], **CUT[suffix])
    content, path = stream.getvalue(), tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    whole = np.asarray(read_image(path).image)
    refused = 0
    for n in [*range(0, len(content), len(content) // 40), *range(len(content) - 5, len(content))]:
        path.write_bytes(content[:n])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert np.array_equal(read_image(path).image, whole), n
            except DatasetError as error:
                assert "is not a readable image" in str(error)
                refused += 1
    assert refused >= 40
