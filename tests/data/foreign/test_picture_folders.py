"""Released folders and zips of pictures are read by the reader of picture data sets."""

import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.foreign.helpers import DATA, IMAGES, N, write_pngs
from uebench.data.foreign import Reading, read_poison
from uebench.data.poison import PoisonError


def pack(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(p for p in folder.rglob("*") if p.is_file()):
            file.write(each, each.relative_to(folder.parent))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_files_are_passed_over_and_others_named(
    packed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "made"
    write_pngs(path, classes=True)
    (path / ".ipynb_checkpoints").mkdir()
    for name in (".ipynb_checkpoints/0.png", "0/._1.png", "0/Thumbs.db", "1/desktop.ini"):
        (path / name).write_bytes(b"\0\5\x16\7")
    assert torch.equal(read_poison(pack(path) if packed else path, DATA)[0].images, IMAGES)
    assert not caplog.records
    (path / "README.txt").write_text("x")
    (path / "1/3.ti\x1bff").write_text("x")
    poison, _ = read_poison(pack(path) if packed else path, DATA)
    assert torch.equal(poison.labels, DATA.train.labels)
    (record,) = caplog.records
    wrap = "made/" if packed else ""
    assert rf": 2 files are not used (not images): {wrap}1/3.ti\x1bff, {wrap}README.txt" in (
        record.getMessage()
    )


@pytest.mark.parametrize("suffix", ["PNG", "bmp", "gif", "webp", "tif", "ppm"])
def test_every_format_of_a_data_set_can_be_imported(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    options = {"lossless": True} if suffix == "webp" else {}
    grey = IMAGES[3].permute(1, 2, 0).numpy()[..., :1].repeat(3, 2)
    Image.fromarray(grey).convert("L" if suffix == "gif" else "RGB").save(
        tmp_path / f"p/3.{suffix}", **options
    )
    poison, _ = read_poison(tmp_path / "p", DATA, Reading("images"))
    assert poison.index.tolist() == [3]
    assert np.array_equal(poison.images[0].permute(1, 2, 0), grey)


def test_a_turned_image_is_upright(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = IMAGES[3].permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(tmp_path / "p/3.png", exif=exif)
    poison, _ = read_poison(tmp_path / "p", DATA)
    assert np.array_equal(poison.images[0].permute(1, 2, 0), pixels)
    Image.fromarray(pixels).save(tmp_path / "p/3.png", exif=exif)
    with pytest.raises(PoisonError, match="is 8x10 px, those of random are 10x8"):
        read_poison(tmp_path / "p", DATA)


def test_pictures_that_no_reader_can_read_rightly(tmp_path: Path) -> None:
    image, stream = Image.fromarray(IMAGES[3].permute(1, 2, 0).numpy()), io.BytesIO()
    image.save(stream, "GIF", save_all=True, append_images=[image.rotate(180)])
    deep = Image.fromarray(np.zeros((8, 10), np.float32))
    (tmp_path / "p").mkdir()
    (tmp_path / "p/3.gif").write_bytes(stream.getvalue())
    with pytest.raises(PoisonError, match=r"'3.gif' holds several images"):
        read_poison(tmp_path / "p", DATA)
    (tmp_path / "p/3.gif").unlink()
    deep.save(tmp_path / "p/3.tif")
    with pytest.raises(PoisonError, match=r"'3.tif' has F pixels; 8-bit grey or colour"):
        read_poison(tmp_path / "p", DATA)


def test_class_folders_have_the_names_of_a_data_set_that_was_read_from_disk(
    tmp_path: Path,
) -> None:
    names = (os.fsdecode(b"\xe9tang"), "tw\no")
    for i in range(N):
        folder = tmp_path / "p" / names[int(DATA.train.labels[i])]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i].permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    train = replace(DATA.train, class_names=(r"\xe9tang", r"tw\no"))
    poison, _ = read_poison(tmp_path / "p", replace(DATA, train=train))
    assert torch.equal(poison.images, IMAGES)
    assert torch.equal(poison.labels, DATA.train.labels)


def test_a_link_to_a_folder_inside_adds_nothing(tmp_path: Path) -> None:
    write_pngs(tmp_path / "p/made")
    (tmp_path / "p/again").symlink_to("made")
    (tmp_path / "p/made/loop").symlink_to(".")
    assert torch.equal(read_poison(tmp_path / "p", DATA)[0].images, IMAGES)


@pytest.mark.parametrize("packed", [False, True])
def test_labels_and_records_are_those_of_the_folder_of_the_pictures(
    packed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "made"
    write_pngs(path)
    labels = DATA.train.labels.tolist()
    rows = [f"{i},{label}" for i, label in enumerate(labels)]
    (path / "labels.csv").write_text("\n".join(["index,label", *rows]))
    (path / "meta.json").write_text('{"attack": "lsp"}')
    (path / "zz").mkdir()
    others = [f"{i},{1 - label}" for i, label in enumerate(labels)]
    (path / "zz" / "labels.csv").write_text("\n".join(["index,label", *others]))
    (path / "zz" / "meta.json").write_text("{")
    poison, _ = read_poison(pack(path) if packed else path, DATA)
    assert torch.equal(poison.labels, DATA.train.labels)
    (record,) = caplog.records
    assert "zz/labels.csv" in record.getMessage()
    assert "zz/meta.json" in record.getMessage()
