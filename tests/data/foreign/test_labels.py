"""Labels next to a foreign poison are read in every common form, or named as not used."""

import argparse
import collections
import logging
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import TensorDataset

from tests.conftest import random_dataset
from tests.data.foreign.helpers import DATA, IMAGES, N, write_pngs
from uebench.data.foreign import Reading, read_poison
from uebench.data.poison import PoisonError
from uebench.data.poison_files import audit_poison
from uebench.store.store import Store
from uebench.suite.import_poison import import_poison

X = IMAGES.permute(0, 2, 3, 1).numpy()
FLIPPED = DATA.train.labels.clone()
FLIPPED[[0, 3, 4]] = 1 - FLIPPED[[0, 3, 4]]
Y = FLIPPED.numpy()
ONE_HOT = np.eye(2)[Y]


def dump(content: Any, protocol: int = 4) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pickle.dumps(content, protocol)) and None


def save(content: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path, **options)


def savez(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


OLD = {"_use_new_zipfile_serialization": False}
FORMS: dict[str, Callable[[Path], None]] = {
    "labels.npz": savez(images=X, labels=Y),
    "y_train.npz": savez(x_train=X, y_train=Y),
    "train_labels.npz": savez(train_images=X, train_labels=Y),
    "test_too.npz": savez(x_train=X, y_train=Y, x_test=X[:4, :2], y_test=Y[:4]),
    "Y.npz": savez(X=X, Y=Y),
    "column.npz": savez(data=X, targets=Y[:, None]),
    "one_hot.npz": savez(data=X, label=ONE_HOT),
    "one_hot_int.npz": savez(data=X, poison_labels=ONE_HOT.astype(np.uint8)),
    "uint8.npz": savez(data=X, fine_labels=Y.astype(np.uint8), coarse_labels=Y * 0),
    "several.npz": savez(data=X, original_labels=1 - Y, labels=Y),
    "big_endian.npz": savez(data=X, labels=Y.astype(">i4")),
    "tensors.safetensors": lambda path: save_file({"images": IMAGES, "target": FLIPPED}, path),
    "list.pt": save({"data": IMAGES, "targets": Y.tolist()}),
    "numpy_list.pt": save({"data": IMAGES, "targets": list(Y)}),
    "tensor_list.pt": save({"data": IMAGES, "targets": [*FLIPPED]}),
    "copied_list.pt": save({"data": IMAGES, "targets": [torch.tensor(int(y)) for y in Y]}),
    "old.pt": save({"data": IMAGES, "targets": [*FLIPPED]}, **OLD),
    "pair.pt": save((IMAGES, FLIPPED)),
    "pair_of_lists.pt": save([IMAGES, Y.tolist()]),
    "pairs.pt": save([(image.clone(), int(y)) for image, y in zip(IMAGES, Y, strict=True)]),
    "pairs_of_tensors.pt": save(list(zip(IMAGES, FLIPPED, strict=True))),
    "dataset.pt": save(TensorDataset(IMAGES, FLIPPED)),
    "nested.pt": save(
        {"train": {"x": IMAGES, "y": FLIPPED}, "test": {"x": IMAGES[:4, :1], "y": FLIPPED[:4]}}
    ),
    "ints.pkl": dump({"data": X, "labels": list(Y)}),
    "ints0.pkl": dump({"data": X, "labels": list(Y)}, 0),
    "ints5.pkl": dump({"data": X, "labels": tuple(Y)}, 5),
    "bytes.pkl": dump({b"data": X, b"labels": Y.tolist()}, 2),
    "cifar.pkl": dump({b"data": IMAGES.flatten(1).numpy(), b"labels": Y.tolist()}, 2),
    "pairs.pkl": dump([(x, y) for x, y in zip(X, Y, strict=True)]),
    "pair.pkl": dump((X, Y)),
    "tensors.pkl": dump({"data": IMAGES, "labels": FLIPPED}),
    "tensors2.pkl": dump({"data": IMAGES, "labels": [*FLIPPED]}, 2),
    "more.pt": save(
        {
            "data": IMAGES,
            "labels": FLIPPED,
            "weights": torch.nn.BatchNorm2d(3).state_dict(),
            "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")),
            "log": collections.defaultdict(list, {"loss": [0.5]}),
            "about": [torch.float32, torch.Size([3]), {1}, slice(2), 1j, np.float64(91.5)],
        }
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_labels_of_every_form_are_read(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FORMS[name](tmp_path / name)
    poison, reading = read_poison(tmp_path / name, DATA)
    assert torch.equal(poison.images, IMAGES)
    assert torch.equal(poison.labels, FLIPPED)
    assert reading["labels_from"] == "the file"
    assert audit_poison(poison, DATA)["labels_differ"] == 3
    others = {"several.npz": "original_labels", "uint8.npz": "coarse_labels"}
    if name in others:
        assert others[name] in caplog.text


UNUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "groups.npz": (savez(data=X, groups=Y), "'groups' int64 [12]"),
    "soft.npz": (savez(data=X, mixed_labels=ONE_HOT / 2), "'mixed_labels' float64 [12, 2]"),
    "short.npz": (savez(data=X, noisy_labels=Y[:5]), "'noisy_labels' int64 [5]"),
    "objects.npz": (savez(data=X, labels=np.array([*Y, None])[:-1]), "'labels' (Python objects)"),
    "text.npz": (savez(data=X, labels=np.array(["cat"] * N)), "'labels' (<U3)"),
    "three.pt": (save((IMAGES, FLIPPED, torch.arange(N))), "'1' int64 [12], '2' int64 [12]"),
    "text.pt": (save({"data": IMAGES, "labels": ["cat"] * N}), "'labels' (list of 12)"),
    "dict.pkl": (dump({"data": X, "labels": dict(enumerate(map(str, Y)))}), "(dict of 12)"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_may_have_been_labels_is_named(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write, words = UNUSED[name]
    write(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        poison, reading = read_poison(tmp_path / name, DATA)
    assert torch.equal(poison.images, IMAGES)
    assert reading["labels_from"] == "the clean set"
    assert words in caplog.text
    assert name in caplog.text
    assert words in ", ".join(reading["not_used"])


def test_what_lies_next_to_pictures_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pngs(tmp_path / "p")
    np.save(tmp_path / "p" / "labels.npy", Y)
    _, reading = read_poison(tmp_path / "p", DATA)
    assert reading["not_used"] == ["'labels.npy' (a file)"]
    assert "labels.npy" in caplog.text
    text = "index,label\n" + "".join(f"{i},{y}\n" for i, y in enumerate(Y))
    (tmp_path / "p" / "labels.csv").write_text(text, encoding="utf-8-sig")  # as Excel saves it
    poison, _ = read_poison(tmp_path / "p", DATA)
    assert torch.equal(poison.labels, FLIPPED)


@pytest.mark.parametrize("labels", [Y + 1, Y - 1, Y + 2**40])
def test_labels_that_are_no_classes_are_refused(labels: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", data=X, labels=labels)
    with pytest.raises(PoisonError, match=r"'labels' holds classes .*; those of random are 0\.\.1"):
        read_poison(tmp_path / "p.npz", DATA)


def test_labels_that_are_not_in_the_file_do_not_agree(tmp_path: Path, store: Store) -> None:
    np.save(tmp_path / "p.npy", X)
    meta = import_poison(tmp_path / "p.npy", DATA, "x", store=store).meta
    assert (meta["labels_from"], meta["labels_differ"]) == ("the clean set", None)


def test_a_list_of_fifty_thousand_numpy_integers_is_no_list_of_pixels(tmp_path: Path) -> None:
    data = random_dataset([3000, 3000], (4, 4))
    images = (data.train.images ^ 1).permute(0, 2, 3, 1).numpy()
    labels = list(np.arange(6000) % 2)
    content = {"data": images, "labels": labels, "more": [np.int64(i) for i in range(30_000)]}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(content))
    poison, _ = read_poison(tmp_path / "p.pkl", data)
    assert poison.labels.tolist() == labels


def sorted_by_class(kind: str) -> dict[str, np.ndarray]:
    order = DATA.train.labels.argsort(stable=True)
    images = IMAGES[order] if kind == "images" else (IMAGES.int() - DATA.train.images.int())[order]
    return {"x": images.numpy(), "labels": DATA.train.labels[order].numpy()}


@pytest.mark.parametrize("kind", ["images", "deltas"])
def test_another_order_is_called_so_and_not_imported(
    kind: str, tmp_path: Path, store: Store
) -> None:
    np.savez(tmp_path / "p.npz", **sorted_by_class(kind))
    poison, _ = read_poison(tmp_path / "p.npz", DATA, Reading(kind=kind))  # type: ignore[arg-type]
    audit = audit_poison(poison, DATA)
    assert audit["labels_differ"] == int((poison.labels != DATA.train.labels).sum()) >= 5
    assert not audit["usable"]
    assert "in another order" in audit["why_not_usable"]
    with pytest.raises(PoisonError, match="in another order"):
        import_poison(tmp_path / "p.npz", DATA, "x", kind=kind, store=store)  # type: ignore[arg-type]
    np.savez(tmp_path / "few.npz", x=X, labels=Y)
    few, _ = read_poison(tmp_path / "few.npz", DATA)
    assert audit_poison(few, DATA)["usable"]


def test_an_npz_may_hold_more_than_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", data=X, args=np.array({"lr": 0.1}, dtype=object), acc=91.5)
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as file:
        file.writestr("README.txt", "how it was made")
    poison, reading = read_poison(tmp_path / "p.npz", DATA)
    assert torch.equal(poison.images, IMAGES)
    assert reading["not_used"] == ["'args' (Python objects)", "'README.txt' (not an array)"]
