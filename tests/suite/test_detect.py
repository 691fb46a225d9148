"""`detect` from Python and from the command line: sources, the store, summaries, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import uebench
from tests.cli.test_cli import call
from uebench.data import Dataset, load_dataset
from uebench.data.poison_writing import write_poison
from uebench.store.prune import ENTRY_KINDS, entries, entry_text
from uebench.store.store import Store
from uebench.victims import detectors

DATA = "synthetic[n_train=200,n_test=4,n_classes=4,size=16]"
CHEAP = "linear[epochs=40],edge_pixels,noise[steps=50]"


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    return load_dataset(DATA)


@pytest.mark.parametrize("name", ["poison.npz", "poison.safetensors", "poison"])
def test_a_file_an_attack_and_a_poison_get_the_same_scores(
    pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    poison = uebench.craft("lsp", pictures)
    write_poison(poison, tmp_path / name, pictures)
    crafted = uebench.detect("lsp", pictures, CHEAP)
    assert [entry["poisoned"] for entry in crafted["detectors"]] == [True, False, True]
    for suspect in (poison, tmp_path / name, name):
        answer = uebench.detect(suspect, pictures, CHEAP)
        records = [record for each in answer["detectors"] for record in each["records"]]
        assert not any("suspect" in record for record in records), "it may be another's name"
        assert answer["detectors"] == crafted["detectors"]
        assert answer["images_changed"] == crafted["images_changed"] == 200


def test_a_second_call_computes_nothing(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = uebench.detect("lsp", pictures, "linear[epochs=2]", seeds=[0, 1])

    def compute(*_: object) -> None:
        raise AssertionError("a stored score was computed again")

    monkeypatch.setattr(detectors.Linear, "score", compute)
    assert uebench.detect("lsp", DATA, ["linear[epochs=2]"], seeds="0,1") == first
    for changed in ({"seeds": [2]}, {"poison_seed": 1}, {"detectors": "linear[epochs=3]"}):
        with pytest.raises(AssertionError, match="computed again"):
            uebench.detect(*("lsp", pictures), **({"detectors": "linear[epochs=2]"} | changed))  # type: ignore[arg-type]


def test_a_record_says_what_was_computed_and_how_long_it_took(pictures: Dataset) -> None:
    answer = uebench.detect("lsp", pictures, "noise[steps=50]", seeds=[3])
    (record,) = answer["detectors"][0]["records"]
    assert record["recipe"]["options"] == {"steps": 50}
    assert record["recipe"]["poison"] == uebench.craft("lsp", pictures).meta["sha256"]
    assert (record["n_train"], record["n_held_out"], record["seed"]) == (160, 40, 3)
    assert record["seconds"] > 0
    assert record["determinism"]["bit_identical"]
    store = Store()
    (entry,) = entries(store, ["detection"])
    assert "detection" in ENTRY_KINDS
    assert entry_text(store, entry) == "noise[steps=50] on lsp"


def test_on_clean_data_the_share_of_flagged_seeds_is_the_false_positive_rate(
    pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = uebench.detect("none", pictures, "edge_pixels", seeds=range(4))
    (entry,) = answer["detectors"]
    assert answer["images_changed"] == 0
    assert entry["false_positive_rate"] == 0
    held_out = sorted(record["score"] for record in entry["records"])
    # between the third and the fourth score, so that one seed of four is flagged
    monkeypatch.setattr(detectors.EdgePixels, "threshold", (held_out[2] + held_out[3]) / 2)
    monkeypatch.setattr(detectors.EdgePixels, "version", 2)
    (entry,) = uebench.detect("none", pictures, "edge_pixels", seeds=range(4))["detectors"]
    assert entry["false_positive_rate"] == entry["flagged_share"] == 0.25
    assert not entry["poisoned"]
    assert entry["score"] == pytest.approx(sum(held_out) / 4)
    poisoned = uebench.detect("lsp", pictures, "edge_pixels")["detectors"][0]
    assert "false_positive_rate" not in poisoned


def test_only_the_images_of_a_partial_poison_are_examined(pictures: Dataset) -> None:
    whole = uebench.craft("random_class", pictures)
    rows = torch.arange(199, 79, -1)
    part = uebench.Poison(whole.images[rows], whole.labels[rows], whole.index[rows], {})
    answer = uebench.detect(part, pictures, "noise")
    assert (answer["images"], answer["images_changed"]) == (120, 120)
    assert answer["detectors"][0]["score"] == 1.0, "each is compared with its own clean image"


def test_the_table_and_its_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["detect", "none", "--dataset", DATA, "--detectors", CHEAP, "--seeds", "0,1"]
    table = call(*command)
    assert table.exit_code == 0, table.output
    assert table.stdout.count("not detected") == 3
    assert "0 of 2" in table.stdout
    assert "70 (arXiv:2312.08898)" in table.stdout
    assert "70 (our choice)" in table.stdout
    assert "200 images, of which 0 differ" in table.stdout
    assert "false positive" in table.stdout
    answer = json.loads(call(*command, "--json").stdout)
    assert answer == uebench.detect("none", DATA, CHEAP, seeds=[0, 1])


def test_what_guessing_reaches_is_no_evidence_of_poison(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)
    labels = (np.arange(120) % 10 < 1).astype(np.int64)  # nine tenths are of one class
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "uneven.npz", **dict(zip(names, (images, labels) * 2, strict=True)))
    answer = uebench.detect("none", f"npz:{tmp_path}/uneven.npz", CHEAP, seeds=[0, 1])
    for entry in answer["detectors"]:
        assert not entry["poisoned"], entry["detector"]
        assert entry["false_positive_rate"] == 0
        assert not any(record["poisoned"] for record in entry["records"])
    (noise,) = (entry for entry in answer["detectors"] if entry["detector"].startswith("noise"))
    assert noise["score"] == noise["chance"] > noise["threshold"], "it looks at zeros"
    assert answer["classes"] == 2


def test_few_classes_are_pointed_out() -> None:
    few = call("detect", "none", "--dataset", DATA, "--detectors", "edge_pixels")
    assert "With 4 classes even a linear model" in " ".join(few.stdout.split())
    many = "synthetic[n_train=60,n_test=10,n_classes=10,size=16]"
    stdout = call("detect", "none", "--dataset", many, "--detectors", "edge_pixels").stdout
    assert "classes even" not in stdout


ONE_CLASS = "synthetic[n_train=20,n_test=4,n_classes=4,size=16]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "--dataset", ONE_CLASS], "at least 50 images"),
        (["none", "--dataset", DATA, "--detectors", "lineal"], "did you mean linear"),
        (["none", "--dataset", DATA, "--detectors", ""], "names none"),
        (["none", "--dataset", DATA, "--detectors", "noise,noise[steps=500]"], "are the same"),
        (["none", "--dataset", DATA, "--seeds", "0,x"], "seed"),
        (["none", "--dataset", DATA, "--seeds", "-1"], "seed"),
        (["none", "--dataset", DATA, "--seeds", "1,1"], "1 is named more than once"),
        (["random_clas", "--dataset", DATA], "did you mean random_class"),
        (["lsp.npz", "--dataset", DATA], "lsp.npz"),
        (["./lsp", "--dataset", DATA], "lsp"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str) -> None:
    result = call("detect", *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not list(entries(Store(), ["detection"]))


def test_a_file_in_another_order_is_refused(pictures: Dataset, tmp_path: Path) -> None:
    import numpy as np

    poison = uebench.craft("lsp", pictures)
    turned = poison.labels.roll(1).numpy()
    images = poison.images.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "turned.npz", images=images, labels=turned)
    with pytest.raises(ValueError, match=r"labels differ.*another order"):
        uebench.detect(tmp_path / "turned.npz", pictures)


@pytest.mark.parametrize("attack", ["none", "cuda", "lsp[eps=4]"])
def test_a_file_without_labels_in_another_order_is_refused_by_every_verb(
    attack: str, pictures: Dataset, tmp_path: Path
) -> None:
    import numpy as np

    clean = pictures.train.images
    images = clean if attack == "none" else uebench.craft(attack, pictures).images
    array = images.permute(0, 2, 3, 1).numpy().copy()
    file = tmp_path / "file.npz"
    np.savez(file, images=array)
    assert uebench.audit(file, pictures, kind="images")["usable"]
    some = len(array) // 2
    array[:some] = array[:some][::-1].copy()
    np.savez(file, images=array)
    audited = uebench.audit(file, pictures, kind="images")
    assert not audited["usable"]
    assert "images resemble the one before their own in synthetic" in audited["why_not_usable"]
    with pytest.raises(ValueError, match=r"is not usable.*the file is in another order"):
        uebench.detect(file, pictures, kind="images")
    with pytest.raises(ValueError, match=r"is not usable.*the file is in another order"):
        uebench.import_poison(file, pictures, "other", kind="images")
