"""The time left, as it is estimated from what has been done."""

from types import SimpleNamespace
from typing import Any

import pytest

from uebench.execute import progress
from uebench.execute.progress import ProgressDisplay, TimeLeft, step_display
from uebench.execute.tasks import Event


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return a clock whose time, in seconds, a test sets."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.s)
    return now


def task(kind: str, key: str, effort: float = 1.0) -> Any:
    cell = SimpleNamespace(
        defense=SimpleNamespace(effort=lambda: effort),
        victim=SimpleNamespace(effort=lambda _: 1.0),
        protocol=SimpleNamespace(epochs=2),
    )
    return SimpleNamespace(kind=kind, key=key, cell=cell, describe=lambda: f"{kind} {key}")


def test_the_time_left_follows_from_each_kind_and_the_effort(clock: SimpleNamespace) -> None:
    poison, light, heavy = task("poison", "p"), task("cell", "a"), task("cell", "b", effort=3.0)
    left = TimeLeft([poison, light, heavy], jobs=2)
    left.note(Event("start", poison))
    clock.s = 10.0
    left.note(Event("progress", poison, 0.5))
    assert left.seconds() is None, "no training has begun"
    clock.s = 20.0
    left.note(Event("done", poison, 1.0))
    left.note(Event("start", light))
    clock.s = 30.0
    left.note(Event("done", light, 1.0))
    assert left.seconds() == pytest.approx(3 * 10.0 / 2), "three times the effort, two jobs"
    left.note(Event("start", heavy))
    clock.s = 45.0
    left.note(Event("progress", heavy, 0.5))
    assert left.seconds() == pytest.approx(15.0 / 2, rel=0.01)
    left.note(Event("done", heavy, 1.0))
    assert left.seconds() == 0


def test_a_failure_takes_its_work_away_and_a_restart_begins_again(clock: SimpleNamespace) -> None:
    cells = [task("cell", key) for key in "abc"]
    left = TimeLeft(cells, jobs=1)
    left.note(Event("start", cells[0]))
    clock.s = 4.0
    left.note(Event("done", cells[0], 1.0))
    left.note(Event("failed", cells[1], 1.0, "its poison failed"))
    assert left.seconds() == pytest.approx(4.0)
    left.note(Event("start", cells[2]))
    clock.s = 6.0
    left.note(Event("start", cells[2]))
    left.note(Event("done", cells[2], 1.0))
    assert left.seconds() == 0


def test_no_time_left_is_not_printed(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [task("cell", key) for key in "ab"]
    with ProgressDisplay(2, False, TimeLeft(cells, 2)) as display:
        for cell in cells:
            display(Event("start", cell))
        clock.s = 9.0
        display(Event("progress", cells[1], 1.0))
        display(Event("done", cells[0], 1.0))
    assert capsys.readouterr().err.rstrip().endswith(": 9.0 s")


def test_the_lines_of_a_run_and_of_one_task_say_what_is_left(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [task("cell", key) for key in "ab"]
    with ProgressDisplay(2, False, TimeLeft(cells, 1)) as display:
        display(Event("start", cells[0]))
        clock.s = 90.0
        display(Event("done", cells[0], 1.0))
        display(Event("start", cells[1]))
        display(Event("done", cells[1], 1.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["[1/2] cell a: 90.0 s, about 90 s left", "[2/2] cell b: 0.0 s"]
    poison = task("poison", "p")
    with ProgressDisplay(2, False, TimeLeft([poison, cells[0]], 1)) as display:
        display(Event("start", poison))
        clock.s += 60.0
        display(Event("progress", poison, 0.25, "round 5"))
    line = capsys.readouterr().err
    assert line == "        poison p: 25% round 5, about 3 min left\n", "no training was timed yet"
    with step_display("craft em", False) as show:
        show(0.1, "round 1")
        clock.s += 120.0
        show(0.25, "round 2")
    assert capsys.readouterr().err == "craft em: 25% round 2, about 6 min left\n"


def test_a_search_that_may_end_sooner_has_a_bound_and_no_estimate(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    poison, other = task("poison", "p"), task("poison", "q")
    with ProgressDisplay(2, False, TimeLeft([poison, other], 1)) as display:
        display(Event("start", poison))
        clock.s += 60.0
        display(Event("progress", poison, 0.25, "round 5", at_most=True))
        assert capsys.readouterr().err == "        poison p: 25% round 5, at most 3 min left\n"
        display(Event("start", other))
        clock.s += 60.0
        display(Event("done", other, 1.0))
        assert capsys.readouterr().err.endswith("poison q: 60.0 s, at most 2 min left\n")
    with step_display("craft em", False) as show:
        show(0.1, "round 1", True)
        clock.s += 120.0
        show(0.25, "round 2", True)
    assert capsys.readouterr().err == "craft em: 25% round 2, at most 6 min left\n"


def test_a_search_that_follows_a_training_has_a_pace_of_its_own(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training takes ten minutes, and each percent of the search one."""
    poison, other = task("poison", "p"), task("poison", "q")
    left = TimeLeft([poison, other], 1)
    with ProgressDisplay(2, False, left) as display:
        display(Event("start", poison))
        for minute in range(1, 11):
            clock.s = 60.0 * minute
            display(Event("progress", poison, minute / 10, f"epoch {minute}"))
        clock.s += 60.0
        display(Event("progress", poison, 0.01, "noise"))
        clock.s += 60.0
        display(Event("progress", poison, 0.02, "noise"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "        poison p: 10% epoch 1, about 9 min left"
    assert [line.split(", ")[1] for line in lines[-2:]] == [
        "about 99 min left",
        "about 98 min left",
    ]
    assert left.seconds() == pytest.approx(60 * (98 + 100)), "the other one searches as long"
    display(Event("done", poison, 1.0))
    assert capsys.readouterr().err.startswith("[1/2] poison p: 720.0 s, about 12 min left")
    with step_display("craft em", False) as show:
        clock.s += 60.0
        show(1.0, "trained")
        clock.s += 60.0
        show(0.5, "searched")
    assert capsys.readouterr().err.splitlines()[-1] == "craft em: 50% searched, about 60 s left"
