"""The fault campaign, small: each scene once. The long one is `make faults`."""

from collections.abc import Callable

import pytest

from . import scenes
from .scenes import Stage, Tally

pytestmark = pytest.mark.timeout(600)  # on a busy machine; seconds on two free cores


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """One stage for all scenes: its reference is computed once, and its forkserver serves all."""
    return Stage(tmp_path_factory.mktemp("stage"))


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(scenes.out_of_memory, marks=pytest.mark.slow),
        scenes.hanging,
        scenes.diverging,
        scenes.rude_method,
    ],
)
def test_what_a_method_does_harms_its_cell_alone(
    stage: Stage, scene: Callable[[Stage], Tally]
) -> None:
    assert scene(stage).lost == []


def test_killed_workers_are_replaced(stage: Stage) -> None:
    assert scenes.workers_killed(stage, 3).lost == []


@pytest.mark.slow
def test_a_killed_forkserver_is_replaced(stage: Stage) -> None:
    assert scenes.forkserver_killed(stage).lost == []


@pytest.mark.slow
def test_a_killed_driver_takes_its_workers_along(stage: Stage) -> None:
    assert scenes.drivers_killed(stage, 1).lost == []


@pytest.mark.slow
def test_drivers_on_one_store_share_the_work(stage: Stage) -> None:
    assert scenes.many_drivers(stage, 3).lost == []


@pytest.mark.slow
def test_nothing_depends_on_the_wall_clock(stage: Stage) -> None:
    assert scenes.jumping_clock(stage).lost == []
