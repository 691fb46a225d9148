"""A network that diverged ends the crafting: clean images must never pass for a poison."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import make_run
from uebench.common.errors import MethodError
from uebench.data import Dataset
from uebench.learn.loops import DivergedError
from uebench.methods.run import Run
from uebench.testing.subject import Subject

TRAINED_ALONG = ["em", "em[wise=class]", "adaptive_em", "aue", "mi_ue", "rem", "sem", "pue", "gue"]
TRAINED_BEFORE = ["tap", "entf", "aap", "hypo", "p3", "p4", "sep", "sep_fa", "sep_fa_vr"]


@pytest.mark.parametrize("spec", TRAINED_ALONG + TRAINED_BEFORE)
def test_a_network_that_diverged_ends_the_search(
    spec: str, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Run.network

    def diverged(run: Run, *args: Any, **kwargs: Any) -> nn.Module:
        model = network(run, *args, **kwargs)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
        return model

    monkeypatch.setattr(Run, "network", diverged)
    monkeypatch.setattr(Run, "surrogate", lambda run, data, arch, **_: run.network(arch))
    monkeypatch.setattr(
        Run,
        "surrogates",
        lambda run, data, arch, checkpoints, **_: [run.network(arch)] * checkpoints,
    )
    attack = Subject.of("attack", spec).attack(tiny)
    with pytest.raises((DivergedError, MethodError), match="diverged"):
        attack.craft(tiny.train, make_run(tiny))


def test_a_linear_surrogate_that_diverged_ends_pil(tiny: Dataset) -> None:
    """PIL trains its surrogate without `Run.network`; the sign of NaN is 0, a step of no length."""
    attack = Subject.of("attack", "pil[lr=100,epochs=500]").attack(tiny)
    with pytest.raises(DivergedError, match="linear surrogate of pil diverged"):
        attack.craft(tiny.train, make_run(tiny))
