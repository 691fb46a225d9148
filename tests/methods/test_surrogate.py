"""Surrogates: the schedule, the best epoch on held-out images, and one network for all who ask."""

import pytest
import torch

from tests.conftest import make_run
from uebench.data import Dataset
from uebench.methods import run as module
from uebench.store.store import Store


def test_the_best_epoch_on_held_out_images_is_returned(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([0.2, 0.7, 0.5, 0.7, 0.6, 0.1])
    weights: list[dict[str, torch.Tensor]] = []
    rates: list[float] = []
    sizes: list[int] = []
    step = torch.optim.SGD.step

    def judged(model: torch.nn.Module, data: object, run: object) -> float:
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
        sizes.append(len(data))  # type: ignore[arg-type]
        return next(answers)

    def noted(self: torch.optim.SGD, *args: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "accuracy", judged)
    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    run = make_run(tiny)
    model = run.surrogate(tiny.train, "resnet8[width=2]", epochs=6, batch_size=18, lr=0.3)
    assert not model.training
    assert all(torch.equal(value, weights[1][key]) for key, value in model.state_dict().items())
    assert not all(torch.equal(value, weights[5][key]) for key, value in model.state_dict().items())
    assert rates == pytest.approx([0.3] * 8 + [0.03] * 2 + [0.003] * 2)  # 36 images, 2 steps each
    assert sizes == [4] * 6, "a tenth is held out where there are few images"
    assert run.notes["surrogate_held_out_acc"] == 0.7


def test_whoever_asks_for_the_same_gets_the_same(tiny: Dataset, store: Store) -> None:
    first, second = (
        make_run(tiny, seed, store=store).surrogate(tiny.train, "resnet8[width=2]", epochs=1)
        for seed in (1, 2)
    )
    x = tiny.test.pixels()
    assert torch.equal(first(x), second(x))
    assert len(list((store.base / "kept").iterdir())) == 1
    make_run(tiny, 1, store=store).surrogate(tiny.train, "resnet8[width=2]", epochs=2)
    make_run(tiny, 1, store=store, shared_seed=1).surrogate(
        tiny.train, "resnet8[width=2]", epochs=1
    )
    changed = tiny.train.with_images(tiny.train.images.flip(3))
    make_run(tiny, 1, store=store).surrogate(changed, "resnet8[width=2]", epochs=1)
    assert len(list((store.base / "kept").iterdir())) == 4


def test_a_surrogate_that_diverges_is_an_error(tiny: Dataset) -> None:
    with pytest.raises(module.DivergedError, match="lower its learning rate"):
        make_run(tiny).surrogate(tiny.train, "resnet8[width=2]", epochs=5, lr=1e30)
