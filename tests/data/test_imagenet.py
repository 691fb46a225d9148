"""ImageNet-subset from a tree in ImageNet's form: which images, their crop, and one decoding."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from uebench.cells.cell import dataset_ref
from uebench.cells.config import make_config
from uebench.cli import main
from uebench.data import Dataset, DatasetError, folders, imagenet, load_dataset
from uebench.learn.protocol import named_protocol
from uebench.store.store import Store
from uebench.suite import verify

CLASSES = ("n01440764", "n01443537", "n01484850")
SPEC = "imagenet_subset[n_classes=3,size=16]"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of JPEG files of many sizes, five to train on and two to test on."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 5), ("val", 2)):
        for name in reversed(CLASSES):
            folder = tmp_path / "imagenet" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                height, width = rng.integers(20, 60, 2)
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{i}.JPEG")
    return tmp_path / "imagenet"


def test_the_first_classes_are_read_in_the_order_of_their_names(root: Path) -> None:
    dataset = load_dataset("imagenet_subset[n_classes=2,size=16]", data_dir=root)
    assert dataset.name == "imagenet_subset[n_classes=2,size=16]"
    assert dataset.class_names == CLASSES[:2]
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.shape == (3, 16, 16)
    assert load_dataset(SPEC, data_dir=root.parent).n_classes == 3, "imagenet/ is found in a folder"


def test_the_crop_is_the_centre_square_of_seven_eighths(tmp_path: Path) -> None:
    """Of 64x32 px the 28x28 px in the middle remain: columns 18 to 46, rows 2 to 30."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[2:30, 18:46] = 200
    pixels[2:30, 18:32, 0] = 90
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / part / name / "0.png")
    dataset = load_dataset("imagenet_subset[n_classes=2,size=28]", data_dir=tmp_path)
    image = dataset.train.images[0]
    assert (image[1:] == 200).all(), "nothing of the border, all of the inside"
    assert (image[0, :, :14] == 90).all()
    assert (image[0, :, 14:] == 200).all()


def test_it_is_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(SPEC, data_dir=root)
    calls = []
    whole = folders.read_image
    monkeypatch.setattr(folders, "read_image", lambda path, **_: calls.append(path) or whole(path))
    again = load_dataset(SPEC, data_dir=root)
    assert not calls
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.test.images, first.test.images)
    changed = root / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    Image.new("RGB", (40, 40), "red").save(changed)
    other = load_dataset(SPEC, data_dir=root)
    assert calls, "a changed file is read"
    assert other.fingerprint != first.fingerprint
    assert len(list((Store().base / "dataset").iterdir())) == 2


def test_a_plan_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "read_image", lambda path, **_: pytest.fail(f"{path} is read"))
    matrix = ["--dataset", SPEC, "--data-dir", str(root), "--device", "cpu", "--epochs", "1"]
    matrix += ["--attacks", "none,lsp", "--defenses", "standard", "--arch", "resnet8[width=8]"]
    for verb in (["run", "--dry-run"], ["table", "2"]):
        done = CliRunner().invoke(main, [*verb, *matrix])
        assert done.exit_code == 0, done.output
    assert "2 cells, 2 to do" in CliRunner().invoke(main, ["run", "--dry-run", *matrix]).stdout
    assert not list(Store().root.rglob("*")), "nothing is written"
    outline = load_dataset(SPEC, data_dir=root, outline=True)
    assert (len(outline.train), len(outline.test), outline.shape) == (15, 6, (3, 16, 16))
    with pytest.raises(NotImplementedError):
        outline.train.to("cpu")
    config = make_config({"dataset": [SPEC, "synthetic[n_train=40,n_test=20]"]})
    row = {"dataset": "synthetic[n_train=40,n_test=20]", "precision": "fp32", "key": ""}
    _, datasets = verify._planned(config, [row], {}, "cpu", str(root))
    assert [each.name for each in datasets] == [row["dataset"]]


def test_a_plan_knows_what_was_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_dataset(SPEC, data_dir=root)
    monkeypatch.setattr(imagenet, "stored_dataset", lambda *_: pytest.fail("20 GB are read"))
    outline = load_dataset(SPEC, data_dir=root, outline=True)
    assert outline.fingerprint == whole.fingerprint
    assert dataset_ref(outline) == dataset_ref(whole)
    assert torch.equal(outline.train.labels, whole.train.labels)
    listed = CliRunner().invoke(main, ["store", "ls", "--kind", "decoded", "--json"])
    (row,) = json.loads(listed.stdout)
    assert (row["kind"], row["what"]) == ("decoded", SPEC)
    pruned = ["store", "prune", "--kind", "decoded", "--yes", "--json"]
    (row,) = json.loads(CliRunner().invoke(main, pruned).stdout)["entries"]
    assert row["kind"] == "decoded"
    assert not list((Store().base / "decoded").iterdir())


def test_a_spoiled_entry_is_decoded_again(root: Path) -> None:
    first = load_dataset(SPEC, data_dir=root)
    path = Store().path("dataset", first.fingerprint) / "data.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert load_dataset(SPEC, data_dir=root).fingerprint == first.fingerprint


def test_some_images_of_each_class(root: Path) -> None:
    dataset: Dataset = load_dataset(SPEC[:-1] + ",n_train=4,n_test=3]", data_dir=root)
    assert dataset.train.labels.tolist() == [0, 0, 1, 2]
    assert dataset.test.labels.tolist() == [0, 1, 2]
    with pytest.raises(DatasetError, match="n_train=16 is more than the 15 images"):
        load_dataset(SPEC[:-1] + ",n_train=16]", data_dir=root)


def test_its_protocol_crops_no_more(root: Path) -> None:
    made = named_protocol("paper", "imagenet_subset")
    assert (made.crop_padding, made.flip, made.epochs) == (0, True, 300)
    assert made.name == "paper"
    assert named_protocol("paper", "cifar10").crop_padding == 4


def test_what_is_missing_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"give --data-dir DIR .* cannot be downloaded"):
        load_dataset("imagenet_subset", data_dir=tmp_path / "none")
    with pytest.raises(DatasetError, match=r"has 3 class folders, 100 are needed.*n_classes=3"):
        load_dataset("imagenet_subset", data_dir=root)
    with pytest.raises(DatasetError, match="did you mean n_classes"):
        load_dataset("imagenet_subset[n_class=3]", data_dir=root)
    (root / "train" / CLASSES[1] / "z.jpeg").write_text("no picture")
    with pytest.raises(DatasetError, match=r"z\.jpeg is not a readable image"):
        load_dataset(SPEC, data_dir=root)
    (root / "val" / CLASSES[2]).rename(root / "val" / "other")
    with pytest.raises(DatasetError, match=f"{CLASSES[2]} has no images"):
        load_dataset(SPEC, data_dir=root)


def test_the_command_line_says_it_in_one_sentence(tmp_path: Path) -> None:
    given = ["--dataset", "imagenet_subset", "--data-dir", str(tmp_path), "--out", "none.npz"]
    done = CliRunner().invoke(main, ["craft", "lsp", *given])
    assert done.exit_code == 2
    assert "as ImageNet has them" in " ".join(done.output.split())
