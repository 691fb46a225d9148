"""Data sets and poisons show themselves, in a line of text and with pictures in a notebook."""

import base64
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import uebench
from tests.conftest import random_dataset
from uebench.common.errors import UserError
from uebench.data import Dataset
from uebench.data.dataset import from_splits
from uebench.data.pictures import EACH, GAP, LINE, STRIP_TILE, contact_sheet, samples
from uebench.data.poison import Poison, PoisonError
from uebench.data.split import Split


def brighter(clean: Dataset, **more: object) -> Poison:
    images = (clean.train.images.int() + 8).clamp(0, 255).to(torch.uint8)
    return Poison(images, clean.train.labels, torch.arange(len(images)), **more)


def picture_in(html: str) -> Image.Image:
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_line_says_what_it_is(tiny: Dataset) -> None:
    name = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
    assert repr(tiny) == (
        f"Dataset {name}: 40 training and 20 test images [3, 16, 16] of 2 classes"
    )
    assert repr(tiny.train) == "Split: 40 images [3, 16, 16] of 2 classes"
    poison = uebench.craft("lsp", tiny)
    levels = poison.meta["linf_max"]
    assert repr(poison) == (
        f"Poison {poison.meta['spec']} of {name}: 40 images [3, 16, 16], no value changed by more "
        f"than {levels:g}/255"
    )
    assert repr(brighter(tiny)) == "Poison: 40 images [3, 16, 16]"


def test_a_data_set_shows_samples_of_its_classes() -> None:
    dataset = random_dataset([5, 1, 3], (16, 16))
    sheet = np.asarray(picture_in(dataset._repr_html_()))
    side, times = STRIP_TILE + GAP, STRIP_TILE // 16
    assert sheet.shape == (LINE + EACH * side - GAP, 3 * side - GAP, 3)
    for label in range(3):
        positions = (dataset.train.labels == label).nonzero().flatten()[:EACH]
        for row, i in enumerate(positions):
            y, x = LINE + row * side, label * side
            tile = sheet[y : y + STRIP_TILE : times, x : x + STRIP_TILE : times]
            assert np.array_equal(tile, dataset.train.images[i].permute(1, 2, 0))
    assert (sheet[LINE + side :, side : 2 * side - GAP] == 255).all(), "class 1 has one image"


def test_samples_leave_out_what_does_not_fit() -> None:
    hundred = random_dataset([1] * 100, (16, 16)).train
    assert samples(hundred).width == 10 * (STRIP_TILE + GAP) - GAP
    without_first = hundred.subset(torch.arange(95, 100))
    assert samples(without_first).width == 5 * (STRIP_TILE + GAP) - GAP


def test_a_poison_shows_clean_and_poisoned_images(tiny: Dataset) -> None:
    poison = uebench.craft("lsp", tiny)
    sheet = contact_sheet(poison, tiny, f"{poison.meta['spec']} on {tiny.name}")
    assert np.array_equal(picture_in(poison._repr_html_()), sheet)
    assert poison._repr_html_().count("Poison lsp") == 1


def test_a_poison_of_an_unknown_data_set_shows_its_images(tiny: Dataset) -> None:
    poison = brighter(tiny)
    expected = samples(Split(poison.images, poison.labels, ("0", "1")))
    assert np.array_equal(picture_in(poison._repr_html_()), expected)
    assert poison.picture(tiny).size == contact_sheet(poison, tiny, "a poison").size
    with pytest.raises(PoisonError, match="images are"):
        poison.picture(random_dataset([20, 20], (8, 8)))
    empty = Poison(poison.images[:0], poison.labels[:0], poison.index[:0])
    assert "0 images" in empty._repr_html_()


def test_names_are_no_html(tiny: Dataset) -> None:
    classes = ("<b>", "&")
    evil = from_splits(
        "<script>alert(1)</script>",
        Split(tiny.train.images, tiny.train.labels, classes),
        Split(tiny.test.images, tiny.test.labels, classes),
    )
    poison = brighter(evil, meta={"spec": "<i>x"}, dataset=evil)
    for html in (evil._repr_html_(), poison._repr_html_()):
        assert "<script" not in html
        assert "<i>" not in html
        assert "&lt;script&gt;" in html


def test_show_displays_in_a_notebook_and_opens_a_viewer_elsewhere(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, shown = brighter(tiny, dataset=tiny), []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(("viewer", image.size)))
    poison.show()
    kernel = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=1),
        display=SimpleNamespace(display=lambda image: shown.append(("notebook", image.size))),
    )
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    poison.show()
    size = poison.picture().size
    assert shown == [("viewer", size), ("notebook", size)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_show_without_a_display_says_how_to_write_a_file(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"poison\.picture\(\)\.save\('picture\.png'\)"):
        brighter(tiny, dataset=tiny).show()


@pytest.mark.parametrize("name", ["poison.npz", "poison.safetensors", "poison"])
def test_a_saved_poison_is_read_again(tiny: Dataset, tmp_path: Path, name: str) -> None:
    poison = uebench.craft("lsp", tiny)
    poison.save(tmp_path / name)
    beside = tmp_path / (f"{name}/meta.json" if name == "poison" else f"{name}.meta.json")
    meta = json.loads(beside.read_text())
    assert (meta["sha256"], meta["dataset"]) == (poison.meta["sha256"], tiny.name)
    again = uebench.import_poison(tmp_path / name, tiny, "again")
    assert torch.equal(again.images, poison.images)
    assert again.dataset is tiny
    with pytest.raises(PoisonError, match=r"is there already; choose another name"):
        poison.save(tmp_path / name)


def test_save_asks_for_a_data_set_that_is_not_known(tiny: Dataset, tmp_path: Path) -> None:
    poison = brighter(tiny)
    with pytest.raises(PoisonError, match=r"poison\.save\(path, dataset\)"):
        poison.save(tmp_path / "poison.npz")
    with pytest.raises(PoisonError, match=r"\.pt is not written; give FILE\.npz"):
        poison.save(tmp_path / "poison.pt", tiny)
    poison.save(tmp_path / "poison.npz", tiny)
    assert (tmp_path / "poison.npz").is_file()
