"""Loading: every format, and one sentence for what is wrong."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uebench.data import DATASETS, DatasetError, load_dataset
from uebench.data.catalog import Known

RNG = np.random.default_rng(0)
GOOD = {
    "train_images": RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
    "train_labels": np.array([0, 1, 2, 0, 1, 2]),
    "test_images": RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8),
    "test_labels": np.array([0, 1, 2]),
}


def saved(path: Path, **changes: object) -> str:
    arrays = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    np.savez(path / "data.npz", **arrays)  # type: ignore[arg-type]
    return f"npz:{path / 'data.npz'}"


def test_npz(tmp_path: Path) -> None:
    dataset = load_dataset(saved(tmp_path, class_names=np.array(["a", "b", "c"])))
    assert dataset.name == "data"
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.shape == (3, 8, 8)
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1).numpy(), GOOD["train_images"])
    assert load_dataset(saved(tmp_path)).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"test_labels": None}, "lacks test_labels"),
        ({"train_images": GOOD["train_images"].astype(float)}, "must be uint8"),
        ({"train_images": GOOD["train_images"][..., 0]}, "must be uint8 [n, h, w, 3]"),
        ({"train_images": GOOD["train_images"][:5]}, "5 train_images but 6 train_labels"),
        (
            {"train_labels": np.array([0, 1, 3, 0, 1, 3])},
            "no training image of class 2, but 1 test",
        ),
        ({"test_labels": np.array([0, 1, 3])}, "no training image of class 3, but 1 test image"),
        ({"train_labels": np.array([0, 1, -1, 0, 1, 2])}, "must lie in"),
        ({"class_names": np.array(["a", "b"])}, "train_labels holds 2"),
        ({"train_labels": GOOD["train_labels"] * 1.0}, "whole numbers"),
        ({"test_images": GOOD["test_images"][:, :4]}, "must have one size"),
        ({"train_images": np.array([None] * 6)}, "holds Python objects"),
        ({"train_labels": np.zeros(6, int), "test_labels": np.zeros(3, int)}, "at least 2"),
        ({"class_names": np.array([1, 2, 3])}, "class_names must be text"),
    ],
)
def test_bad_npz(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        load_dataset(saved(tmp_path, **changes))
    assert told in str(error.value)


def test_a_file_that_is_not_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        load_dataset(f"npz:{tmp_path}/none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DatasetError, match=r"not a readable \.npz"):
        load_dataset(f"npz:{tmp_path}/text.npz")


def tree(root: Path, parts: tuple[str, ...] = ("train", "test"), side: int = 8) -> Path:
    for part in parts:
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                array = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(array).save(root / part / name / f"{i}.png")
    return root


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val")])
def test_folder(parts: tuple[str, ...], tmp_path: Path) -> None:
    dataset = load_dataset(f"folder:{tree(tmp_path / 'pets', parts)}")
    assert dataset.name == "pets"
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    first = np.asarray(Image.open(tmp_path / "pets/train/cat/0.png"))
    assert torch.equal(dataset.train.images[0], torch.from_numpy(first.copy()).permute(2, 0, 1))


def test_folder_resizes_when_asked(tmp_path: Path) -> None:
    root = tree(tmp_path)
    Image.new("RGB", (20, 10)).save(root / "train/cat/9.png")
    with pytest.raises(DatasetError, match=r"20x10 px, others are 8x8; add \[size=N\]"):
        load_dataset(f"folder:{root}")
    assert load_dataset(f"folder:{root}[size=16]").shape == (3, 16, 16)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        load_dataset(f"folder:{tmp_path}/none")
    with pytest.raises(DatasetError, match="no train/ folder"):
        load_dataset(f"folder:{tmp_path}")
    with pytest.raises(DatasetError, match="neither a test/ nor a val/"):
        load_dataset(f"folder:{tree(tmp_path / 'a', ('train',))}")
    root = tree(tmp_path / "b")
    (root / "train/empty").mkdir()
    with pytest.raises(DatasetError, match="empty has no images"):
        load_dataset(f"folder:{root}")
    root = tree(tmp_path / "c")
    (root / "train/cat/0.png").write_text("no picture")
    with pytest.raises(DatasetError, match="not a readable image"):
        load_dataset(f"folder:{root}")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("synthetc", "did you mean synthetic"),
        ("synthetic[n_trian=5]", "did you mean n_train"),
        ("synthetic[n_train=x]", "whole number"),
        ("synthetic[n_classes=1]", "n_classes"),
        ("cifar10", "add --download to fetch it"),
        ("npz:none.npz[n_train=0]", "positive"),
    ],
)
def test_bad_names_and_options(spec: str, told: str, tmp_path: Path) -> None:
    with pytest.raises((DatasetError, KeyError)) as error:
        load_dataset(spec, data_dir=tmp_path)
    assert told in str(error.value)


def test_the_first_images_of_a_set(tmp_path: Path) -> None:
    whole = load_dataset(saved(tmp_path))
    part = load_dataset(saved(tmp_path) + "[n_train=4]")
    assert part.name == "data[n_train=4]"
    assert torch.equal(part.train.images, whole.train.images[:4])
    assert part.train.labels.tolist() == [0, 1, 2, 0]
    tidy = saved(tmp_path, train_labels=np.array([0, 0, 1, 1, 2, 2]))
    assert load_dataset(tidy + "[n_train=3]").train.labels.tolist() == [0, 1, 2]
    assert part.fingerprint != whole.fingerprint
    with pytest.raises(DatasetError, match="more than the 6"):
        load_dataset(saved(tmp_path) + "[n_train=7]")


def test_cifar10_in_torchvisions_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real reader on files in the real format; only their checksums are others."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = {}
    for file, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        pixels[file] = RNG.integers(0, 256, (10, 3072), dtype=np.uint8)
        with (folder / file).open("wb") as out:
            pickle.dump({"data": pixels[file], "labels": list(range(10))}, out)
    with (folder / "batches.meta").open("wb") as out:
        pickle.dump({"label_names": [f"class {i}" for i in range(10)]}, out)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    dataset = load_dataset("cifar10", data_dir=tmp_path)
    assert len(dataset.train) == 50
    assert dataset.class_names[3] == "class 3"
    expected = torch.from_numpy(pixels["data_batch_1"][0].reshape(3, 32, 32))
    assert torch.equal(dataset.train.images[0], expected)


def test_cifar100_in_torchvisions_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR100

    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    pixels = {}
    for file in ("train", "test"):
        fine = list(range(100))[::-1]
        pixels[file] = RNG.integers(0, 256, (100, 3072), dtype=np.uint8)
        stored = {"data": pixels[file], "fine_labels": fine, "coarse_labels": [0] * 100}
        (folder / file).write_bytes(pickle.dumps(stored))
    names = [f"fine {i}" for i in range(100)]
    stored = {"fine_label_names": names, "coarse_label_names": [f"coarse {i}" for i in range(20)]}
    (folder / "meta").write_bytes(pickle.dumps(stored))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    dataset = load_dataset("cifar100[n_test=50]", data_dir=tmp_path)
    assert dataset.name == "cifar100[n_test=50]"
    assert (len(dataset.train), len(dataset.test), dataset.n_classes) == (100, 50, 100)
    assert dataset.class_names[99] == "fine 99", "the fine labels, not the 20 coarse ones"
    assert dataset.train.labels[0] == 99
    red, green = pixels["train"][0].reshape(3, 32, 32)[:2]
    assert torch.equal(dataset.train.images[0, :2], torch.from_numpy(np.stack([red, green])))


def test_svhn_in_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matlab's files [h, w, c, n] with labels 1..10, where 10 is the digit 0."""
    scipy_io = pytest.importorskip("scipy.io")
    pixels = {}
    for part in ("train", "test"):
        pixels[part] = RNG.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
        digits = np.tile(np.arange(1, 11), 2)[:, None].astype(np.uint8)
        scipy_io.savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels[part], "y": digits})
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    dataset = load_dataset("svhn", data_dir=tmp_path)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    expected = torch.from_numpy(pixels["train"][..., 3]).permute(2, 0, 1)
    assert torch.equal(dataset.train.images[3], expected)
    assert len(dataset.test) == 20


def test_a_torchvision_set_needs_only_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNIST has the third layout, [n, h, w], and is not in the catalogue."""
    monkeypatch.setitem(DATASETS, "mnist", Known("digits", 10, (1, 28, 28), torchvision="MNIST"))
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    pixels = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), 2)
    for part in ("train", "t10k"):
        for what, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / f"{part}-{what}-ubyte").write_bytes(head + array.tobytes())
    dataset = load_dataset("mnist", data_dir=tmp_path)
    assert (dataset.shape, dataset.n_classes) == ((1, 28, 28), 10)
    assert np.array_equal(dataset.train.images[:, 0], pixels)
    assert dataset.test.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("name", ["cifar100", "svhn"])
def test_a_torchvision_set_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{name} is not in .*; add --download to fetch it"):
        load_dataset(name, data_dir=tmp_path)


def test_a_folder_of_one_size_reads_the_same_as_its_files(tmp_path: Path) -> None:
    root = tree(tmp_path)
    dataset = load_dataset(f"folder:{root}[size=4]")
    with Image.open(root / "test/dog/1.png") as image:
        small = np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR))
    assert torch.equal(dataset.test.images[3], torch.from_numpy(small.copy()).permute(2, 0, 1))


def test_chance_is_the_share_of_the_largest_class_of_the_test_set(tmp_path: Path) -> None:
    dataset = load_dataset(saved(tmp_path, test_labels=np.array([0, 2, 2])))
    assert dataset.chance == pytest.approx(2 / 3)


def test_arrays_that_do_not_fit_into_the_memory_are_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_MEMORY", "0.001")
    with pytest.raises(DatasetError, match=r"unpacked it takes 2,\d+ bytes, and there are 1,048"):
        load_dataset(saved(tmp_path))


def test_simple_images_and_other_members_are_no_reason_to_refuse_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "shapes.npz"
    images = np.zeros((24_000, 32, 32, 3), np.uint8)  # 74 MB that compress 1000 to 1
    images[::2, 8:24, 8:24] = 200
    labels = np.arange(len(images)) % 2
    arrays = {"train_images": images, "train_labels": labels}
    arrays |= {"test_images": images[:10], "test_labels": labels[:10]}
    np.savez_compressed(path, **arrays, config=np.array({"n": 2}, dtype=object))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("README.txt", "two shapes")
    data = load_dataset(f"npz:{path}[n_train=10]")
    assert data.train.class_sizes == [5, 5]
    few = {key: value[:20] for key, value in arrays.items()}
    np.savez(path, **few, class_names=np.array(["square", "none"], dtype=object))
    with pytest.raises(
        DatasetError, match=r"npz: 'class_names' holds Python objects, .*or of text"
    ):
        load_dataset(f"npz:{path}")
    np.savez(path, **(few | {"train_labels": labels[:7]}))
    with pytest.raises(
        DatasetError, match="20 train_images but 7 train_labels; each image needs one"
    ):
        load_dataset(f"npz:{path}")


def test_a_folder_or_a_poison_in_the_place_of_a_data_set_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    with pytest.raises(DatasetError, match="photos is a path; write folder:photos for a folder"):
        load_dataset("photos")
    Path("mini-imagenet").mkdir()
    with pytest.raises(DatasetError, match="imagenet"):
        load_dataset("mini-imagenet")
    with pytest.raises(ValueError, match="does not begin with a name"):
        load_dataset("a" * 300)
    Path("synthetic").mkdir()
    assert load_dataset("synthetic[n_train=20,n_test=10]").name.startswith("synthetic")
    np.savez("poison.npz", images=GOOD["train_images"])
    with pytest.raises(DatasetError, match=r"if it is a poison, give its clean data set here and"):
        load_dataset("npz:poison.npz")
