"""What may go wrong in a run, done for real; each scene returns what it tried and what was lost.

`tests/faults/test_faults.py` plays them once and small, `python -m tests.faults` many times.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import uebench.methods.registry
from uebench.cells.cell import Cell
from uebench.cells.config import make_config
from uebench.store.store import Store
from uebench.suite.matrix import RunOutcome
from uebench.suite.run import execute, prepare

from ..execute.driver import FIELDS, results

METHODS = Path(__file__).with_name("methods.py")
MATRIX = {"attacks": "none,lsp,ar", "defenses": "standard,ueraser_lite", "set": {"ar.draws": 5000}}
PATIENCE_S = 900
"""Longest wait for a driver, which takes seconds on a free machine."""


@dataclass
class Tally:
    """What a scene tried, how much of it came out right, and what did not."""

    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)

    def expect(self, right: bool, why: str) -> None:
        """Count one thing that must hold."""
        self.tried += 1
        self.survived += right
        if not right:
            self.lost.append(why)


class Stage:
    """Where scenes are played: a folder, random moments, and what the matrix should give."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.n_stores = 0
        self._reference: list[dict[str, Any]] | None = None
        self._marking_server: int | None = None

    def store(self) -> Store:
        """Return a new, empty store."""
        self.n_stores += 1
        return Store(self.folder / f"store-{self.n_stores}")

    def cells(self, store: Store, **fields: Any) -> list[Cell]:
        """Return the cells of the matrix, or of another one."""
        return self.prepared(store, **fields).cells

    def prepared(self, store: Store, jobs: int = 2, **options: Any) -> Any:
        """Return a planned matrix; every option that `prepare` does not have is a field of it."""
        named = {"executor", "time_limit_s", "deterministic"}
        chosen = {key: value for key, value in options.items() if key in named}
        fields = {key: value for key, value in options.items() if key not in named}
        given = {**FIELDS, **(fields or MATRIX)}
        return prepare(make_config(given), "cpu", jobs, store=store, **chosen)

    def run(self, store: Store, jobs: int = 2, **options: Any) -> RunOutcome:
        """Run a matrix in this process."""
        with self.marking():
            return execute(self.prepared(store, jobs, **options))

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        """Load the misbehaving methods; the marks of workers go to this stage's folder."""
        os.environ["UEBENCH_TEST_MARKS"] = str(self.marks)
        server: Any = forkserver._forkserver  # type: ignore[attr-defined]
        if server._forkserver_pid is None or server._forkserver_pid != self._marking_server:
            server._stop()  # the next one takes the new environment
        uebench.methods.registry.load_file(METHODS)
        try:
            yield
        finally:
            os.environ.pop("UEBENCH_TEST_MARKS", None)
            self._marking_server = server._forkserver_pid

    def count(self, name: str) -> int:
        """Return how often a method has left its mark."""
        return len(list(self.marks.glob(f"{name}-*")))

    @property
    def reference(self) -> list[dict[str, Any]]:
        """Return what the matrix gives when nothing happens to it."""
        if self._reference is None:
            store = self.store()
            matrix = self.prepared(store, jobs=1)
            execute(matrix)
            self._reference = results(matrix.cells, store)
        return self._reference

    def check(self, tally: Tally, store: Store, what: str) -> None:
        """Check that a store has the matrix's results to the last bit, and nothing half-written."""
        try:
            same = results(self.cells(store), store) == self.reference
        except AssertionError as error:
            same, what = False, f"{what}: {error}"
        tally.expect(same, f"{what}: other results")
        spoiled = list((store.base / "spoiled").glob("*"))
        tally.expect(not spoiled, f"{what}: spoiled entries {spoiled}")

    def driver(self, store: Store, **environment: str) -> subprocess.Popen[bytes]:
        """Start a driver of the matrix in a process of its own, which computes it."""
        program = (
            "import json, sys\n"
            "from uebench.suite.run import execute, prepare\n"
            "from uebench.cells.config import make_config\n"
            "from uebench.methods.registry import load_file\n"
            "from uebench.store.store import Store\n"
            "from pathlib import Path\n"
            "load_file(Path(sys.argv[3]))\n"
            "matrix = prepare(make_config(json.loads(sys.argv[1])), 'cpu', 2, "
            "store=Store(sys.argv[2]))\n"
            "cells = execute(matrix).cells\n"
            "sys.exit(int((cells['status'] != 'ok').any()))\n"
        )
        own = environment.pop("fields", "")
        fields = {**FIELDS, **(json.loads(own) if own else MATRIX)}
        return subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(fields), str(store.root), str(METHODS)],
            env={**os.environ, "UEBENCH_TEST_MARKS": str(self.marks), **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def children(pid: int) -> list[int]:
    """Return the processes whose parent is `pid` (Linux)."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                pids.append(int(path.parent.name))
    return pids


def offspring(pid: int) -> list[int]:
    """Return all processes below `pid`."""
    below = children(pid)
    return below + [deeper for child in below for deeper in offspring(child)]


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be buried does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Return whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def ended_well(tally: Tally, driver: subprocess.Popen[bytes]) -> None:
    """Check that a driver ends, and with status 0."""
    try:
        status = driver.wait(PATIENCE_S)
        tally.expect(status == 0, f"a driver ended with status {status}")
    except subprocess.TimeoutExpired:
        driver.kill()
        driver.wait()
        tally.expect(False, f"a driver did not end within {PATIENCE_S} s")


def drivers_killed(stage: Stage, times: int) -> Tally:
    """Kill -9 a driver at random moments; its workers end, and the next driver goes on."""
    tally, store = Tally(), stage.store()
    for _ in range(times):
        n_cells = len(list((store.base / "cell").glob("*")))
        driver = stage.driver(store)
        # most moments must lie in the work and not in the seconds in which torch is loaded
        within(PATIENCE_S, lambda: store.base.exists() or driver.poll() is not None)  # noqa: B023
        within(stage.random.uniform(0, 12), lambda: driver.poll() is not None)  # noqa: B023
        workers = offspring(driver.pid)
        driver.kill()
        driver.wait()
        gone = within(20, lambda: not any(map(alive, workers)))  # noqa: B023
        tally.expect(gone, "workers outlive a killed driver")
        tally.expect(len(list((store.base / "cell").glob("*"))) >= n_cells, "results are lost")
    execute(stage.prepared(store))
    stage.check(tally, store, f"after {times} killed drivers")
    return tally


def workers_killed(stage: Stage, times: int) -> Tally:
    """Kill -9 workers at random moments; a cell that died twice is failed and made again later."""
    tally, store = Tally(), stage.store()
    ended = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        pause = 0.01  # the first worker is killed as soon as it is there: a run may take a second
        while not ended.wait(pause) and len(killed) < times:
            server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
            workers = [pid for pid in children(server or 0) if alive(pid)]
            if workers:
                pause = stage.random.uniform(0.05, 1.5)
                killed.append(stage.random.choice(workers))
                with contextlib.suppress(OSError):
                    os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcome = execute(stage.prepared(store))
    finally:
        ended.set()
        killer.join()
    for error in outcome.cells.loc[outcome.cells["status"] != "ok", "error"]:
        tally.expect("died 2 times (signal 9)" in error, f"a killed worker's reason is {error!r}")
    execute(stage.prepared(store))
    stage.check(tally, store, f"after {len(killed)} killed workers")
    tally.expect(len(killed) > 0, "nothing was killed")
    return tally


def forkserver_killed(stage: Stage) -> Tally:
    """Kill -9 the process that starts workers, with all that runs; the driver starts another."""
    tally, store = Tally(), stage.store()

    def kill() -> None:
        within(PATIENCE_S, lambda: any((store.base / "poison").glob("*")))
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = execute(stage.prepared(store))
    killer.join()
    failed = outcome.cells.loc[outcome.cells["status"] != "ok", "error"].tolist()
    tally.expect(not failed, f"cells failed: {failed}")
    stage.check(tally, store, "after the forkserver was killed")
    return tally


def many_drivers(stage: Stage, n_drivers: int) -> Tally:
    """Start drivers on one store at once; all end well, and nothing is computed twice."""
    tally, store = Tally(), stage.store()
    fields = '{"attacks": "none", "defenses": "counted", "seeds": [0, 1, 2, 3]}'
    before = stage.count("counted")
    drivers = [stage.driver(store, fields=fields) for _ in range(n_drivers)]
    try:
        for driver in drivers:
            ended_well(tally, driver)
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
    n_times = stage.count("counted") - before
    tally.expect(n_times == 4, f"4 cells were computed {n_times} times by {n_drivers} drivers")
    return tally


def jumping_clock(stage: Stage) -> Tally:
    """Let the wall clock jump by years, forwards and back, in a driver and its workers."""
    tally, store = Tally(), stage.store()
    site = stage.folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(
        "import random, time\n"
        "real, real_ns = time.time, time.time_ns\n"
        "time.time = lambda: real() + random.uniform(-1, 1) * 3e8\n"
        "time.time_ns = lambda: real_ns() + random.randint(-3 * 10**17, 3 * 10**17)\n"
    )
    driver = stage.driver(store, PYTHONPATH=str(site))
    ended_well(tally, driver)
    stage.check(tally, store, "under a jumping clock")
    return tally


def out_of_memory(stage: Stage) -> Tally:
    """Let a cell ask for more than its limit: it fails and says so, and the others do not mind."""
    outcome = stage.run(
        stage.store(), attacks="none", defenses="greedy,standard", executor="local[memory_gb=3]"
    )
    return _one_failed(outcome, "out of memory (RuntimeError", stage.count("greedy"))


def hanging(stage: Stage) -> Tally:
    """Let a cell hang, deaf to SIGTERM and with a child: both end with its time limit."""
    outcome = stage.run(stage.store(), attacks="none", defenses="hangs", time_limit_s=3)
    reason = "it took longer than its time limit of 0.05 min (--time-limit)"
    tally = _one_failed(outcome, reason, stage.count("hangs"))
    sleepers = [int(path.name[8:]) for path in stage.marks.glob("sleeper-*")]
    tally.expect(len(sleepers) == 2, f"{len(sleepers)} processes hung, not 2")
    gone = within(10, lambda: not any(map(alive, sleepers)))
    tally.expect(gone, "a hanging cell's processes outlive its time limit")
    return tally


def diverging(stage: Stage) -> Tally:
    """Let a loss become NaN: the cell fails once, with the reason."""
    outcome = stage.run(stage.store(), attacks="none", defenses="explodes,standard")
    return _one_failed(
        outcome, "DivergedError: the loss is nan in epoch 1", stage.count("explodes")
    )


def _one_failed(outcome: RunOutcome, reason: str, n_tries: int) -> Tally:
    """Check that the first cell alone failed, for a reason, after one try."""
    tally = Tally()
    status, error = outcome.cells["status"].tolist(), outcome.cells["error"].tolist()
    tally.expect(status == ["failed", "ok"][: len(status)], f"the cells are {status}: {error}")
    tally.expect(reason in str(error[0]), f"the reason is {error[0]!r}")
    tally.expect(n_tries == 1, f"it was tried {n_tries} times")
    return tally


def rude_method(stage: Stage) -> Tally:
    """Let a method reseed, move, fork and print: it gives what `standard` gives, as do others."""
    tally, store = Tally(), stage.store()
    fields = {"attacks": "lsp", "defenses": "rude,standard"}
    outcome = stage.run(store, jobs=1, **fields)
    tally.expect(outcome.cells["status"].tolist() == ["ok", "ok"], f"{outcome.failures}")
    if tally.lost:
        return tally
    rude, standard = results(stage.cells(store, **fields), store)
    tally.expect(rude["losses"] == standard["losses"], "global seeds moved a number")
    tally.expect(stage.count("rude") == 1, "it was run more than once")
    expected = [cell for cell in stage.reference if cell["key"] == standard["key"]]
    tally.expect(standard == expected[0], "a rude method moved the next cell's number")
    return tally
