"""What holds on every executor: retries, losses, time limits, and cells that wait for poisons."""

import errno
import math
import time
from collections.abc import Callable, Sequence

import pytest

from uebench.cells.cell import dataset_ref
from uebench.cells.config import make_config
from uebench.cells.failure import Failure, failure
from uebench.cells.plan import plan
from uebench.data import Dataset
from uebench.execute.agenda import Agenda
from uebench.execute.base import Pool, Report
from uebench.execute.drive import LOSS_RETRIES, RETRIES, run_tasks
from uebench.execute.tasks import Event, Task, pending
from uebench.store.store import FullError, Store


class Played(Pool):
    """A pool in which a task does what a script says: a kind of report for each of its tries."""

    busy_wait_s = 0.01

    def __init__(self, script: Callable[[Task], Sequence[str]], slots: int = 2) -> None:
        self.slots = slots
        self.script = script
        self.begun: list[str] = []
        self.started: list[str] = []
        self.running: list[Task] = []
        self.cancelled: list[str] = []
        self.most = 0
        self.closed = False

    def submit(self, tasks: Sequence[Task]) -> None:
        self.begun += [task.key for task in tasks]
        self.running += tasks
        self.most = max(self.most, len(self.running))

    def reports(self, timeout_s: float) -> list[Report]:
        reports = []
        for task in list(self.running):
            tries = self.begun.count(task.key)
            kinds = self.script(task)
            kind = kinds[min(tries, len(kinds)) - 1]
            if len(self.started) < len(self.begun):
                self.started.append(task.key)
                reports.append(Report("start", task.key))
            if kind == "hangs":
                continue
            self.running.remove(task)
            why = Failure("it broke") if kind == "failed" else None
            if kind == "full":
                kind, why = "failed", Failure("the disk is full", full=True)
            reports.append(Report(kind, task.key, text="signal 9", failure=why))  # type: ignore[arg-type]
        return reports

    def cancel(self, key: str) -> None:
        self.cancelled.append(key)
        self.running = [task for task in self.running if task.key != key]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def tasks(tiny: Dataset, store: Store) -> list[Task]:
    """The poison and two cells of lsp, and two cells of clean data."""
    config = make_config({"attacks": "none,lsp", "defenses": "standard,iss"})
    return pending(plan(config, [(tiny, dataset_ref(tiny))], "cpu", store), store)


def play(
    tasks: list[Task],
    script: Callable[[Task], Sequence[str]],
    limit_s: float | None = None,
    stop_at: float = math.inf,
) -> tuple[Played, dict[str, Failure], list[Event]]:
    pool, events = Played(script), list[Event]()
    return pool, run_tasks(tasks, pool, events.append, limit_s, stop_at), events


def test_all_is_done_and_no_cell_begins_before_its_poison(tasks: list[Task]) -> None:
    pool, failed, events = play(tasks, lambda _: ["done"])
    assert not failed
    assert sorted(pool.begun) == sorted(task.key for task in tasks)
    assert pool.most == pool.slots
    assert pool.closed
    moments = [(event.kind, event.task.kind, event.task.cell.poison.is_clean) for event in events]
    crafted = moments.index(("done", "poison", False))
    assert crafted < moments.index(("start", "cell", False))


@pytest.mark.parametrize(("kind", "most"), [("died", RETRIES), ("lost", LOSS_RETRIES)])
def test_dead_and_lost_tasks_are_started_again_a_limited_number_of_times(
    tasks: list[Task], kind: str, most: int
) -> None:
    cell = tasks[-1]
    pool, failed, _ = play(tasks, lambda t: [kind] * most + ["done"] if t == cell else ["done"])
    assert not failed
    assert pool.begun.count(cell.key) == most + 1
    pool, failed, _ = play(tasks, lambda t: [kind] if t == cell else ["done"])
    assert list(failed) == [cell.key]
    assert pool.begun.count(cell.key) == most + 1
    assert f"{most + 1} times (signal 9)" in failed[cell.key].error


def test_a_failed_poison_fails_its_cells_and_no_others(tasks: list[Task]) -> None:
    pool, failed, events = play(tasks, lambda t: ["failed"] if t.kind == "poison" else ["done"])
    hit = {task.key for task in tasks if not task.cell.poison.is_clean}
    assert set(failed) == hit
    assert {why.error for why in failed.values()} == {"it broke", "crafting failed: it broke"}
    assert sum(event.kind == "failed" for event in events) == 3
    assert len(pool.begun) == 3, "its cells were never begun"


@pytest.mark.parametrize("kind", ["full", "died"])
def test_a_full_disk_ends_the_run_and_fails_nothing(tasks: list[Task], kind: str) -> None:
    pool, events = Played(lambda t: [kind] if t.kind == "poison" else ["done"]), list[Event]()
    if kind == "died":  # a worker elsewhere that cannot write a word on the shared disk

        def check() -> None:
            raise FullError("the disk is full")

        pool.check = check  # type: ignore[method-assign]
    with pytest.raises(FullError, match="the disk is full"):
        run_tasks(tasks, pool, events.append)
    assert pool.closed
    assert "failed" not in {event.kind for event in events}


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (FullError("cannot write to the store"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("No space left on device"), False),
    ],
)
def test_a_full_disk_is_known_by_its_number(error: Exception, full: bool) -> None:
    assert failure(error).full is full
    try:
        raise ValueError("it cannot be kept") from error
    except ValueError as other:
        assert failure(other).full is full


def test_tasks_held_by_another_run_are_tried_again(tasks: list[Task]) -> None:
    pool, failed, _ = play(tasks, lambda t: ["busy", "busy", "done"])
    assert not failed
    assert len(pool.begun) == 3 * len(tasks)


def test_a_poison_that_another_run_made_comes_before_what_waits_for_none(
    tasks: list[Task],
) -> None:
    def script(task: Task) -> list[str]:
        if task.kind == "poison":
            return ["busy", "done"]
        time.sleep(2 * Played.busy_wait_s)
        return ["done"]

    pool = Played(script, slots=1)
    assert not run_tasks(tasks, pool, lambda _: None)
    crafted, clean = tasks[0].key, [t.key for t in tasks if t.cell.poison.is_clean]
    assert pool.begun[:3] in ([crafted, clean[0], crafted], [crafted, clean[1], crafted])


def test_a_task_that_hangs_is_cancelled_once(tasks: list[Task]) -> None:
    cell = tasks[-1]
    script = lambda t: ["hangs"] if t == cell else ["done"]  # noqa: E731
    pool, failed, _ = play(tasks, script, limit_s=0.3)
    assert pool.cancelled == [cell.key]
    assert (
        failed[cell.key].error == "it took longer than its time limit of 0.005 min (--time-limit)"
    )


def test_an_interrupted_run_closes_its_pool(tasks: list[Task]) -> None:
    pool = Played(lambda _: ["done"])

    def listen(event: Event) -> None:
        if event.kind == "done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks, pool, listen)
    assert pool.closed


def test_a_run_that_may_not_go_on_ends_and_fails_nothing(tasks: list[Task]) -> None:
    begun = time.monotonic()
    stop_at = begun + 0.3
    pool, failed, events = play(tasks, lambda _: ["hangs"], stop_at=stop_at)
    assert time.monotonic() - begun < 5
    assert pool.closed
    assert not failed
    assert {event.kind for event in events} == {"start"}
    pool, _, _ = play(tasks, lambda _: ["done"], stop_at=time.monotonic())
    assert not pool.begun


def test_the_wait_for_a_report_ends_with_the_run(tasks: list[Task]) -> None:
    assert Agenda(list(tasks)).patience(time.monotonic() + 1) <= 1
    assert Agenda(list(tasks)).patience(time.monotonic() - 1) < 0.1


def test_as_listed_each_poison_comes_before_its_first_cell(tiny: Dataset, store: Store) -> None:
    config = make_config({"attacks": "lsp,none,ar", "defenses": "standard,ueraser"})
    cells = sorted(
        plan(config, [(tiny, dataset_ref(tiny))], "cpu", store),
        key=lambda cell: cell.defense.info.name,
    )
    order = [
        (t.kind, t.cell.poison.attack.info.name, t.cell.defense.info.name)
        for t in pending(cells, store, as_listed=True)
    ]
    assert order == [
        ("poison", "lsp", "standard"),
        ("cell", "lsp", "standard"),
        ("cell", "none", "standard"),
        ("poison", "ar", "standard"),
        ("cell", "ar", "standard"),
        ("cell", "lsp", "ueraser"),
        ("cell", "none", "ueraser"),
        ("cell", "ar", "ueraser"),
    ]


@pytest.fixture
def mixed(tiny: Dataset, store: Store) -> list[Task]:
    """Two poisons, the mixture of both, and a cell of the mixture and one of clean data."""
    config = make_config({"attacks": "none,mix[lsp=0.5,p5=0.5]", "defenses": "standard"})
    return pending(plan(config, [(tiny, dataset_ref(tiny))], "cpu", store), store)


def test_a_mixture_begins_after_its_parts_and_its_cell_after_it(mixed: list[Task]) -> None:
    pool, failed, _ = play(mixed, lambda _: ["done"])
    assert not failed
    lsp, p5, mixture = (task.key for task in mixed if task.kind == "poison")
    (cell,) = (t.key for t in mixed if t.kind == "cell" and not t.cell.poison.is_clean)
    order = [pool.begun.index(key) for key in (lsp, p5, mixture, cell)]
    assert order == sorted(order)
    assert len(pool.begun) == len(mixed) == 5


@pytest.mark.parametrize("broken", [["lsp"], ["lsp", "p5"]])
def test_a_mixture_fails_with_a_part_and_clean_cells_do_not(
    mixed: list[Task], broken: list[str]
) -> None:
    def script(task: Task) -> list[str]:
        return ["failed"] if task.cell.poison.attack.info.name in broken else ["done"]

    pool, failed, events = play(mixed, script)
    parts = [t.key for t in mixed if t.kind == "poison" and t.cell.attack_spec in broken]
    waiting = [t.key for t in mixed if "mix" in t.cell.attack_spec]
    assert set(failed) == {*parts, *waiting}
    assert not set(waiting) & set(pool.begun)
    assert sum(event.kind == "failed" for event in events) == len(failed), "each is announced once"
