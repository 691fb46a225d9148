"""What a run writes on request: weights of target models, and curves for TensorBoard."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import uebench
from uebench.data import load_dataset
from uebench.models import build_network
from uebench.store.store import Store
from uebench.suite import extras

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
ASKED = {
    **{"attacks": "none", "defenses": "standard", "dataset": DATA, "arch": "resnet9[width=2]"},
    **{"epochs": 2, "device": "cpu", "jobs": 1, "set": {"protocol.precision": "fp32"}},
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("UEBENCH_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home")


def test_kept_models_have_the_accuracy_of_their_record(store: Store, tmp_path: Path) -> None:
    first = uebench.run(**ASKED, out=tmp_path / "r")
    assert not (tmp_path / "r/models").exists()
    kept = uebench.run(**ASKED, out=tmp_path / "r", keep_models=True)
    key = kept["key"].item()
    assert kept["test_acc"].item() == first["test_acc"].item()
    record = json.loads((tmp_path / f"r/models/{key}.json").read_text())
    assert (record["attack"], record["defense"], record["n_classes"]) == ("none", "standard", 2)
    assert record["test_acc"] == kept["test_acc"].item()
    model = build_network(record["arch"], record["n_classes"], tuple(record["image_shape"]), 0)
    model.load_state_dict(load_file(tmp_path / f"r/models/{key}.safetensors"))
    test = load_dataset(DATA).test
    with torch.no_grad():
        answers = model.eval()(test.images.float() / 255).argmax(1)
    assert (answers == test.labels).double().mean().item() == pytest.approx(record["test_acc"])
    before = store.path("model", key).stat().st_mtime_ns
    uebench.run(**ASKED, out=tmp_path / "again", keep_models=True)
    assert store.path("model", key).stat().st_mtime_ns == before, "it is not trained again"
    assert (tmp_path / f"again/models/{key}.safetensors").is_file()


@pytest.mark.usefixtures("store")
def test_curves_are_written_once_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        uebench.run(**ASKED, out=tmp_path / "r", log="tensorboard")
    (folder,) = (tmp_path / "r/tensorboard").iterdir()
    assert folder.name.startswith("none-x-standard")
    assert len(list(folder.iterdir())) == 1
    events = EventAccumulator(str(folder)).Reload()
    curve = json.loads((tmp_path / "r/records.json").read_text())["records"]
    (record,) = curve.values() if isinstance(curve, dict) else curve
    losses = [event.value for event in events.Scalars("loss")]
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert losses == pytest.approx(record["curve"]["loss"], rel=1e-5)
    assert len(events.Scalars("test_acc")) == 2


def test_a_log_that_cannot_be_written_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"run pip install 'uebench\[tensorboard\]'"):
        uebench.run(**ASKED, log="tensorboard", dry_run=True)
    with pytest.raises(ValueError, match="log must be tensorboard, got 'wandb'"):
        uebench.run(**ASKED, log="wandb", dry_run=True)


@pytest.mark.usefixtures("store")
def test_python_asks_detectors_as_the_flag_does(tmp_path: Path) -> None:
    larger = {**ASKED, "dataset": DATA.replace("40", "60")}
    uebench.run(**larger, out=tmp_path / "r", detect=True, detectors="edge_pixels")
    assert "edge_pixels" in (tmp_path / "r/detection.csv").read_text()
    with pytest.raises(ValueError, match="give their folder, out=FOLDER"):
        uebench.run(**ASKED, detect=True)
    with pytest.raises(ValueError, match="--detectors belongs to --detect"):
        uebench.run(**ASKED, detectors="noise")
