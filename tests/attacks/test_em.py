"""EM's claim: the noise makes the training loss small by itself."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_run
from uebench import frozen
from uebench.attacks.em import EM
from uebench.cells.cell import PoisonRef, dataset_ref
from uebench.data import Dataset, load_dataset
from uebench.learn.protocol import PROTOCOLS
from uebench.methods.base import Attack, Facts
from uebench.methods.registry import build_attack, build_defense
from uebench.victims.supervised import train_model


def made(dataset: Dataset, spec: str) -> Attack:
    facts = Facts("test", dataset.n_classes, dataset.shape, 1, "resnet9[width=4]")
    return build_attack(spec).resolve(facts)


@pytest.mark.slow
def test_noise_lowers_the_loss_of_a_network_in_training_and_transfers() -> None:
    small = load_dataset("synthetic[n_train=300,n_test=90,n_classes=3,size=24]")
    run = make_run(small)
    spec = "em[rounds=8,train_steps=20,steps=5,batch_size=100,surrogate=resnet8]"
    poison = made(small, spec).craft(small.train, run)
    assert poison.meta["em_accuracy"] > 0.9
    protocol = PROTOCOLS["quick"].model_copy(update={"epochs": 30, "batch_size": 25, "lr": 0.05})
    standard = build_defense("standard").method
    losses = {}
    for name, images in (("clean", small.train.images), ("em", poison.images)):
        data = small.train.with_images(images)
        other = make_run(small, 1, epochs=30)  # another seed, so another network
        record = train_model(data, small.test, "resnet8", protocol, standard, other).record
        losses[name] = record["curve"][-1]["loss"]
    assert losses["em"] < 0.5 * losses["clean"]


def test_what_ended_the_search_is_recorded(tiny: Dataset) -> None:
    run = make_run(tiny)
    made(tiny, "em[rounds=1,train_steps=1,steps=1,batch_size=20]").perturb(tiny.train, run)
    assert run.notes["em_ended_by"] == "cap"
    assert run.notes["em_rounds"] == 1
    bounds = []
    run = make_run(tiny, progress=lambda share, text, at_most=False: bounds.append(at_most))
    made(tiny, "em[stop_accuracy=0.01,train_steps=1,steps=1]").perturb(tiny.train, run)
    assert run.notes["em_ended_by"] == "stop test"
    assert bounds == [True], "the time left is a bound"


def test_a_descent_lowers_the_surrogates_loss(tiny: Dataset) -> None:
    run = make_run(tiny)
    attack = made(tiny, "em")
    model = run.network("resnet9[width=4]")
    model.train()
    for _ in range(100):
        model(tiny.train.pixels())  # so that batch norm has statistics
    delta = torch.zeros(tiny.train.images.shape)
    model.eval()

    def loss() -> torch.Tensor:
        with torch.no_grad():
            return F.cross_entropy(model(tiny.train.pixels() + delta), tiny.train.labels)

    before = loss()
    turns = attack.turns(model, run, "noise", 0.0)  # type: ignore[attr-defined]
    attack._descend_images(turns, tiny.train, delta)  # type: ignore[attr-defined]
    assert loss() < before
    assert delta.abs().max() <= 8 / 255 + 1e-6


def test_legacy_export_drops_negative_changes(tiny: Dataset) -> None:
    delta = torch.full(tiny.train.images.shape, -8 / 255)
    delta[::2] = 3.7 / 255
    images = made(tiny, "em[legacy_export=true]").export(tiny.train, delta)
    changed = images.int() - tiny.train.images.int()
    assert (changed[1::2] == 0).all()
    inside = tiny.train.images[::2] < 250
    assert (changed[::2][inside] == 3).all()  # truncated, where ours rounds to 4


def test_only_the_legacy_export_drops_what_is_negative_and_both_clip(tiny: Dataset) -> None:
    images = torch.full_like(tiny.train.images, 250)
    images[:, :, ::2] = 5
    data, delta = tiny.train.with_images(images), torch.full(images.shape, 16 / 255)
    usual, legacy = made(tiny, "em"), made(tiny, "em[legacy_export=true]")
    for method in (usual, legacy):
        raised = method.export(data, delta)
        assert raised[:, :, ::2].unique().tolist() == [21]
        assert raised[:, :, 1::2].unique().tolist() == [255], "not wrapped around"
    assert usual.export(data, -delta)[:, :, 1::2].unique().tolist() == [234]
    assert usual.export(data, -delta)[:, :, ::2].unique().tolist() == [0]
    assert torch.equal(legacy.export(data, -delta), images)


def test_class_wise_noise_is_one_pattern_per_class() -> None:
    data = load_dataset("synthetic[n_train=120,n_test=30,n_classes=3,size=16]")
    attack = made(data, "em[wise=class,rounds=30,batch_size=16,stop_accuracy=0.999]")
    assert attack.options()["steps"] == 1
    run = make_run(data)
    delta = attack.perturb(data.train, run)
    for label in range(3):
        mine = delta[data.train.labels == label]
        assert torch.equal(mine, mine[:1].expand_as(mine))
        assert 0 < mine.abs().max() <= 8 / 255 + 1e-6
    assert not torch.equal(delta[data.train.labels == 0][0], delta[data.train.labels == 1][0])
    assert run.notes["em_accuracy"] > 0.9


def test_another_budget_starts_from_the_same_network() -> None:
    data = load_dataset("synthetic[n_train=40,n_test=20,n_classes=2,size=16]")
    ref = PoisonRef(dataset_ref(data), made(data, "em"), 3, "fp32")
    wider = PoisonRef(dataset_ref(data), made(data, "em[eps=16/255]"), 3, "fp32")
    assert ref.key != wider.key
    assert ref.rng_seed == wider.rng_seed
    assert ref.rng_seed != PoisonRef(ref.dataset, ref.attack, 4, "fp32").rng_seed
    assert ref.rng_seed != PoisonRef(ref.dataset, made(data, "lsp"), 3, "fp32").rng_seed


@pytest.mark.parametrize(
    ("dataset", "side", "expected"),
    [
        ("cifar10", 32, (8 / 255, 10, 20, 0.8 / 255, 0.99, 512, 5e-4)),
        ("cifar100", 32, (8 / 255, 20, 20, 0.8 / 255, 0.99, 512, 5e-5)),
        ("imagenet_subset", 224, (16 / 255, 100, 20, 1.6 / 255, 0.9, 32, 5e-5)),
    ],
)
def test_the_authors_numbers_are_the_defaults(
    dataset: str, side: int, expected: tuple[float, ...]
) -> None:
    facts = Facts(dataset, 10, (3, side, side), 1, "resnet8")
    found = build_attack("em").resolve(facts).options()
    names = ("eps", "train_steps", "steps", "step", "stop_accuracy", "batch_size", "weight_decay")
    assert tuple(found[name] for name in names) == pytest.approx(expected)
    assert found["lr"] == 0.1
    by_class = build_attack("em[wise=class]").resolve(facts).options()
    assert by_class["steps"] == 1
    assert by_class["train_steps"] == (100 if side == 224 else 10), "20 is for each image's noise"


def test_the_usual_weight_decay_is_in_no_key(tiny: Dataset) -> None:
    """Keys from before it was an option hold."""
    assert "weight_decay" not in made(tiny, "em").recipe()
    assert made(tiny, "em[weight_decay=5e-5]").recipe()["weight_decay"] == 5e-5


def test_the_surrogates_steps_are_clipped_and_decayed(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms, decays = [], []
    step = torch.optim.SGD.step

    def noted(self: torch.optim.SGD, *args: object) -> object:
        (group,) = self.param_groups
        norms.append(torch.cat([p.grad.flatten() for p in group["params"]]).norm().item())
        decays.append(group["weight_decay"])
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    loud = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda *a, **k: 1e4 * loud(*a, **k))
    spec = "em[rounds=1,train_steps=3,steps=1,weight_decay=0.25]"
    made(tiny, spec).perturb(tiny.train, make_run(tiny))
    assert norms == pytest.approx([5.0] * 3, rel=1e-3)
    assert decays == [0.25] * 3


def test_an_incomplete_batch_does_not_change_class_wise_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = load_dataset("synthetic[n_train=41,n_test=20,n_classes=2,size=16]")
    attack = made(data, "em[wise=class,batch_size=20]")
    assert isinstance(attack, EM)
    sizes = []
    monkeypatch.setattr(
        EM, "_descend_images", lambda self, turns, part, *_: sizes.append(len(part))
    )
    attack._descend_classes([], data.train, torch.zeros(2, *data.shape), make_run(data))
    assert sizes == [20, 20]
    few = made(data, "em[wise=class,batch_size=64]")
    assert isinstance(few, EM)
    few._descend_classes([], data.train, torch.zeros(2, *data.shape), make_run(data))
    assert sizes == [20, 20, 41], "a share smaller than a batch is one"


def test_a_class_takes_the_mean_of_what_its_images_took(tiny: Dataset) -> None:
    attack = made(tiny, "em[wise=class,batch_size=64]")
    assert isinstance(attack, EM)
    run = make_run(tiny)
    model = run.network("resnet9[width=4]")
    for _ in range(50):
        model(tiny.train.pixels())  # so that batch norm has statistics
    noise = torch.zeros(2, *tiny.shape)
    with frozen(model):
        x = tiny.train.pixels().requires_grad_(True)
        loss = F.cross_entropy(model(x), tiny.train.labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        attack._descend_classes(attack.turns(model, run, "noise", 0.0), tiny.train, noise, run)
    clean = tiny.train.pixels()
    steps = (clean - 0.8 / 255 * gradient.sign()).clamp(0, 1) - clean
    expected = torch.stack([steps[tiny.train.labels == label].mean(0) for label in range(2)])
    assert torch.allclose(noise, expected, atol=2e-4)
