"""`--dry-run`'s time: the work divided by the processes, never less than what waits in a row."""

from typing import Any, Literal
from unittest.mock import Mock

from uebench.execute.tasks import Task
from uebench.methods.registry import build_attack
from uebench.suite.estimate import projected


def task(
    kind: Literal["poison", "cell"], key: str, poison: str = "p", parts: tuple[str, ...] = ()
) -> Task:
    cell: Any = Mock(poison=Mock(key=poison, parts=[Mock(key=part) for part in parts]))
    return Task(kind, key, cell)


def test_no_number_of_processes_beats_a_poison_and_its_slowest_cell() -> None:
    seconds = {task("poison", "p"): 30.0, task("cell", "a"): 10.0, task("cell", "b"): 50.0}
    seconds |= {task("cell", str(i), "none"): 10.0 for i in range(15)}
    assert projected(seconds, 1) == 240
    assert projected(seconds, 2) == 120
    assert projected(seconds, 64) == 80, "the poison, then its slowest cell"
    assert projected({}, 8) == 0


def test_a_mixture_waits_for_its_slowest_part() -> None:
    seconds = {task("poison", part, part): s for part, s in (("em", 30.0), ("lsp", 1.0))}
    seconds[task("poison", "p", parts=("em", "lsp"))] = 2.0
    assert projected(seconds, 64) == 32
    seconds[task("cell", "a")] = 10.0
    assert projected(seconds, 64) == 42


def test_a_search_with_a_stop_test_is_counted_as_long_as_it_usually_takes() -> None:
    options = "train_steps=10,steps=20,batch_size=100"
    assert build_attack(f"em[{options}]").method.image_passes(1000) == 7 * 21_000
    assert build_attack(f"adaptive_em[{options}]").method.image_passes(1000) == 12 * 21_000
    assert build_attack(f"em[rounds=5,{options}]").method.image_passes(1000) == 5 * 21_000
