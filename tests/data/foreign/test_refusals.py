"""What is refused is refused for a reason that is true of the file, with the way out."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.foreign.helpers import DATA, IMAGES, N
from uebench.data.foreign import read_poison
from uebench.data.poison import PoisonError

X = IMAGES.permute(0, 2, 3, 1).numpy()


def zipped(path: Path, inner: str, write: Callable[[Path], object]) -> None:
    write(path.parent / inner)
    with zipfile.ZipFile(path, "w") as file:
        file.write(path.parent / inner, inner)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "network.pt": (
        lambda p: torch.save(torch.nn.Linear(3, 2), p),
        r"asks for 'torch\.nn\.modules\.linear\.Linear', and only arrays, .* save the arrays",
    ),
    "weights.pt": (
        lambda p: torch.save(torch.nn.BatchNorm2d(3).state_dict(), p),
        r"no array of images .* it has 'weight' float32 \[3\], 'bias'",
    ),
    "complex.pt": (
        lambda p: torch.save(IMAGES.to(torch.complex64), p),
        r"a tensor of a kind that is not read \('ComplexFloatStorage'\)",
    ),
    "sparse.pt": (lambda p: torch.save(IMAGES.to_sparse(), p), "'_rebuild_sparse_tensor'"),
    "uint16.pt": (lambda p: torch.save(IMAGES.to(torch.uint16), p), "wide unsigned"),
    "object.npy": (
        lambda p: np.save(p, {"x": X}),  # type: ignore[arg-type]
        "holds Python objects, which are not read",
    ),
    "complex.npy": (lambda p: np.save(p, X.astype(complex)), "'complex128' values"),
    "text.npz": (lambda p: np.savez(p, names=["a"]), r"no arrays of numbers; not read: 'names'"),
    "objects.npz": (
        lambda p: np.savez(p, images=np.array([*X, None], dtype=object)),
        r"no arrays of numbers; not read: 'images' \(Python objects\)",
    ),
    "large.npz": (
        lambda p: np.savez_compressed(p, x=X, more=np.zeros((200, 32, 32, 3))),
        "holds 4,9.* bytes; .* save the poison alone, or give the data set",
    ),
    "torch.zip": (
        lambda p: zipped(p, "q.pt", lambda q: torch.save(IMAGES, q)),
        r"no images named <index>\.png, .*; it has 'q\.pt'; give .* one file of arrays",
    ),
    "empty.npz": (lambda p: np.savez(p), "it has nothing"),
    "lists.pkl": (
        lambda p: p.write_bytes(pickle.dumps(X[:, :2, :2].tolist())),
        r"it has no arrays of numbers; not read: '0\.0' \(list of 2\)",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns that sparse tensors are beta
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_true_of_the_file(name: str, tmp_path: Path) -> None:
    write, sentence = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(PoisonError, match=f"(?i){sentence}"):
        read_poison(tmp_path / name, DATA)


def test_numpy_arrays_in_a_file_of_torch_are_read(tmp_path: Path) -> None:
    for name, content in {
        "array.pt": X,
        "float.pt": X.astype(np.float32) / np.float32(255),
        "fortran.pt": np.asfortranarray(X),
        "number.pt": {"x": IMAGES, "accuracy": np.float64(91.5), "epochs": np.int64(3)},
        "list.pt": list(X),
        "dict.pt": {"x": X, "noise_type": "sample"},
    }.items():
        torch.save(content, tmp_path / name)
        poison, _ = read_poison(tmp_path / name, DATA)
        assert torch.equal(poison.images, IMAGES), name
        assert len(poison) == N
