"""Arrays from outside become what the suite computes with, or are refused with the remedy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import uebench
from tests.conftest import make_run, random_dataset
from uebench import Poison, Split
from uebench.data import DatasetError, from_arrays
from uebench.data.poison import PoisonError, check_fits, tensors_sha256
from uebench.methods import registry

DATA = random_dataset([6, 6], (8, 10))
TRAIN = DATA.train
N = len(TRAIN)
IMAGES, LABELS, INDEX = TRAIN.images, TRAIN.labels, torch.arange(N)
SHA256 = tensors_sha256(Poison(IMAGES, LABELS, INDEX))

SAME: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "numpy": lambda: (IMAGES.numpy(), LABELS.numpy(), INDEX.numpy()),
    "lists of numbers": lambda: (IMAGES, LABELS.tolist(), list(range(N))),
    "numpy integers in a list": lambda: (IMAGES, list(LABELS.numpy()), range(N)),
    "short integers": lambda: (IMAGES, LABELS.to(torch.int8), INDEX.numpy().astype(np.uint16)),
    "the other byte order": lambda: (IMAGES, LABELS.numpy().astype(">i4"), INDEX),
    "permuted": lambda: (
        IMAGES.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        torch.stack([LABELS, LABELS], 1)[:, 0],
        torch.arange(2 * N)[::2] // 2,
    ),
    "reversed twice": lambda: (IMAGES.numpy()[::-1].copy()[::-1], LABELS, INDEX),
    "read-only": lambda: (np.broadcast_to(IMAGES.numpy(), IMAGES.shape), LABELS, INDEX),
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_numbers_in_another_form_are_the_same_poison(form: str) -> None:
    poison = Poison(*SAME[form]())
    assert torch.equal(poison.images, IMAGES)
    assert torch.equal(poison.labels, LABELS)
    assert torch.equal(poison.index, INDEX)
    assert poison.images.is_contiguous(), "convolutions take other kernels for another layout"
    assert tensors_sha256(poison) == SHA256
    images, labels, _ = SAME[form]()
    split = Split(images, labels, list(TRAIN.class_names))  # type: ignore[arg-type]
    assert torch.equal(split.images, IMAGES)
    assert torch.equal(split.labels, LABELS)
    assert split.class_names == TRAIN.class_names


WRONG_IMAGES: dict[str, tuple[Any, str]] = {
    "floats in [0, 1]": (IMAGES / 255, r"float32 .* from 0 to 1; give .*255 \* .*\.round\(\)"),
    "numpy floats": (IMAGES.numpy() / 255, r"float64 .* to 1; give .*\.astype\(np\.uint8\)"),
    "float levels": (IMAGES.float(), r"float32 .* from 0 to 255; give .*\.round\(\)"),
    "normalised": (IMAGES / 255 * 4 - 2, "undo the normalisation"),
    "NaN": (torch.full(IMAGES.shape, torch.nan), "NaN or infinite"),
    "wrapped int8": (IMAGES.to(torch.int8), r"int8 .* from -128 to 127; .*\.view\(torch\.uint8\)"),
    "int64": (IMAGES.long(), r"int64 .* from 0 to 255; give .*\.to\(torch\.uint8\)"),
    "out of range": (IMAGES.long() + 1, "int64 .* from 1 to 256; .* outside 0..255"),
    "bool": (IMAGES > 100, "bool"),
    "channels last": (IMAGES.permute(0, 2, 3, 1), r"8, 10, 3\]; give .*permute\(0, 3, 1, 2\)"),
    "numpy floats channels last": (
        IMAGES.permute(0, 2, 3, 1).numpy() / 255,
        r"uint8 \[n, c, h, w\] .* to 1; give \(255 \* images\)\.round\(\)\.astype\(np\.uint8\)"
        r"\.transpose\(0, 3, 1, 2\)$",
    ),
    "numpy channels last": (IMAGES.permute(0, 2, 3, 1).numpy(), r"transpose\(0, 3, 1, 2\)"),
    "one image": (IMAGES[0], r"\[3, 8, 10\]"),
    "flat": (IMAGES.flatten(1), r"\[12, 240\]"),
    "grey without a channel": (IMAGES[:, 0], r"\[12, 8, 10\]"),
    "text": (["a"] * N, "numbers are needed"),
    "ragged": ([[1, 2], [3]], "numbers are needed|one array"),
    "None": (None, "numbers are needed"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_IMAGES)
def test_images_that_are_not_8_bit_nchw_are_refused(what: str) -> None:
    images, sentence = WRONG_IMAGES[what]
    for build in (
        lambda: Poison(images, LABELS, INDEX),
        lambda: Split(images, LABELS, TRAIN.class_names),
        lambda: TRAIN.with_images(images),
    ):
        with pytest.raises(ValueError, match=sentence):
            build()


ONE_HOT = torch.nn.functional.one_hot(LABELS)
WRONG_LABELS: dict[str, tuple[Any, str]] = {
    "too few": (LABELS[:5], r"12 whole numbers, one per image, got int64 \[5\]"),
    "floats": (LABELS.float(), r"got float32 \[12\]"),
    "bool": (LABELS > 0, r"got bool \[12\]"),
    "one-hot": (ONE_HOT, r"\[12, 2\]; give labels.argmax\(1\)"),
    "a column": (LABELS[:, None], r"\[12, 1\]; give labels.flatten\(\)"),
    "negative": (LABELS - 1, "counted from 0, got -1|hold -1"),
}


@pytest.mark.parametrize("what", WRONG_LABELS)
def test_labels_that_are_not_classes_are_refused(what: str) -> None:
    labels, sentence = WRONG_LABELS[what]
    with pytest.raises(ValueError, match=sentence):
        Poison(IMAGES, labels, INDEX)
    with pytest.raises(ValueError, match=sentence):
        Split(IMAGES, labels, TRAIN.class_names)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hold 2; with 2 classes .* 0\.\.1"):
        Split(IMAGES, LABELS + 1, TRAIN.class_names)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (INDEX - 5, "counted from 0, got -5"),
        (INDEX // 2, "training image 0 twice"),
        (INDEX[:5], r"12 whole numbers, one per image, got int64 \[5\]"),
        (INDEX.double(), "got float64"),
        (IMAGES[:, 0, 0, 0] > 100, "got bool"),
    ],
)
def test_an_index_names_each_training_image_once(index: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Poison(IMAGES, LABELS, index)


def test_a_poison_must_fit_its_training_set() -> None:
    check_fits(Poison(IMAGES[:3], LABELS[:3], INDEX[:3]), TRAIN, "random")
    for poison, sentence in (
        (Poison(IMAGES, LABELS, INDEX + 1), "index reaches 12, random has 12 training images"),
        (Poison(IMAGES[..., :8], LABELS, INDEX), r"\[3, 8, 8\], those of random \[3, 8, 10\]"),
        (Poison(IMAGES[:0], LABELS[:0], INDEX[:0]), "no images"),
    ):
        with pytest.raises(PoisonError, match=sentence):
            check_fits(poison, TRAIN, "random")


@pytest.mark.parametrize("rows", [[4, 1], np.array([4, 1]), torch.tensor([4, 1])])
def test_parts_of_a_split_are_named_by_any_list_of_positions(rows: Any) -> None:
    part = TRAIN.subset(rows)
    assert torch.equal(part.images, IMAGES[[4, 1]])
    assert part.labels.tolist() == LABELS[[4, 1]].tolist()
    assert torch.equal(TRAIN.take(rows), IMAGES[[4, 1]])


def test_a_mask_chooses_rows_wherever_the_images_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = LABELS == 1
    monkeypatch.setenv("UEBENCH_MEMORY", "0.001")  # so that rows are gathered in chunks
    for chosen in (mask, mask.numpy(), mask.tolist()):
        assert torch.equal(TRAIN.subset(chosen).images, IMAGES[mask])
        assert TRAIN.subset(chosen).labels.tolist() == [1] * 6


NHWC = IMAGES.permute(0, 2, 3, 1)


def test_a_data_set_is_built_from_tensors_and_lists() -> None:
    pair = (NHWC, LABELS)
    for train in (pair, (NHWC.numpy(), LABELS.tolist()), (NHWC, list(LABELS.numpy()))):
        assert (
            from_arrays("x", train, pair, None).fingerprint
            == from_arrays(
                "x", (NHWC.numpy(), LABELS.numpy()), (NHWC.numpy(), LABELS.numpy()), None
            ).fingerprint
        )
    for images, sentence in (
        (IMAGES, r"uint8 \[12, 3, 8, 10\]; give images.transpose\(0, 2, 3, 1\)"),
        (NHWC / 255, r"float32 \[12, 8, 10, 3\] from 0 to 1; give \(255 \* images\)"),
        (NHWC.to(torch.int8), r"int8 .*\.view\(np\.uint8\)"),
    ):
        with pytest.raises(DatasetError, match=sentence):
            from_arrays("x", (images, LABELS), pair, None)
    with pytest.raises(DatasetError, match=r"labels\.argmax\(1\)"):
        from_arrays("x", (NHWC, ONE_HOT), pair, None)


def test_public_functions_take_arrays_where_they_take_tensors() -> None:
    dataset = random_dataset([5, 5], (16, 16))
    pixels = dataset.train.pixels()
    arrays = pixels.double().numpy(), np.array([3, 1])  # numpy makes float64 of most numbers
    run = make_run(dataset, seed=1)
    model = run.network("resnet9[width=2]").eval()
    budget: Any = {"norm": "linf", "eps": 8 / 255, "step": 1 / 255, "steps": 2, "towards": "max"}

    def rng() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    for of_tensor, of_array in (
        (uebench.penultimate(model, pixels), uebench.penultimate(model, arrays[0])),
        (uebench.crop_flip(pixels, rng()), uebench.crop_flip(arrays[0], rng())),
        (uebench.Policy("p+c")(pixels, rng()), uebench.Policy("p+c")(arrays[0], rng())),
        (
            uebench.pgd(lambda x: model(x).sum(), pixels, **budget),
            uebench.pgd(lambda x: model(x).sum(), arrays[0], **budget),
        ),
        (
            uebench.taken(pixels, torch.tensor([3, 1]), torch.device("cpu")),
            uebench.taken(arrays[0], arrays[1], torch.device("cpu")),
        ),
        (dataset.train.take(torch.tensor([3, 1])), dataset.train.take(arrays[1])),
    ):
        assert torch.equal(of_tensor, of_array)
    kept = run.kept("ones", {"n": 3}, lambda _: {"ones": np.ones(3)})  # type: ignore[dict-item]
    assert torch.equal(kept["ones"], torch.ones(3))


def test_an_attack_may_return_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = random_dataset([5, 5], (16, 16))
    lsp = registry.find("attack", "lsp")
    perturb, export = lsp.perturb, lsp.export
    method = lsp(eps=1.0, patch=8)
    of_tensors = method.craft(dataset.train, make_run(dataset, seed=1)).images
    monkeypatch.setattr(lsp, "perturb", lambda self, data, run: perturb(self, data, run).numpy())
    monkeypatch.setattr(lsp, "export", lambda self, data, delta: export(self, data, delta).numpy())
    of_arrays = method.craft(dataset.train, make_run(dataset, seed=1)).images
    assert torch.equal(of_arrays, of_tensors)
