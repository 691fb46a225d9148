"""Pretrained victims: where weights come from, what is trained, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import uebench
from tests.cells.test_plan import cells
from tests.conftest import make_run
from uebench import Facts
from uebench.data import Dataset, load_dataset
from uebench.learn.protocol import named_protocol
from uebench.methods.registry import build_defense, build_victim
from uebench.methods.victim import Target, Trained
from uebench.models import build_network
from uebench.store.store import Store
from uebench.victims import transfer

ARCH = "resnet8[width=8]"
OTHER = "synthetic[n_train=60,n_test=20,n_classes=3,size=16,seed=5]"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of the network for three classes, whose last layer does not fit two."""
    path = tmp_path / "weights.safetensors"
    state = build_network(ARCH, 3, (3, 16, 16), 7).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def trained(dataset: Dataset, spec: str, store: Store | None = None, **changes: Any) -> Trained:
    protocol = named_protocol("quick", "", **{"epochs": 1, "batch_size": 20, **changes})
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, ARCH)
    standard = build_defense("standard").method
    target = Target(ARCH, protocol, standard, dataset.test, dataset.train)
    run = make_run(dataset, epochs=protocol.epochs, store=store)
    return build_victim(spec).resolve(facts).train(dataset.train, target, run)


def test_a_probe_trains_the_last_layer_alone(weights: Path, tiny: Dataset) -> None:
    given = build_network(ARCH, 3, (3, 16, 16), 7).state_dict()
    model = trained(tiny, f"linear_probe[weights={weights}]").model
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, given[name]), "and batch norm keeps its statistics"
    assert model.head.weight.shape[0] == 2
    fresh = trained(tiny, f"linear_probe[weights={weights}]", lr=1e-6).model
    assert not torch.allclose(model.head.weight, fresh.head.weight)


def test_fine_tuning_moves_all_layers_from_where_they_were(weights: Path, tiny: Dataset) -> None:
    given = build_network(ARCH, 3, (3, 16, 16), 7).state_dict()
    near = trained(tiny, f"finetune[weights={weights}]", lr=1e-7).model.state_dict()
    far = trained(tiny, f"finetune[weights={weights}]").model.state_dict()
    names = [name for name, value in given.items() if value.is_floating_point()]
    body = [name for name in names if near[name].shape == given[name].shape and "9" not in name]
    filters = [name for name in body if given[name].ndim == 4]
    assert len(filters) > 3
    assert all(torch.allclose(near[name], given[name], atol=1e-4) for name in filters)
    assert not any(torch.allclose(far[name], given[name], atol=1e-4) for name in filters)


def test_the_key_has_the_content_of_the_file_and_not_its_path(weights: Path, tiny: Dataset) -> None:
    def cell(path: Path) -> Any:
        fields = {"attacks": "none", "defenses": "at", "arch": ARCH}
        (planned,) = cells(tiny, **fields, victims=f"finetune[weights={path}]")
        return planned

    moved = weights.with_name("moved.safetensors")
    moved.write_bytes(weights.read_bytes())
    assert cell(weights).key == cell(moved).key
    assert str(weights) not in str(cell(weights).recipe())
    state = build_network(ARCH, 3, (3, 16, 16), 8).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, moved)
    assert cell(weights).key != cell(moved).key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "give one of finetune.weights=FILE. and finetune.pretrain_on=cifar100"),
        ("weights=gone.pth", "gone.pth cannot be read .No such file.*name a file of weights"),
        ("weights=text.pth", "text.pth holds no state dict"),
        ("weights=wider.pth", r"has a wrong 0\.0\.weight, of shape \[16, 3, 3, 3\] where \[8, "),
        ("weights=short.pth", "short.pth has no .*; give weights of exactly this network"),
        ("weights=nan.pth", "nan.pth has NaN or infinite values in 0.0.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_when_a_matrix_is_planned(
    options: str, message: str, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = build_network(ARCH, 2, (3, 16, 16), 0).state_dict()
    torch.save(build_network("resnet8", 2, (3, 16, 16), 0).state_dict(), "wider.pth")
    torch.save({"0.0.weight": own["0.0.weight"]}, "short.pth")
    torch.save(own | {"0.0.weight": own["0.0.weight"] * torch.nan}, "nan.pth")
    Path("text.pth").write_text("no weights")
    victim = f"finetune[{options}]" if options else "finetune"
    with pytest.raises(ValueError, match=message):
        cells(tiny, attacks="none", defenses="standard", arch=ARCH, victims=victim)


def test_a_file_that_changed_after_the_plan_is_not_used(weights: Path, tiny: Dataset) -> None:
    facts = Facts("test", 2, tiny.shape, 1, ARCH)
    victim = build_victim(f"finetune[weights={weights}]").resolve(facts)
    state = build_network(ARCH, 3, (3, 16, 16), 9).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, weights)
    standard = build_defense("standard").method
    target = Target(ARCH, named_protocol("quick", ""), standard, tiny.test, tiny.train)
    with pytest.raises(uebench.UserError, match="was changed since the cell was planned"):
        victim.train(tiny.train, target, make_run(tiny))


def test_another_data_set_is_trained_on_once(
    tiny: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def load(spec: str) -> Dataset:
        calls.append(spec)
        return load_dataset(OTHER)

    monkeypatch.setattr(transfer, "_dataset", load)
    first = trained(tiny, "linear_probe[pretrain_on=other]", store)
    n_loads = len(calls)
    again = trained(tiny, "linear_probe[pretrain_on=other]", store)
    assert len(calls) == n_loads + 1, "the second time only to be planned"
    features = [t.model.encoder.state_dict() for t in (first, again)]
    assert all(torch.equal(features[0][name], features[1][name]) for name in features[0])
    scratch = build_network(ARCH, 2, tiny.shape, 0).state_dict()
    assert not torch.allclose(features[0]["0.0.weight"], scratch["0.0.weight"])


def test_images_of_another_size_are_refused(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    other = load_dataset("synthetic[n_train=20,n_test=10,size=24]")
    monkeypatch.setattr(transfer, "_dataset", lambda spec: other)
    with pytest.raises(ValueError, match=r"shape \[3, 24, 24\], and \[3, 16, 16\] is needed"):
        cells(tiny, victims="finetune[pretrain_on=other]")


def test_images_are_resized_and_normalised_inside_the_network(weights: Path, tiny: Dataset) -> None:
    plain = trained(tiny, f"linear_probe[weights={weights}]").model
    options = f"weights={weights},size=32,normalise=imagenet"
    model = trained(tiny, f"linear_probe[{options}]").model.eval()
    seen: list[torch.Tensor] = []
    model.model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = torch.full((2, 3, 16, 16), 0.485)
    model(images)
    assert seen[0].shape == (2, 3, 32, 32)
    assert seen[0][:, 0].abs().max() < 1e-5
    assert set(plain.state_dict()) == set(model.model.state_dict())


def test_the_network_of_the_protocol_transfer_is_a_fine_tuned_resnet18(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(build_network("resnet18[form=imagenet]", 7, tiny.shape, 5).state_dict(), path)
    models: list[torch.nn.Module] = []
    monkeypatch.setattr(transfer, "train_supervised", lambda data, target, run, m: models.append(m))
    facts = Facts("test", tiny.n_classes, tiny.shape, 1, ARCH)
    victim = build_victim(f"finetune[weights={path},size=96,normalise=imagenet]").resolve(facts)
    standard, protocol = build_defense("standard").method, named_protocol("transfer")
    target = Target("resnet18", protocol, standard, tiny.test, tiny.train)
    victim.train(tiny.train, target, make_run(tiny))
    alone = build_network(f"resnet18_imagenet[weights={path},size=96]", 2, tiny.shape, 0)
    (tuned,) = models
    assert tuned.state_dict().keys() == alone.state_dict().keys()
    head = {n: v for n, v in tuned.state_dict().items() if ".fc." in n}
    alone.load_state_dict(head, strict=False)  # each draws its new last layer
    images = tiny.train.pixels(torch.arange(4))
    assert torch.equal(tuned.eval()(images), alone.eval()(images))


def test_a_defense_acts_in_the_loss_of_a_pretrained_victim(weights: Path, tiny: Dataset) -> None:
    clean = uebench.craft("none", tiny, device="cpu")
    curves = [
        uebench.train(
            clean,
            defense,
            tiny,
            victim=f"finetune[weights={weights}]",
            arch=ARCH,
            epochs=1,
            device="cpu",
        )["curve"]
        for defense in ("standard", "mixup")
    ]
    assert curves[0] != curves[1]
