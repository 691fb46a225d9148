"""Learning rates by hand, for each schedule: four epochs of five steps."""

import pytest

from uebench.common.errors import UserError
from uebench.learn.protocol import PROTOCOLS, named_protocol


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {0: 1, 10: 0.5, 15: 0.5 - 0.5**1.5, 20: 0}),
        ("step", {0: 1, 9: 1, 10: 0.1, 14: 0.1, 15: 0.01, 19: 0.01}),
        ("onecycle", {0: 1 / 6, 4: 5 / 6, 5: 1, 11: 0.6, 20: 0}),
        ("linear", {0: 1, 5: 0.75, 20: 0}),
        ("constant", {0: 1, 19: 1}),
    ],
)
def test_each_schedule_has_the_rates_of_its_definition(
    schedule: str, expected: dict[int, float]
) -> None:
    flat = {"lr": 0.2, "epochs": 4, "warmup_epochs": 0, "schedule": schedule}
    protocol = PROTOCOLS["quick"].model_copy(update=flat)
    rates = {step: protocol.learning_rate(step, 5) / 0.2 for step in expected}
    assert rates == pytest.approx(expected, abs=1e-12)


def test_a_warm_up_rises_linearly_to_the_rate_of_the_schedule() -> None:
    flat = {"lr": 0.2, "epochs": 4, "warmup_epochs": 1, "schedule": "constant"}
    protocol = PROTOCOLS["quick"].model_copy(update=flat)
    rates = [protocol.learning_rate(step, 5) / 0.2 for step in range(8)]
    assert rates == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"momentum": 0}, "set nesterov=false"),
        ({"epochs": 5, "warmup_epochs": 5}, "leaves none of the 5 epochs"),
        ({"head_lr": 1e-4}, "head_lr has no effect with optimizer=sgd; add optimizer=muon"),
        ({"optimizer": "adam", "rest_momentum": 0.5}, "rest_momentum has no effect"),
    ],
)
def test_what_no_training_could_follow_is_refused(changes: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        named_protocol("quick", "synthetic", **changes)
    named_protocol("quick", "synthetic", momentum=0, nesterov=False)
    named_protocol("quick", "synthetic", epochs=5, warmup_epochs=4)


def test_a_changed_rate_is_no_pixel_budget() -> None:
    """0.2 equals 51/255, but only pixel budgets are written as such fractions."""
    protocol = named_protocol("quick", "synthetic", lr=0.2, label_smoothing=0.4)
    assert protocol.name == "quick[lr=0.2,label_smoothing=0.4]"
