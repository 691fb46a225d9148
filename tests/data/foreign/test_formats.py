"""Every form that authors release comes back as it was, or says what is unclear."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import uebench
from tests.data.foreign.helpers import (
    DATA,
    DELTAS,
    FORMS,
    GREY,
    IMAGES,
    N,
    reread,
    save_any,
    write_pngs,
)
from uebench.data import Dataset, load_dataset
from uebench.data.foreign import Reading, read_poison
from uebench.data.foreign.pictures import RECORD_BYTES
from uebench.data.poison import Poison, PoisonError, quantise
from uebench.data.poison_files import audit_poison
from uebench.data.poison_writing import write_poison
from uebench.data.split import Split
from uebench.store.store import Store
from uebench.suite.import_poison import import_poison

KINDS: dict[str, Callable[[], np.ndarray]] = {
    "uint8 images": lambda: IMAGES.numpy(),
    "unit images": lambda: IMAGES.numpy().astype(np.float32) / np.float32(255),
    "unit deltas": lambda: DELTAS.numpy().astype(np.float32) / np.float32(255),
    "half deltas": lambda: DELTAS.numpy().astype(np.float16),
    "double deltas": lambda: DELTAS.numpy() / 255,
    "int8 deltas": lambda: DELTAS.numpy().astype(np.int8),
    "int64 deltas": lambda: DELTAS.numpy().astype(np.int64),
    "wrapped deltas": lambda: DELTAS.numpy().astype(np.int8).view(np.uint8),
}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(
    form: str, kind: str, layout: str, tmp_path: Path
) -> None:
    array = KINDS[kind]()
    array = array if layout == "nchw" else array.transpose(0, 2, 3, 1)
    path = tmp_path / f"poison{form}"
    if form not in (".0.pkl", ".2.pkl", ".4.pkl", ".5.pkl", ".npy"):
        array = np.ascontiguousarray(array)  # the others keep odd strides
    save_any(path, array)
    images, read = reread(path)
    assert torch.equal(images, IMAGES)
    assert read["kind"] == kind.split()[1]
    assert read["layout"] == layout
    assert read["scale"] == ("unit" if kind.split()[0] in ("unit", "double") else "levels")
    assert read["wrapped_negatives"] == (kind == "wrapped deltas")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_may_hold_many_tensors(zipped: bool, tmp_path: Path) -> None:
    both = torch.stack([DELTAS, -DELTAS]).to(torch.int16)
    content = {
        "first": both[0],
        "second": both[1],
        "bf16": DELTAS.to(torch.bfloat16),
        "turned": torch.nn.Parameter((DELTAS.float() / 255).permute(0, 2, 3, 1)),
        "numpy": DELTAS.numpy().astype(np.int8),
        "labels": DATA.train.labels.tolist(),
        "epoch": 3,
        "none": torch.zeros(0, 3),
    }
    path = tmp_path / "many.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for key in ("first", "bf16", "turned", "numpy"):
        images, read = reread(path, key=key, kind="deltas")
        assert torch.equal(images, IMAGES), key
        assert read["labels_from"] == "the file"
    negative = (DATA.train.images.int() - DELTAS).clamp(0, 255).to(torch.uint8)
    assert torch.equal(reread(path, key="second", kind="deltas")[0], negative)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    delta=hnp.arrays(np.float32, (N, 3, 8, 10), elements=st.floats(-0.25, 0.25, width=32)),
    form=st.sampled_from([".npy", ".npz", ".pt", ".2.pkl", ".5.pkl", ".safetensors"]),
    rounding=st.sampled_from(["round", "truncate"]),
)
def test_any_perturbation_comes_out_as_a_user_would_have_received_it(
    delta: np.ndarray, form: str, rounding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("p") / f"poison{form}"
    save_any(path, delta)
    images, read = reread(path, kind="deltas", scale="unit", rounding=rounding)
    wanted = DATA.train.images.float() + torch.from_numpy(delta) * 255
    if rounding == "round":
        assert torch.equal(images, quantise(DATA.train.images, torch.from_numpy(delta)))
    else:
        low, exact = wanted.clamp(0, 255).floor(), wanted.clamp(0, 255)
        assert ((images.float() == low) | (exact - low > 1 - 2e-3)).all()
    clipped = ((wanted < -2e-3) | (wanted > 255 + 2e-3)).double().mean().item()
    assert read["clipped_share"] >= clipped
    assert read["rounding"] == rounding


def test_rounding_and_clipping_are_counted(tmp_path: Path) -> None:
    delta = np.full((N, 3, 8, 10), 1.5, np.float32)
    np.save(tmp_path / "d.npy", delta)
    rounded, read = reread(tmp_path / "d.npy", kind="deltas", scale="levels")
    cut, _ = reread(tmp_path / "d.npy", kind="deltas", scale="levels", rounding="truncate")
    clean = DATA.train.images.int()
    assert torch.equal(cut.int(), (clean + 1).clamp(max=255))
    assert (rounded.int() - cut.int()).max() == 1
    assert read["clipped_share"] == (clean + 1.5 > 255).double().mean().item()
    assert read["fractional_share"] == (clean + 1.5 < 255).double().mean().item()


def test_a_perturbation_a_class_is_applied_by_label(tmp_path: Path) -> None:
    wise = DELTAS[:2].float() / 255
    torch.save(wise, tmp_path / "perturbation.pt")
    images, read = reread(tmp_path / "perturbation.pt")
    assert read["class_wise"]
    assert torch.equal(images, quantise(DATA.train.images, wise[DATA.train.labels]))
    np.save(tmp_path / "two.npy", IMAGES[:2].numpy())
    with pytest.raises(
        PoisonError, match="one image per class, which cannot replace training images"
    ):
        reread(tmp_path / "two.npy", kind="images")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("classes", [False, True])
def test_image_folders_and_zips(classes: bool, packed: bool, tmp_path: Path) -> None:
    write_pngs(tmp_path / "made", classes, prefix="img_00")
    path = tmp_path / "made"
    if packed:
        with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
            for png in sorted(path.rglob("*.png")):
                file.write(png, f"wrap/{png.relative_to(path)}")
            file.writestr("__MACOSX/wrap/._0.png", "not an image")
        path = tmp_path / "made.zip"
    poison, read = read_poison(path, DATA)
    assert torch.equal(poison.images, IMAGES)
    assert torch.equal(poison.index, torch.arange(N))
    assert read["labels_from"] == ("the file" if classes else "the clean set")
    assert torch.equal(poison.labels, DATA.train.labels)
    assert not list(tmp_path.glob("wrap*"))


@pytest.mark.parametrize("out", ["p.npz", "p.safetensors", "folder"])
@pytest.mark.parametrize("dataset", [DATA, GREY], ids=["colour", "grey"])
def test_what_craft_writes_can_be_imported_again(
    dataset: Dataset, out: str, tmp_path: Path, store: Store
) -> None:
    crafted = uebench.craft("lsp", dataset, store=store)
    write_poison(crafted, tmp_path / out, dataset)
    beside = tmp_path / out / "meta.json" if out == "folder" else tmp_path / f"{out}.meta.json"
    meta = json.loads(beside.read_text())
    needed = {"recipe", "seed", "fingerprint", "sha256", "l2_max", "linf_max", "craft_seconds"}
    assert needed | {"budget", "peak_memory_mb", "dataset"} <= set(meta)
    assert (meta["seed"], meta["fingerprint"]) == (0, dataset.fingerprint)
    if out == "folder":
        listed = (tmp_path / out / "labels.csv").read_text().splitlines()
        assert listed[:2] == ["index,label", f"0,{int(dataset.train.labels[0])}"]
    poison = import_poison(tmp_path / out, dataset, "again", store=store)
    assert torch.equal(poison.images, crafted.images)
    assert poison.meta["sha256"] == crafted.meta["sha256"]
    assert poison.meta["as_recorded"]
    assert poison.meta["author_record"]["recipe"] == crafted.meta["recipe"]


def test_a_changed_file_no_longer_has_its_recorded_content(tmp_path: Path, store: Store) -> None:
    crafted = uebench.craft("lsp", DATA, store=store)
    write_poison(crafted, tmp_path / "folder", DATA)
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(tmp_path / "folder/3.png")
    poison, _ = read_poison(tmp_path / "folder", DATA)
    assert audit_poison(poison, DATA)["as_recorded"] is False


def test_other_labels_and_order_are_reported_but_not_imported(tmp_path: Path, store: Store) -> None:
    order = torch.arange(N).flip(0)
    labels = DATA.train.labels[order].clone()
    labels[:3] = 1 - labels[:3]
    arrays = {"images": IMAGES[order].permute(0, 2, 3, 1), "labels": labels, "index": order}
    np.savez(tmp_path / "p.npz", **{key: value.numpy() for key, value in arrays.items()})
    poison = import_poison(tmp_path / "p.npz", DATA, "odd", store=store)
    assert poison.meta["labels_differ"] == 3
    assert not poison.meta["order_kept"]
    assert torch.equal(poison.images, IMAGES)
    assert torch.equal(poison.labels, DATA.train.labels)


def unsure(path: Path, array: np.ndarray, told: str, **reading: Any) -> None:
    np.save(path, array)
    with pytest.raises(PoisonError, match=told):
        reread(path, **reading)


def test_what_could_be_read_in_two_ways_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    rng = np.random.default_rng(0)
    shape = (N, 3, 8, 10)
    unsure(path, rng.integers(-1, 2, shape).astype(np.float32), "--scale levels or unit")
    unsure(path, rng.uniform(-1.5, 1.5, shape), "--scale unit or levels")
    unsure(path, rng.integers(0, 256, shape).astype(np.uint8), "--kind images or deltas")
    unsure(path, IMAGES.roll(5, 0).numpy(), "in this order")
    unsure(path, rng.integers(0, 256, shape, dtype=np.uint8), "as int16", kind="deltas")
    unsure(path, (IMAGES.float() / 255 - 0.5).numpy() / 0.2, "undo a normalisation")
    unsure(path, DELTAS.numpy() * 1000.0, "neither in the range")
    unsure(path, DELTAS.numpy().astype(np.float32), "give the other scale", scale="unit")
    np.savez(tmp_path / "two.npz", a=IMAGES.numpy(), b=DELTAS.numpy(), y=DATA.train.labels)
    with pytest.raises(PoisonError, match="say which by --key: 'a', 'b'"):
        reread(tmp_path / "two.npz")
    assert torch.equal(reread(tmp_path / "two.npz", key="b")[0], IMAGES)
    with pytest.raises(PoisonError, match=r"--key 'c'.* has 'a' uint8 \[12, 3, 8, 10\]"):
        reread(tmp_path / "two.npz", key="c")
    with pytest.raises(PoisonError, match=r"'y' has the shape \[12\]"):
        reread(tmp_path / "two.npz", key="y")


def test_what_does_not_fit(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "p.npy"
    unsure(path, IMAGES[:5].numpy(), "5 images, random has 12 training images and 2 classes")
    unsure(path, IMAGES[:0].numpy(), "holds no images")
    unsure(path, IMAGES[..., :6].numpy(), r"no array of images of random, \[n, 8, 10, 3\]")
    spoiled = DELTAS.numpy() / 255
    for value in (np.nan, np.inf):
        spoiled[4, 0, 0, 0] = value
        unsure(path, spoiled, "NaN or infinite values, first in image 4")
    for index, told in (
        ([0, 0, 1], "training image 0 twice"),
        ([0, 1, 12], "reaches 12, random has 12 training images"),
        ([-1, 1, 2], "reaches -1"),
        ([0, 1], r"'index' must be whole numbers \[3\]"),
        ([0.0, 1.0, 2.0], "'index' must be whole numbers"),
    ):
        np.savez(tmp_path / "i.npz", noise=DELTAS[:3].numpy(), index=np.array(index))
        with pytest.raises(PoisonError, match=told):
            reread(tmp_path / "i.npz")
    np.save(path, DATA.train.images.numpy())
    with pytest.raises(PoisonError, match="changes no image"):
        import_poison(path, DATA, "clean", store=store)
    assert not (store.base / "poison").exists()


@pytest.mark.parametrize(
    ("far", "kind"), [(50, "read"), (70, "read"), (40, "unsure"), (38, "unsure")]
)
def test_what_is_twice_as_near_to_the_clean_images_is_taken_for_images(
    far: int, kind: str, tmp_path: Path
) -> None:
    """The values lie 20 levels from the clean images, and `far` levels from zero."""
    clean = np.full((6, 3, 8, 8), far - 20, dtype=np.uint8)
    train = Split(torch.from_numpy(clean), torch.arange(6) % 2, ("a", "b"))
    dataset = Dataset("flat", train, train, "f" * 64)
    path = tmp_path / "p.npy"
    np.save(path, clean + np.uint8(20))
    if kind == "unsure":
        with pytest.raises(PoisonError, match="--kind images or deltas"):
            read_poison(path, dataset)
    else:
        poison, how_read = read_poison(path, dataset)
        assert how_read["kind"] == "images"
        assert torch.equal(poison.images, train.images + 20)


@pytest.mark.parametrize(("level", "kind"), [(70, "read"), (60, "unsure"), (58, "unsure")])
def test_what_is_twice_as_near_to_zero_is_taken_for_perturbations(
    level: int, kind: str, tmp_path: Path
) -> None:
    """The values lie 20 levels from zero, and `level` less 20 from the clean images."""
    clean = torch.full((6, 3, 8, 8), level, dtype=torch.uint8)
    train = Split(clean, torch.arange(6) % 2, ("a", "b"))
    dataset = Dataset("flat", train, train, "f" * 64)
    path = tmp_path / "p.npy"
    np.save(path, np.full(clean.shape, 20, dtype=np.int8))
    if kind == "unsure":
        with pytest.raises(PoisonError, match="--kind images or deltas"):
            read_poison(path, dataset)
    else:
        poison, how_read = read_poison(path, dataset)
        assert how_read["kind"] == "deltas"
        assert torch.equal(poison.images, clean + 20)


def test_images_of_ours_without_a_budget_need_not_be_like_the_clean_ones(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, DATA.train.images.shape, generator=rng, dtype=torch.uint8)
    free = {"budget": {"norm": "none", "eps": None}}
    poison = Poison(images, DATA.train.labels, torch.arange(N), free)
    write_poison(poison, tmp_path / "free.npz", DATA)
    read, how_read = read_poison(tmp_path / "free.npz", DATA)
    assert how_read["kind"] == "images"
    assert torch.equal(read.images, images)
    bounded = Poison(images, DATA.train.labels, torch.arange(N), {"budget": {"norm": "linf"}})
    write_poison(bounded, tmp_path / "bounded.npz", DATA)
    with pytest.raises(PoisonError, match="--kind images or deltas"):
        read_poison(tmp_path / "bounded.npz", DATA)


@pytest.mark.parametrize("planes", [True, False])
def test_rows_of_pixels_are_read_plane_by_plane_or_pixel_by_pixel(
    planes: bool, tmp_path: Path
) -> None:
    data = load_dataset("synthetic[n_train=20,n_test=2,n_classes=2,size=16]")
    images = data.train.images.numpy()
    rows = (images if planes else images.transpose(0, 2, 3, 1)).reshape(20, -1)
    np.save(tmp_path / "rows.npy", rows)
    poison, _ = read_poison(tmp_path / "rows.npy", data, Reading("images"))
    assert np.array_equal(poison.images, images)


def test_a_spoiled_record_beside_a_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", IMAGES.numpy())
    beside = tmp_path / "p.npy.meta.json"
    beside.write_text("{")
    with pytest.raises(PoisonError, match=r"p\.npy\.meta\.json is not JSON"):
        read_poison(tmp_path / "p.npy", DATA)
    beside.write_text(" " * (RECORD_BYTES + 1))
    with pytest.raises(PoisonError, match=r"p\.npy\.meta\.json has more than"):
        read_poison(tmp_path / "p.npy", DATA)
