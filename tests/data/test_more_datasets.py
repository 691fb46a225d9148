"""STL-10, Tiny ImageNet and mini-ImageNet in the layouts in which they are published."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uebench.data import DATASETS, DatasetError, folders, load_dataset
from uebench.learn.protocol import named_protocol

RNG = np.random.default_rng(0)
CLASSES = ("n01443537", "n02056570", "n04067472")


def picture(side: int = 64) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """Tiny ImageNet with three classes: images/ in each class, and a list of the test images."""
    root = tmp_path / "tiny-imagenet-200"
    for name in CLASSES:
        folder = root / "train" / name
        (folder / "images").mkdir(parents=True)
        (folder / f"{name}_boxes.txt").write_text("n_0.png\t0\t0\t63\t63\n")
        for i in range(3):
            picture().save(folder / "images" / f"{name}_{i}.png")
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for i, name in enumerate((CLASSES[2], CLASSES[0], CLASSES[2], CLASSES[1])):
        Image.fromarray(np.full((64, 64, 3), 10 * i, np.uint8)).save(
            root / "val" / "images" / f"val_{i}.png"
        )
        lines.append(f"val_{i}.png\t{name}\t0\t0\t63\t63")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def test_tiny_imagenet_finds_the_classes_of_its_test_images_in_a_list(
    tiny_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_dataset("tiny_imagenet", data_dir=tiny_root.parent)
    assert dataset.class_names == CLASSES
    assert dataset.shape == (3, 64, 64)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.test.labels.tolist() == [0, 1, 2, 2]
    assert dataset.test.images[:, 0, 0, 0].tolist() == [10, 30, 0, 20]
    with Image.open(tiny_root / "train" / CLASSES[1] / "images" / f"{CLASSES[1]}_0.png") as first:
        assert np.array_equal(dataset.train.images[3].permute(1, 2, 0), np.asarray(first))
    assert "boxes" not in caplog.text, "its list of boxes is not a stray file"
    few = load_dataset("tiny_imagenet[n_train=3,n_test=2]", data_dir=tiny_root)
    assert few.train.labels.tolist() == [0, 1, 2]
    assert few.name == "tiny_imagenet[n_train=3,n_test=2]"


def test_tiny_imagenet_is_decoded_once(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset("tiny_imagenet", data_dir=tiny_root)
    monkeypatch.setattr(folders, "read_image", lambda *_, **__: pytest.fail("decoded again"))
    again = load_dataset("tiny_imagenet", data_dir=tiny_root)
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.test.images, first.test.images)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.png\tn999\t0", r"line 1: the class n999 does not exist; unpack the data set again"),
        ("val_9.png\tn02056570\t0", r"line 1: .*val_9.png does not exist"),
        ("../../train/x.png\tn02056570\t0", r"val/images/x.png does not exist"),
        ("no tabs", r"line 1: the class  does not exist"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(line: str, message: str, tiny_root: Path) -> None:
    (tiny_root / "val" / "val_annotations.txt").write_text(line + "\n")
    with pytest.raises(DatasetError, match=message):
        load_dataset("tiny_imagenet", data_dir=tiny_root)


def test_mini_imagenet_is_a_tree_whose_images_are_cropped_and_resized(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in CLASSES[:2]:
            folder = tmp_path / "mini-imagenet" / part / name
            folder.mkdir(parents=True)
            pixels = np.zeros((40, 60, 3), np.uint8)
            pixels[:, 10:50] = 200
            Image.fromarray(pixels).save(folder / "0.png")
    dataset = load_dataset("mini_imagenet", data_dir=tmp_path)
    assert dataset.shape == (3, 84, 84)
    assert (dataset.train.images[0, :, :, 1:-1] == 200).all(), "the whole centre square"
    assert load_dataset("mini_imagenet[size=32]", data_dir=tmp_path).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "needed"),
    [("tiny_imagenet", "val/val_annotations.txt"), ("mini_imagenet", "mini-imagenet/test/")],
)
def test_a_folder_that_is_not_there_is_described(name: str, needed: str, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match=f"{name} is not in .* give --data-dir .*{needed}"):
        load_dataset(name, data_dir=tmp_path)


def test_stl10_in_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binary files of columns, [n, c, w, h], with labels from 1."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = RNG.integers(0, 256, (10, 3, 96, 96), dtype=np.uint8)
    for part in ("train", "test"):
        pixels.tofile(folder / f"{part}_X.bin")
        np.arange(1, 11, dtype=np.uint8).tofile(folder / f"{part}_y.bin")
    (folder / "fold_indices.txt").write_text("")
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda *_: True)
    dataset = load_dataset("stl10", data_dir=tmp_path)
    assert dataset.shape == DATASETS["stl10"].shape
    assert dataset.class_names == DATASETS["stl10"].class_names
    assert dataset.train.labels.tolist() == list(range(10))
    assert torch.equal(dataset.train.images[4], torch.from_numpy(pixels[4].transpose(0, 2, 1)))


@pytest.mark.parametrize("name", ["tiny_imagenet", "mini_imagenet", "stl10"])
def test_the_catalogue_knows_them(name: str) -> None:
    assert DATASETS[name].shape is not None
    assert named_protocol("paper", name).epochs == DATASETS[name].paper_epochs
    with pytest.raises(ValueError, match=f"{name} has no option pixels"):
        load_dataset(f"{name}[pixels=3]")
