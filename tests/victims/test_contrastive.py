"""Victims without labels: their losses, what they resolve to, their probe, and that they learn."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import uebench
from tests.cells.test_plan import cells
from tests.conftest import make_run
from uebench import Defense, Facts
from uebench.augment import contrastive
from uebench.data import Dataset
from uebench.learn.protocol import PROTOCOLS, named_protocol
from uebench.methods.registry import build_defense, build_victim
from uebench.methods.run import Run
from uebench.methods.victim import Target
from uebench.models import build_network, encoder_of, penultimate
from uebench.store.store import Store
from uebench.victims.contrastive import Contrastive
from uebench.victims.momentum import BYOL, MoCo, SimSiam
from uebench.victims.probe import linear_probe, neighbours_accuracy
from uebench.victims.simclr import SimCLR, nt_xent

SHAPE = (3, 16, 16)


def resolved(spec: str, epochs: int = 12, batch_size: int = 64) -> Any:
    facts = Facts("test", 2, SHAPE, epochs, "resnet8", batch_size=batch_size)
    return build_victim(spec).resolve(facts)


def test_nt_xent_is_the_cross_entropy_of_finding_the_other_view() -> None:
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    unit = z / z.norm(dim=1, keepdim=True)
    losses = []
    for i in range(6):
        partner = (i + 3) % 6
        weights = {j: (unit[i] @ unit[j] / 0.5).exp() for j in range(6) if j != i}
        losses.append(-(weights[partner] / sum(weights.values())).log())
    assert nt_xent(z, 0.5).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_moco_compares_with_its_queue_and_replaces_the_oldest() -> None:
    options = MoCo(queue=5, dim=4, hidden=8, temperature=0.2)
    encoder, n = encoder_of(build_network("mlp2[width=8]", 2, SHAPE, 0))
    objective: Any = options.objective(encoder, n)
    before = objective.queue.clone()
    own, target = torch.randn(2, 4), torch.randn(2, 4)
    unit = [t / t.norm(dim=1, keepdim=True) for t in (own, target)]
    scores = torch.cat(((unit[0] * unit[1]).sum(1, keepdim=True), unit[0] @ before.T), 1) / 0.2
    expected = -scores.log_softmax(1)[:, 0].mean()
    assert objective.compare(own, target).item() == pytest.approx(expected.item(), rel=1e-5)
    objective.compare(target, own)
    objective.after_step()
    assert torch.allclose(objective.queue[:4], torch.cat((unit[1], unit[0])))
    assert torch.equal(objective.queue[4], before[4])
    objective.compare(own, target)
    objective.after_step()
    assert torch.allclose(objective.queue[4], unit[1][0])
    assert torch.allclose(objective.queue[0], unit[1][1])


@pytest.mark.parametrize(("cls", "keeps"), [(BYOL, 0.999), (MoCo, 0.99)])
def test_a_running_mean_follows_without_a_gradient(cls: Any, keeps: float) -> None:
    encoder, n = encoder_of(build_network("mlp2[width=8]", 2, SHAPE, 0))
    objective = cls(dim=4, hidden=8).objective(encoder, n)
    assert not any(p.requires_grad for p in objective.follower.parameters())
    first, second = torch.rand(2, 6, *SHAPE)
    objective.loss(first, second).backward()
    weight = objective.branch.encoder[1].weight
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        weight += 1
    mean = objective.follower.encoder[1].weight.clone()
    objective.after_step()
    assert torch.allclose(objective.follower.encoder[1].weight, keeps * mean + (1 - keeps) * weight)


def test_simsiam_gets_its_gradient_through_the_predicting_side_alone() -> None:
    encoder, n = encoder_of(build_network("mlp2[width=8]", 2, SHAPE, 0))
    objective: Any = SimSiam(dim=4, hidden=8).objective(encoder, n)
    first, second = torch.rand(2, 6, *SHAPE)
    loss = objective.loss(first, second)
    one, other = objective.branch(first), objective.branch(second)
    cos = torch.nn.functional.cosine_similarity
    p, q = objective.predictor(one), objective.predictor(other)
    by_hand = -(cos(p, other.detach()).mean() + cos(q, one.detach()).mean()) / 2
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    weight = objective.branch.encoder[1].weight
    gradients = [torch.autograd.grad(v, weight, retain_graph=True)[0] for v in (loss, by_hand)]
    assert torch.allclose(*gradients, atol=1e-6)
    with_target = -(cos(p, other).mean() + cos(q, one).mean()) / 2
    assert not torch.allclose(torch.autograd.grad(with_target, weight)[0], gradients[0], atol=1e-6)


@pytest.mark.parametrize(
    ("protocol", "epochs", "batch_size", "lr"),
    [("quick", 60, 256, 0.25), ("sprint", 80, 512, 0.5), ("paper", 1000, 512, 0.5)],
)
def test_settings_scale_with_the_protocol_up_to_the_papers(
    protocol: str, epochs: int, batch_size: int, lr: float
) -> None:
    chosen = PROTOCOLS[protocol]
    victim = resolved("simclr", chosen.epochs, chosen.batch_size)
    assert (victim.epochs, victim.batch_size, victim.lr) == (epochs, batch_size, lr)
    assert (victim.crop, victim.probe, victim.temperature) == (0.2, "clean", 0.5)
    assert victim.warmup_epochs == epochs / 100


def test_the_papers_conventions_are_named() -> None:
    found = {
        name: (v.epochs, v.batch_size, v.lr, v.warmup_epochs, v.crop, v.probe)
        for name in ("apbench", "cp", "aue")
        for v in [resolved(f"simclr[convention={name}]")]
    }
    assert found == {
        "apbench": (500, 512, 0.5, 0, 0.2, "clean"),
        "cp": (1000, 512, 0.5, 0, 0.2, "clean"),
        "aue": (1000, 512, 0.5, 10, 0.08, "poisoned"),
    }
    rates = {name: resolved(f"{name}[convention=aue]").lr for name in ("moco", "byol", "simsiam")}
    assert rates == {"moco": 0.3, "byol": 1.0, "simsiam": 0.1}
    assert resolved("simclr[convention=aue,epochs=70]").epochs == 70, "the user's options win"


def test_a_warm_up_that_takes_the_whole_training_is_refused() -> None:
    assert resolved("simclr[epochs=7,warmup_epochs=6]").warmup_epochs == 6
    for spec in (
        "simclr[epochs=7,warmup_epochs=7]",
        "byol[convention=cp,warmup_epochs=1000]",
        "simclr[convention=aue,epochs=7]",
    ):
        with pytest.raises(ValueError, match=r"leaves none of the (7|1000) epochs"):
            resolved(spec)


def test_the_key_has_what_a_convention_means_and_not_its_name(tiny: Dataset) -> None:
    def key(spec: str, **options: Any) -> str:
        given = {"attacks": "none", "defenses": "standard", "victims": spec}
        (cell,) = cells(tiny, **given, protocol_options=options)
        return cell.key

    spelled = "simclr[epochs=1000,batch_size=512,lr=0.5,warmup_epochs=0,crop=0.2,probe=clean]"
    assert key("simclr[convention=cp]") == key(spelled) != key("simclr")
    assert key("simclr", lr=0.01) == key("simclr"), "the protocol's rate changes no number"
    assert key("simclr", flip=False) != key("simclr")


def test_rates_rise_and_then_fall_along_a_cosine() -> None:
    victim = resolved("simclr[epochs=100,lr=1,warmup_epochs=10]")
    rates = [victim._rate(epoch / 4) for epoch in range(400)]
    assert rates[0] < 0.01
    assert max(rates) == pytest.approx(1)
    assert rates.index(max(rates)) == 40
    assert rates[220] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 0.001
    assert all(rate > 0 for rate in rates)


def test_views_show_at_least_a_share_and_digits_are_not_mirrored() -> None:
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32).contiguous()
    rng = torch.Generator().manual_seed(0)
    shown = contrastive(ramp, rng, 0.0, crop=0.25, mirror=False)
    span = shown[:, 0, 0, -1] - shown[:, 0, 0, 0]
    assert (span > 0).all(), "never mirrored"
    assert span.min() < 0.7
    assert span.min() > 0.4, "sides of a quarter of the area, at most 4/3 from square"
    mirrored = contrastive(ramp, rng, 0.0, crop=1.0)
    assert 0 < (mirrored[:, 0, 0, -1] < mirrored[:, 0, 0, 0]).float().mean() < 1


@pytest.mark.parametrize("arch", ["resnet8[width=8]", "resnet9[width=8]", "mlp2[width=8]"])
def test_an_encoder_is_the_network_below_its_last_layer(arch: str) -> None:
    images = torch.rand(3, *SHAPE)
    model = build_network(arch, 5, SHAPE, 0).eval()
    features = penultimate(model, images)
    encoder, n = encoder_of(model)
    assert features.shape == (3, n)
    factor = 0.125 if arch.startswith("resnet9") else 1  # which scales what its last layer returns
    assert torch.allclose(encoder(images), factor * features)


def separable(dataset: Dataset) -> Dataset:
    """Return the data set with one bright pixel in the images of class 1."""
    parts = []
    for split in (dataset.train, dataset.test):
        images = split.images.clone() // 8
        images[split.labels == 1, :, 0, 0] = 255
        parts.append(split.with_images(images))
    return replace(dataset, train=parts[0], test=parts[1])


def test_a_probe_and_neighbours_find_what_features_show(tiny: Dataset) -> None:
    dataset, run = separable(tiny), make_run(tiny)
    pixels = torch.nn.Sequential(torch.nn.AdaptiveMaxPool2d(2), torch.nn.Flatten())
    model = linear_probe(pixels, dataset.train, run)
    right = model(dataset.test.pixels()).argmax(1) == dataset.test.labels
    assert right.float().mean() == 1
    assert neighbours_accuracy(pixels, dataset.train, dataset.test, run) > 0.8
    again = linear_probe(pixels, dataset.train, make_run(tiny, 1))
    assert torch.equal(model.head.weight, again.head.weight), "no seed changes it"
    inputs = model.standardised(pixels(dataset.train.pixels()))
    loss = torch.nn.functional.cross_entropy(model.head(inputs), dataset.train.labels)
    loss = loss + model.head.weight.square().sum() / (2 * len(inputs))
    (gradient,) = torch.autograd.grad(loss, model.head.weight)
    assert gradient.abs().max() < 1e-3, "solved"


def trained(dataset: Dataset, spec: str, poisoned: Dataset | None = None) -> Any:
    victim = resolved(spec)
    protocol = named_protocol("quick", "")
    standard = build_defense("standard").method
    target = Target("resnet8[width=8]", protocol, standard, dataset.test, dataset.train)
    return victim.train((poisoned or dataset).train, target, make_run(dataset))


def test_the_probe_looks_at_clean_images_unless_asked_otherwise(tiny: Dataset) -> None:
    swapped = replace(tiny, train=replace(tiny.train, labels=1 - tiny.train.labels))
    options = "epochs=1,hidden=8,dim=4,batch_size=20"
    clean = trained(tiny, f"simclr[{options}]", swapped)
    own = trained(tiny, f"simclr[{options},probe=poisoned]", swapped)
    assert torch.allclose(clean.model.head.weight, -own.model.head.weight, atol=1e-3)
    assert clean.record["train_acc"] < 0.5 < own.record["train_acc"]


@pytest.mark.parametrize("name", ["simclr", "moco", "byol", "simsiam"])
def test_labels_change_no_encoder_and_the_last_epoch_counts(name: str, tiny: Dataset) -> None:
    swapped = replace(tiny, train=replace(tiny.train, labels=1 - tiny.train.labels))
    spec = f"{name}[epochs=2,hidden=8,dim=4,batch_size=20]"
    first, second = trained(tiny, spec), trained(tiny, spec, swapped)
    weights = [t.model.encoder.state_dict() for t in (first, second)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    record = first.record
    assert [row["epoch"] for row in record["curve"]] == [1, 2]
    assert record["test_acc"] == record["test_acc_best"] == record["curve"][-1]["test_acc"]
    assert 0 <= record["knn_acc"] <= 1


def test_defenses_act_on_images_before_the_views(tiny: Dataset) -> None:
    class Seen(uebench.Defense):
        def after_crop(self, images: torch.Tensor, run: uebench.Run) -> torch.Tensor:
            return torch.zeros_like(images)

    standard = build_defense("standard").method
    batch = torch.arange(6)
    victim: Contrastive = SimCLR(epochs=1, crop=0.2)
    views = []
    for defense in (standard, Seen()):
        target = Target("resnet8", PROTOCOLS["quick"], defense, tiny.test, tiny.train)
        views.append(victim._views(tiny.train, batch, target, make_run(tiny)))
    assert not torch.equal(views[0][0], views[0][1]), "each view draws for itself"
    assert views[0][0].shape == (6, *tiny.shape)
    assert views[1][0].abs().max() == 0


@pytest.mark.parametrize(("lost", "border"), [((2, 2), 1), ((1, 3), 2), ((-3, -2), 0)])
def test_images_that_a_defense_returns_in_another_size_fit_the_network(
    lost: tuple[int, int], border: int, tiny: Dataset
) -> None:
    c, h, w = tiny.shape

    class Resized(uebench.Defense):
        def before_crop(self, images: torch.Tensor, run: uebench.Run) -> torch.Tensor:
            return torch.ones(len(images), c, h - lost[0], w - lost[1])

        def after_crop(self, images: torch.Tensor, run: uebench.Run) -> torch.Tensor:
            assert images.shape[1:] == tiny.shape
            inside = images[:, :, border : h - border, border : w - border]
            assert (inside == 1).all(), "no more is black than has to be"
            return images

    victim: Contrastive = SimCLR(epochs=1, crop=0.2)
    target = Target("resnet8", PROTOCOLS["quick"], Resized(), tiny.test, tiny.train)
    first, _ = victim._views(tiny.train, torch.arange(6), target, make_run(tiny))
    assert first.shape == (6, *tiny.shape)


def test_a_defense_that_makes_images_smaller_trains_under_a_contrastive_victim(
    tiny: Dataset,
) -> None:
    options = "epochs=1,hidden=8,dim=4,batch_size=20"
    table = uebench.run(
        *("none", "rsk_ff", tiny.name),
        victims=[f"simclr[{options}]"],
        protocol="quick",
        arch="resnet9[width=2]",
        quiet=True,
    )
    assert list(table["status"]) == ["ok"]


def test_contrastive_learning_finds_classes_without_labels() -> None:
    """On 400 images of two kinds of stripes, whose colours say nothing."""
    rng = torch.Generator().manual_seed(0)
    n = 400
    labels = torch.arange(n) % 2
    phase = torch.randint(0, 4, (n,), generator=rng)
    wave = ((torch.arange(16)[None] + phase[:, None]) % 4 < 2).float()
    flat = torch.where(labels[:, None, None] == 1, wave[:, None, :], wave[:, :, None])
    colour = torch.rand(n, 3, 1, 1, generator=rng)
    images = (flat[:, None].expand(n, 1, 16, 16) * colour * 255).byte()
    arrays = images.permute(0, 2, 3, 1).numpy()
    dataset = uebench.data.from_arrays(
        "stripes", (arrays[:300], labels[:300].numpy()), (arrays[300:], labels[300:].numpy()), None
    )
    spec = "simclr[epochs=12,batch_size=64,hidden=64,dim=16,crop=0.5]"
    record = trained(dataset, spec).record
    assert record["curve"][-1]["loss"] < record["curve"][0]["loss"]
    assert record["knn_acc"] > 0.9
    assert record["test_acc"] > 0.9


class Fading(Defense):
    """Darkens images more in every batch, so that its state matters."""

    _n: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n": self._n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._n = state["n"]

    def before_crop(self, images: Tensor, run: Run) -> Tensor:
        self._n += 1
        return images * 0.9**self._n


def test_the_state_of_a_defense_is_resumed_as_well(
    tiny: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_CHECKPOINT_S", "0")
    victim = resolved("simclr[epochs=3,hidden=8,dim=4,batch_size=20]")

    def curve(kill_at: float, **options: Any) -> Any:
        def progress(share: float, *_: object) -> None:
            if share >= kill_at:
                raise KeyboardInterrupt

        target = Target("resnet8[width=8]", PROTOCOLS["quick"], Fading(), tiny.test, tiny.train)
        run = make_run(tiny, progress=progress, **options)
        return victim.train(tiny.train, target, run).record["curve"]

    kept = {"store": store, "leads_to": ("cell", "k")}
    with pytest.raises(KeyboardInterrupt):
        curve(0.6, **kept)
    assert curve(9.0, **kept) == curve(9.0)


def test_the_share_of_the_augmentation_is_recorded(tiny: Dataset) -> None:
    record = trained(tiny, "simclr[epochs=2,hidden=8,dim=4,batch_size=20]").record
    assert 0 < record["augment_share"] < 1


@pytest.mark.parametrize("name", ["simclr", "moco[queue=16", "byol"])
def test_a_killed_training_resumes_and_gives_the_same_model(
    name: str, tiny: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UEBENCH_CHECKPOINT_S", "0")
    spec = f"{name}{',' if '[' in name else '['}epochs=3,hidden=8,dim=4,batch_size=20]"
    standard = build_defense("standard").method
    target = Target("resnet8[width=8]", PROTOCOLS["quick"], standard, tiny.test, tiny.train)

    def run(kill_at: float, **options: Any) -> Any:
        def progress(share: float, *_: object) -> None:
            if share >= kill_at:
                raise KeyboardInterrupt

        training = make_run(tiny, progress=progress, **options)
        return resolved(spec).train(tiny.train, target, training), training.notes

    whole, _ = run(9.0)
    kept = {"store": store, "leads_to": ("cell", "k")}
    with pytest.raises(KeyboardInterrupt):
        run(1.0, **kept)
    resumed, notes = run(9.0, **kept)
    assert notes["resumed"] == {"contrastive": 2}
    assert resumed.record["curve"] == whole.record["curve"]
    assert resumed.record["confusion"] == whole.record["confusion"]
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
