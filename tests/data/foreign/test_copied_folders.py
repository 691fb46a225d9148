"""A changed copy of the folder that a data set was read from: its names say what it replaces."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.foreign.test_picture_folders import pack
from uebench.data import load_dataset
from uebench.data.dataset import Dataset
from uebench.data.foreign import Reading, read_poison
from uebench.data.poison import PoisonError

NAMES = {"train/cat": ["b", "a", "10"], "train/dog": ["a", "2", "x.y"], "test/cat": ["a"]}


def write(root: Path, change: int = 0, ending: str = "png") -> None:
    """Write a tree of pictures; those of a changed copy are brighter by `change` levels."""
    rng = np.random.default_rng(0)
    for folder, names in (NAMES | {"test/dog": ["2"]}).items():
        (root / folder).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 240, (8, 8, 3), dtype=np.uint8) + np.uint8(change)
            Image.fromarray(pixels).save(root / folder / f"{name}.{ending}")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write(tmp_path / "photos")
    return load_dataset(f"folder:{tmp_path}/photos")


def test_a_data_set_knows_the_files_of_its_training_images(dataset: Dataset) -> None:
    assert dataset.train_files == (
        *("cat/10.png", "cat/a.png", "cat/b.png"),
        *("dog/2.png", "dog/a.png", "dog/x.y.png"),
    )


def test_the_first_images_keep_their_files(dataset: Dataset, tmp_path: Path) -> None:
    first = load_dataset(f"folder:{tmp_path}/photos[n_train=4]")
    assert first.train_files == ("cat/10.png", "cat/a.png", "dog/2.png", "dog/a.png")
    images = dict(zip(dataset.train_files, dataset.train.images, strict=True))
    for file, image in zip(first.train_files, first.train.images, strict=True):
        assert torch.equal(image, images[file])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("part", ["", "train"])
@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_copy_replaces_the_images_of_the_same_names(
    dataset: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    packed: bool,
    part: str,
    ending: str,
) -> None:
    write(tmp_path / "copy", 9, ending)
    copied = tmp_path / "copy" / part
    poison, how_read = read_poison(pack(copied) if packed else copied, dataset, Reading("images"))
    assert poison.index.tolist() == list(range(6))
    assert torch.equal(poison.images, dataset.train.images + 9)
    assert how_read["labels_from"] == "the clean set"
    unread = [record.getMessage() for record in caplog.records]
    assert [": 2 files are not used (not training images)" in each for each in unread] == (
        [] if part else [True]
    )


def test_a_copy_may_cover_some_images(dataset: Dataset, tmp_path: Path) -> None:
    write(tmp_path / "copy", 9)
    for name in ("cat/10", "cat/a", "cat/b", "dog/a"):
        (tmp_path / f"copy/train/{name}.png").unlink()
    poison, _ = read_poison(tmp_path / "copy/train", dataset, Reading("images"))
    assert poison.index.tolist() == [3, 5]
    assert torch.equal(poison.images, dataset.train.images[[3, 5]] + 9)


def test_flat_numbers_are_positions(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    picture = dataset.train.images[2].permute(1, 2, 0).numpy() + 9
    Image.fromarray(picture).save(tmp_path / "flat/2.png")
    poison, _ = read_poison(tmp_path / "flat", dataset, Reading("images"))
    assert poison.index.tolist() == [2]


def test_a_file_that_is_in_no_training_set_is_named(dataset: Dataset, tmp_path: Path) -> None:
    write(tmp_path / "copy", 9)
    (tmp_path / "copy/train/cat/a.png").rename(tmp_path / "copy/train/cat/new.png")
    with pytest.raises(PoisonError) as caught:
        read_poison(tmp_path / "copy", dataset, Reading("images"))
    assert f"{caught.value}".endswith(
        "copy: 5 files are named as training images of photos, and 'train/cat/new.png' is not, or "
        "is named as another file is; rename or remove it"
    )


def test_an_ending_decides_between_files_of_one_name(dataset: Dataset, tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    picture.save(tmp_path / "photos/train/cat/a.bmp")
    twins = load_dataset(f"folder:{tmp_path}/photos")
    (tmp_path / "copy/cat").mkdir(parents=True)
    picture.save(tmp_path / "copy/cat/a.png")
    poison, _ = read_poison(tmp_path / "copy", twins, Reading("images"))
    assert [twins.train_files[i] for i in poison.index] == ["cat/a.png"]
    picture.save(tmp_path / "copy/cat/b.png")
    picture.save(tmp_path / "copy/cat/b.bmp")
    with pytest.raises(PoisonError, match=r"'cat/b.(bmp|png)' is not, or is named as another file"):
        read_poison(tmp_path / "copy", twins, Reading("images"))


def test_a_name_without_a_number_says_both_ways(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "copy/some1where.png")
    with pytest.raises(PoisonError) as caught:
        read_poison(tmp_path / "copy", dataset, Reading("images"))
    assert "<index>.png, by position in the training set, or keep the names" in f"{caught.value}"


def numbered(root: Path, change: int, per_class: int = 15) -> None:
    """Write a tree whose files are numbered over all classes: cat/0..14 and dog/15..29."""
    rng = np.random.default_rng(1)
    for part, shift in (("train", change), ("test", 0)):
        for i in range(2 * per_class):
            folder = root / part / ("cat" if i < per_class else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 240, (8, 8, 3), dtype=np.uint8) + np.uint8(shift)
            Image.fromarray(pixels).save(folder / f"{i}.png")


def test_numbers_that_may_be_names_or_positions_are_refused(tmp_path: Path) -> None:
    numbered(tmp_path / "photos", 0)
    numbered(tmp_path / "copy", 9)
    clean = load_dataset(f"folder:{tmp_path}/photos")
    named, _ = read_poison(tmp_path / "copy", clean, Reading("images"))
    assert torch.equal(named.images, clean.train.images + 9), "train/ says that names are meant"
    named, _ = read_poison(tmp_path / "copy/train", clean, Reading("images"))
    assert torch.equal(named.images, clean.train.images + 9)
    (tmp_path / "copy/train").rename(tmp_path / "classes")
    with pytest.raises(PoisonError, match="may be positions in the training set, or the names"):
        read_poison(tmp_path / "classes", clean, Reading("images"))
    (tmp_path / "flat").mkdir()
    for i, image in enumerate(clean.train.images):
        Image.fromarray((image + 9).permute(1, 2, 0).numpy()).save(tmp_path / f"flat/{i}.png")
    flat, _ = read_poison(tmp_path / "flat", clean, Reading("images"))
    assert torch.equal(flat.images, clean.train.images + 9), "flat numbers are positions"


def test_numbers_that_are_no_names_stay_positions(tmp_path: Path) -> None:
    """Class folders with positions, where only some names are those of the clean files."""
    write(tmp_path / "photos")  # cat: 10, a, b; dog: 2, a, x.y
    clean = load_dataset(f"folder:{tmp_path}/photos")
    for i, folder in ((0, "cat"), (2, "cat"), (3, "dog")):
        (tmp_path / "poison" / folder).mkdir(parents=True, exist_ok=True)
        picture = clean.train.images[i].permute(1, 2, 0).numpy() + 9
        Image.fromarray(picture).save(tmp_path / f"poison/{folder}/{i}.png")
    poison, how_read = read_poison(tmp_path / "poison", clean, Reading("images"))
    assert poison.index.tolist() == [0, 2, 3]
    assert how_read["labels_from"] == "the file"


def test_a_copy_of_the_test_images_is_no_poison(dataset: Dataset, tmp_path: Path) -> None:
    write(tmp_path / "copy", 9)
    with pytest.raises(PoisonError, match="does not say which training image it replaces"):
        read_poison(tmp_path / "copy/test", dataset, Reading("images"))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for folder in ("train/train", "train/boat", "test/train", "test/boat"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        pixels = rng.integers(0, 240, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / folder / "a.png")
    clean = load_dataset(f"folder:{tmp_path}/photos")
    (tmp_path / "copy/train").mkdir(parents=True)
    picture = clean.train.images[1].permute(1, 2, 0).numpy() + 9
    Image.fromarray(picture).save(tmp_path / "copy/train/a.png")
    poison, _ = read_poison(tmp_path / "copy", clean, Reading("images"))
    assert [clean.train_files[i] for i in poison.index] == ["train/a.png"]
