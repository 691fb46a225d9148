"""Picture folders: which files are the images of which class, and that none vanishes unseen."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uebench.data import DatasetError, load_dataset
from uebench.data.dataset import Dataset


def write(path: Path, level: int = 0) -> Path:
    """Write an image of one grey level, so that it is recognised wherever it ends up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level,) * 3).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes in train/ and test/, with the levels 10 and 11 (cat), 20 and 21 (dog)."""
    root = tmp_path / "pets"
    for part in ("train", "test"):
        for name, level in (("cat", 10), ("dog", 20)):
            for i in range(2):
                write(root / part / name / f"{i}.png", level + i)
    return root


def levels(dataset: Dataset) -> dict[str, list[int]]:
    """Return the levels of the training images by class, in their order."""
    train = dataset.train
    return {
        name: train.images[train.labels == label, 0, 0, 0].tolist()
        for label, name in enumerate(train.class_names)
    }


PLAIN = {"cat": [10, 11], "dog": [20, 21]}


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_plain_folder_needs_no_words(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert levels(load_dataset(f"folder:{root}")) == PLAIN
    assert not messages(caplog)


def test_old_data_sets_keep_their_fingerprints(tmp_path: Path) -> None:
    """These are the fingerprints of the first version; keys of stored cells contain them."""
    rng = np.random.default_rng(0)
    kinds = (
        *(("RGB", "png"), ("L", "PNG"), ("P", "png"), ("1", "bmp"), ("CMYK", "tiff")),
        *(("RGBA", "png"), ("RGB", "webp")),
    )
    root = tmp_path / "pets"
    for part in ("train", "test"):
        for name in ("cat", "Dog", "zoo 1"):
            (root / part / name).mkdir(parents=True)
            for i, (mode, suffix) in enumerate(kinds):
                pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
                image, path = Image.fromarray(pixels).convert(mode), root / part / name / str(i)
                image.save(f"{path}.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    known = {
        "": "c507758ec7cfdac16bb3f18b554228033d17ebd2995706fe55ecbff2c27cd4d0",
        "[size=8]": "079fecc92261c3e424db2a3f80d9debb91e6838f826e59aeecc68b9bc2651965",
        "[n_train=5]": "fe1d666ef44c89e97728e20271c48348a9f2e082b6886fec938be9d9d1d9240f",
    }
    for options, fingerprint in known.items():
        assert load_dataset(f"folder:{root}{options}").fingerprint == fingerprint
    (root / "test").rename(root / "val")
    dataset = load_dataset("imagenet_subset[n_classes=3,size=8]", data_dir=root)
    assert dataset.fingerprint == "8e87f202db7d5bb871efd89e670341c1b9681aae228e1e4353642841dee1e845"


HIDDEN = (".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found")


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_folder_is_neither_a_class_nor_a_part_of_one(
    name: str, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_dataset(f"folder:{root}")
    for place in ("train", "test", "train/cat", "test/dog"):
        write(root / place / name / "0.png", 99)
    after = load_dataset(f"folder:{root}")
    assert after.class_names == ("cat", "dog")
    assert after.fingerprint == before.fingerprint
    assert not messages(caplog)


def test_hidden_files_are_not_images(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"):
        (root / "train/cat" / name).write_bytes(b"\0\5\x16\7" + bytes(60))
    assert levels(load_dataset(f"folder:{root}")) == PLAIN
    assert not messages(caplog)


def test_imagenet_has_no_hidden_class_either(root: Path) -> None:
    (root / "test").rename(root / "val")
    write(root / "train/.ipynb_checkpoints/0.png")
    write(root / "train/cat/.ipynb_checkpoints/0.png")
    write(root / "train/dog/more/0.png", 29)
    dataset = load_dataset("imagenet_subset[n_classes=2,size=8]", data_dir=root)
    assert dataset.class_names == ("cat", "dog")
    assert levels(dataset) == {"cat": [10, 11], "dog": [20, 21, 29]}


def test_images_in_subfolders_belong_to_the_class(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(root / "train/cat/a/deep/er/0.png", 12)
    write(root / "train/cat/zsub/0.png", 13)
    write(root / "train/cat/z.png", 14)
    assert levels(load_dataset(f"folder:{root}")) == {"cat": [10, 11, 12, 14, 13], "dog": [20, 21]}
    assert not messages(caplog)


def test_every_suffix_counts_in_either_case(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, suffix in enumerate(("PNG", "Jpg", "JPEG", "BMP", "GIF", "tif", "TIFF", "PgM", "webp")):
        write(root / f"train/cat/x{i}.{suffix}", 100)
    assert len(levels(load_dataset(f"folder:{root}"))["cat"]) == 2 + 9
    assert not messages(caplog)


def test_files_that_are_not_used_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["train/README.md", "train/cat/notes.txt", "train/cat/raw/x.cr2", "train/cat/noend"]
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    write(root / "train/loose.png")
    os.mkfifo(root / "test/dog/pipe.png")
    (root / "test/dog/gone.png").symlink_to("nowhere.png")
    assert levels(load_dataset(f"folder:{root}")) == PLAIN
    (message,) = messages(caplog)
    assert "pets: 7 files are not used (not images of a class): " in message
    assert ": train/README.md, train/loose.png, train/cat/noend" in message
    assert "and 2 more" in message
    (root / "val").mkdir()
    load_dataset(f"folder:{root}")
    assert "8 files are not used" in messages(caplog)[1]


def refusal(root: Path) -> str:
    with pytest.raises(DatasetError) as error:
        load_dataset(f"folder:{root}")
    return str(error.value)


def test_classes_that_only_one_part_has(root: Path) -> None:
    for i in range(3):
        write(root / f"test/zfox/{i}.png")
    assert "test has classes that train/ lacks: zfox (3 images); add" in refusal(root)
    write(root / "train/zfox/0.png")
    assert load_dataset(f"folder:{root}").class_names == ("cat", "dog", "zfox")
    write(root / "train/emu/0.png")
    assert "test/emu has no images" in refusal(root)


def test_empty_folders_in_the_test_set_do_not_matter(root: Path) -> None:
    (root / "test/empty").mkdir()
    assert levels(load_dataset(f"folder:{root}")) == PLAIN
    (root / "train/empty").mkdir()
    assert "train/empty has no images; every class needs at least one" in refusal(root)


def test_images_without_class_folders(root: Path) -> None:
    flat = root.parent / "flat"
    for i in range(4):
        write(flat / f"train/{i}.png")
    (flat / "test").mkdir()
    assert "train has no class folders (4 images lie directly in it)" in refusal(flat)
    (root.parent / "flat/train").rename(root / "val")
    for name in ("cat", "dog"):
        (root / "test" / name).rename(root / "test" / f"no {name}")
    assert "test has classes that train/ lacks: no cat (2 images), no dog" in refusal(root)


def test_links_are_followed_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside = write(root.parent / "elsewhere/5.png", 15).parent
    (root / "train/cat/9.png").symlink_to(outside / "5.png")
    (root / "train/cat/more").symlink_to(outside)
    (root / "train/cat/again").symlink_to(outside)
    (root / "train/cat/loop").symlink_to(root / "train/cat")
    (root / "train/cat/above").symlink_to(root)
    (root / "train/cat/self").symlink_to("self")
    (root / "train/cat/0 real").symlink_to(root / "train/cat/real")
    write(root / "train/cat/real/0.png", 16)
    assert levels(load_dataset(f"folder:{root}")) == {"cat": [10, 11, 15, 15, 16], "dog": [20, 21]}
    (message,) = messages(caplog)
    assert "1 file is not used" in message
    (root / "train/emu").symlink_to(outside)
    (root / "test/emu").symlink_to(outside)
    assert levels(load_dataset(f"folder:{root}"))["emu"] == [15]


NASTY = (
    "\x1b[31mred",
    "two\nlines",
    "right\u202eleft",
    "<b>&amp;",
    os.fsdecode(b"\xe9tang"),
    "$x_1$",
)


def nasty_tree(root: Path, names: Iterable[str] = NASTY) -> Path:
    for part in ("train", "test"):
        for label, name in enumerate(names):
            for i in range(2):
                write(root / part / name / f"{i}{name}.png", 10 * label + i)
    return root


def test_names_from_disk_become_printable_text(tmp_path: Path) -> None:
    root = nasty_tree(tmp_path / os.fsdecode(b"p\xe9ts"))
    dataset = load_dataset(f"folder:{root}")
    assert dataset.name == r"p\xe9ts"
    assert dataset.class_names == (
        *(r"\x1b[31mred", "$x_1$", "<b>&amp;"),
        *(r"right\u202eleft", r"two\nlines", r"\xe9tang"),
    )
    assert levels(dataset)[r"\xe9tang"] == [40, 41]
    imagenet = tmp_path / "imagenet"
    nasty_tree(imagenet)
    (imagenet / "test").rename(imagenet / "val")
    spec = "imagenet_subset[n_classes=6,size=8]"
    for outline in (True, False):
        loaded = load_dataset(spec, data_dir=tmp_path, outline=outline)
        assert loaded.class_names == dataset.class_names
    assert levels(load_dataset(spec, data_dir=tmp_path)) == levels(dataset)


def test_refusals_and_messages_are_printable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = nasty_tree(tmp_path / "t\x1b[2J")
    (root / f"train/{NASTY[0]}" / NASTY[1]).write_text("x")
    with caplog.at_level(logging.WARNING):
        load_dataset(f"folder:{root}")
    assert messages(caplog)[0].isprintable()
    write(root / f"test/{NASTY[2]}/{NASTY[4]}.png").write_bytes(b"x")
    assert refusal(root).isprintable()
    write(root / f"test/{NASTY[4]}x/0.png")
    assert refusal(root).isprintable()
    (root / f"train/{NASTY[0]}y").mkdir()
    assert refusal(root).isprintable()
