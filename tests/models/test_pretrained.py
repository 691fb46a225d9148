"""ResNet-18 with ImageNet weights: which files are taken, what the key holds, how it is trained."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import uebench
from uebench.cells.cell import Cell, dataset_ref
from uebench.cells.compute import compute
from uebench.cells.config import make_config
from uebench.cells.plan import plan
from uebench.cli import main
from uebench.data import Dataset
from uebench.data.dataset import keep_dataset
from uebench.models import build_network, network_recipe, parse_arch, shown_arch
from uebench.models.pretrained import FILE, MEAN, SD
from uebench.store.store import Store

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights under torchvision's names, with statistics that are not the initial ones."""
    model = build_network("resnet18[form=imagenet]", 1000, SHAPE, 5)
    return {k: v + 0.01 if k.endswith("running_mean") else v for k, v in model.state_dict().items()}


@pytest.fixture
def weights(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def planned(dataset: Dataset, arch: str) -> Cell:
    given = {"attacks": "none", "defenses": "standard", "arch": arch, "protocol": "transfer"}
    given["protocol_options"] = {"epochs": 1, "batch_size": 20}
    (cell,) = plan(make_config(given), [(dataset, dataset_ref(dataset))], "cpu")
    return cell


def test_the_weights_are_the_files_and_the_head_is_new(
    weights: Path, state: dict[str, torch.Tensor]
) -> None:
    spec = f"resnet18_imagenet[weights={weights}]"
    first, other = (build_network(spec, 10, SHAPE, seed).model.state_dict() for seed in (0, 1))
    for name, value in state.items():
        if name.startswith("fc."):
            assert not torch.equal(first[name], other[name])
        else:
            assert torch.equal(first[name], value), name
    assert first["fc.weight"].shape == (10, 512)


def test_images_are_enlarged_and_normalised_inside(weights: Path) -> None:
    model = build_network(f"resnet18_imagenet[weights={weights},size=64]", 10, SHAPE, 0).eval()
    seen = []
    model.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.zeros(2, 3, 32, 32)
    images[:, 0, :, 16:] = 1
    model(images)
    assert seen[0].shape == (2, 3, 64, 64)
    back = seen[0] * torch.tensor(SD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
    assert torch.allclose(back[:, 1:], torch.zeros(()), atol=1e-6)
    assert torch.allclose(back[:, 0, :, :30], torch.zeros(()), atol=1e-6)
    assert torch.allclose(back[:, 0, :, 34:], torch.ones(()), atol=1e-6)
    assert 0 < back[0, 0, 0, 31] < 0.5, "bilinear"
    assert build_network(f"resnet18_imagenet[weights={weights}]", 10, SHAPE, 0).size == 224
    assert model(torch.rand(2, 1, 20, 30)).shape == (2, 10), "grey, any size"


@pytest.mark.parametrize("form", ["safetensors", "state_dict inside", "module. before"])
def test_other_files_of_the_same_weights(
    form: str, weights: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "other.pth")
    if form == "safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    elif form == "state_dict inside":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save({f"module.{k}": v for k, v in state.items() if "tracked" not in k}, path)
    built = [build_network(f"resnet18_imagenet[weights={p}]", 4, SHAPE, 0) for p in (weights, path)]
    assert all(torch.equal(*pair) for pair in zip(*(b.parameters() for b in built), strict=True))


def test_the_key_holds_the_content_and_not_the_path(weights: Path, tiny: Dataset) -> None:
    moved = weights.with_name("moved.pth")
    moved.write_bytes(weights.read_bytes())
    cell, same = (planned(tiny, f"resnet18_imagenet[weights={p}]") for p in (weights, moved))
    assert cell.key == same.key
    assert str(weights) not in str(cell.recipe())
    assert shown_arch(cell.arch) == f"resnet18_imagenet[weights={weights}]"
    assert Cell.from_json(cell.to_json()).key == cell.key
    other = torch.load(weights, weights_only=True)
    other["conv1.weight"][0, 0, 0, 0] += 1
    torch.save(other, moved)
    assert planned(tiny, f"resnet18_imagenet[weights={moved}]").key != cell.key


def test_a_surrogate_with_weights_enters_the_poisons_key_by_content(
    weights: Path, tiny: Dataset
) -> None:
    moved = weights.with_name("moved.pth")
    moved.write_bytes(weights.read_bytes())
    keys = []
    for path in (weights, moved):
        spec = f"resnet18_imagenet[size=32,weights={path}]"
        given = {"attacks": ["em"], "set": {"em.surrogate": spec}, "defenses": "standard"}
        (cell,) = plan(make_config(given), [(tiny, dataset_ref(tiny))], "cpu")
        keys.append(cell.poison.key)
    assert keys[0] == keys[1]


def test_it_is_trained_on_under_its_protocol(weights: Path, tiny: Dataset, store: Store) -> None:
    keep_dataset(store, tiny)
    cell = planned(tiny, f"resnet18_imagenet[weights={weights},size=32]")
    record = compute(cell, store, "cpu")
    assert record["recipe"]["arch"].startswith("resnet18_imagenet[sha256=")
    assert 0 <= record["test_acc"] <= 1
    before, after = (torch.load(weights, weights_only=True)["conv1.weight"] for _ in range(2))
    assert torch.equal(before, after), "the file was written to"


def test_a_file_that_changed_after_the_plan_is_not_used(weights: Path, tiny: Dataset) -> None:
    cell = planned(tiny, f"resnet18_imagenet[weights={weights}]")
    other = torch.load(weights, weights_only=True)
    other["conv1.weight"].zero_()
    torch.save(other, weights)
    with pytest.raises(ValueError, match="was changed since the cell was planned; run again"):
        build_network(cell.arch, 2, SHAPE, 0)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no weights", "holds no state dict"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "has no bn1.weight"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, "has a wrong conv1.weight"),
        (
            {"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)},
            "has NaN or infinite values in conv1.weight",
        ),
        ([1, 2], "holds no state dict"),
    ],
)
def test_files_that_are_no_resnet18(content: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=told) as error:
        parse_arch(f"resnet18_imagenet[weights={path}]")
    assert "\n" not in str(error.value)


def test_without_weights_one_sentence_says_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_DATA", str(tmp_path / "data"))
    done = CliRunner().invoke(
        main,
        ["run", "--attacks", "none", "--defenses", "standard", "--protocol", "transfer"],
    )
    assert done.exit_code == 2
    assert str(tmp_path / "data" / FILE) in done.output.replace("\n", "")
    assert "name the file: resnet18_imagenet[weights=FILE]" in " ".join(done.output.split())
    assert not (tmp_path / "data").exists()


def test_weights_next_to_the_data_sets_are_found(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_DATA", str(tmp_path))
    weights.rename(tmp_path / FILE)
    assert network_recipe(uebench.parse_arch("resnet18_imagenet")[0], SHAPE)["arch"].startswith(
        "resnet18_imagenet[sha256="
    )
