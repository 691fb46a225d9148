"""No attack: nothing changes, and there is no budget to set."""

import pytest

from tests.conftest import make_run
from uebench.data import Dataset
from uebench.methods.registry import build_attack


def test_nothing_changes(tiny: Dataset) -> None:
    assert not build_attack("none").method.perturb(tiny.train, make_run(tiny)).any()


@pytest.mark.parametrize("option", ["eps=4/255", "eps=1", "norm=l2"])
def test_a_budget_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"leave eps out|norm must be"):
        build_attack(f"none[{option}]")
    assert build_attack("none[eps=8/255]") == build_attack("none"), "as records have it"
