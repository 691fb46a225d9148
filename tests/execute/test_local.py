"""The local executor with real processes: same numbers however it is run, and nothing is lost."""

import itertools
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pandas as pd
import pytest

import uebench
from uebench.cells.config import make_config
from uebench.execute.tasks import pending
from uebench.methods.registry import attack
from uebench.store.store import Store
from uebench.suite.run import execute, prepare

from .driver import Driver

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
FAST = {"arch": "resnet9[width=2]", "protocol_options": {"epochs": 2, "batch_size": 16}}
NUMBERS = ["attack", "defense", "seed", "status", "test_acc", "test_acc_best", "train_acc", "key"]

BAD_METHODS = '''
import os, time
from pathlib import Path
import torch
from uebench import Attack, Defense, attack, defense

@attack("breaks", title="Breaks", source="a test")
class Breaks(Attack):
    """Raises."""
    def perturb(self, data, run):
        """Raise."""
        print("this must not reach stdout")
        raise ArithmeticError("nothing\\nworks")

@defense("dies", title="Dies", source="a test")
class Dies(Defense):
    """Kills its process, {times} times."""
    def prepare(self, data, run):
        """Die."""
        mark = Path({mark!r})
        n = int(mark.read_text()) if mark.exists() else 0
        if n < {times}:
            mark.write_text(str(n + 1))
            os.kill(os.getpid(), 9)
        return data
'''


def matrix(store: Store, jobs: int, **fields: object):  # type: ignore[no-untyped-def]
    given = {"attacks": "none,lsp", "defenses": "standard,ueraser_lite", "dataset": DATA, **FAST}
    return prepare(make_config({**given, **fields}), "cpu", jobs, store=store)


def numbers(frame: pd.DataFrame) -> list[list[object]]:
    return [list(row) for row in frame[NUMBERS].itertuples(index=False)]


def test_the_number_of_processes_changes_no_number_and_a_second_run_computes_nothing(
    store: Store, tmp_path: Path
) -> None:
    one = execute(matrix(store, jobs=1)).cells
    three = execute(matrix(Store(tmp_path / "3"), jobs=3)).cells
    assert (one["status"] == "ok").all()
    assert numbers(one) == numbers(three)

    stamps = {p: p.stat().st_mtime_ns for p in store.base.rglob("meta.json")}
    again = execute(matrix(store, 2))
    assert numbers(one) == numbers(again.cells)
    assert stamps == {p: p.stat().st_mtime_ns for p in store.base.rglob("meta.json")}


def test_long_cells_start_first(store: Store) -> None:
    planned = matrix(store, 1, attacks="lsp", defenses="standard,at,ueraser_lite,ueraser").cells
    order = [(t.kind, t.cell.defense.info.name) for t in pending(planned, store)]
    assert [kind for kind, _ in order] == ["poison"] + ["cell"] * 4
    assert [name for _, name in order[1:]] == ["at", "ueraser", "ueraser_lite", "standard"]


def test_a_spoiled_cell_is_computed_again(store: Store) -> None:
    first = execute(matrix(store, 1, attacks="none", defenses="standard")).cells
    path = store.path("cell", first["key"][0]) / "meta.json"
    path.write_text(path.read_text()[:-9])
    again = execute(matrix(store, 1, attacks="none", defenses="standard")).cells
    assert numbers(again) == numbers(first)


def test_jobs_must_be_positive(store: Store) -> None:
    with pytest.raises(ValueError, match="jobs must be a whole number of at least 1, got -1"):
        matrix(store, -1)


def plugin(tmp_path: Path, times: int) -> None:
    path = tmp_path / "bad.py"
    path.write_text(BAD_METHODS.format(times=times, mark=str(tmp_path / "mark")))
    uebench.methods.registry.load_file(path)


def test_a_method_that_raises_fails_only_its_cells(
    tmp_path: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin(tmp_path, 0)
    outcome = execute(matrix(store, 2, attacks="breaks,lsp", defenses="standard"))
    status = dict(zip(outcome.cells["attack"], outcome.cells["status"], strict=True))
    assert status == {"breaks": "failed", "lsp": "ok"}
    (error,) = outcome.cells.loc[outcome.cells["attack"] == "breaks", "error"]
    reason = "attack breaks failed in perturb: ArithmeticError: nothing works (bad.py, line 13: "
    assert error.startswith(reason)
    assert "perturb" in next(iter(outcome.failures.values())).traceback
    assert "must not reach" not in capfd.readouterr().out


def test_a_process_that_died_is_started_again(tmp_path: Path, store: Store) -> None:
    plugin(tmp_path, 1)
    outcome = execute(matrix(store, 1, attacks="none", defenses="dies"))
    assert outcome.cells["status"].tolist() == ["ok"]


def test_a_process_that_dies_again_fails(tmp_path: Path, store: Store) -> None:
    plugin(tmp_path, 9)
    outcome = execute(matrix(store, 2, attacks="none", defenses="dies,standard"))
    assert outcome.cells["status"].tolist() == ["failed", "ok"]
    assert "died 2 times (signal 9); it may have run out of memory" in outcome.cells["error"][0]
    assert (tmp_path / "mark").read_text() == "2", "no endless retries"


@pytest.mark.slow
@pytest.mark.parametrize("own", ["", "1"])
def test_a_package_of_our_name_in_the_folder_is_not_taken(own: str, tmp_path: Path) -> None:
    folder, script = tmp_path / "here", tmp_path / "bin" / "uebench"
    (folder / "uebench").mkdir(parents=True)
    (folder / "uebench" / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")
    script.parent.mkdir()
    script.write_text("from uebench.cli import main\nmain()\n")
    attack = (
        "import os\n"
        "from uebench import Attack, attack\n"
        "@attack('asks', title='Asks', source='a test')\n"
        "class Asks(Attack):\n"
        "    def perturb(self, data, run):\n"
        f"        assert os.environ.get('PYTHONSAFEPATH', '') == '{own}'\n"
        "        return self.eps + 0 * data.pixels()\n"
    )
    (tmp_path / "asks.py").write_text(attack)
    options = ["--attacks", "asks", "--defenses", "standard", "--epochs", "1"]
    options += ["--dataset", DATA, "--arch", "resnet9[width=2]", "--device", "cpu"]
    options += ["--plugin", str(tmp_path / "asks.py")]
    environment = {**os.environ, "UEBENCH_HOME": str(tmp_path / "store"), "PYTHONSAFEPATH": own}
    done = subprocess.run(
        [sys.executable, str(script), "run", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "the wrong one" not in done.stderr


def dying_forkserver(monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    """Kill the forkserver, and have the system say `refusals` times that it still runs."""
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    real_waitpid, calls = os.waitpid, itertools.count()

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        is_unreaped = pid == server and options == os.WNOHANG and next(calls) < refusals
        return (0, 0) if is_unreaped else real_waitpid(pid, options)

    monkeypatch.setattr(os, "waitpid", waitpid)


def test_without_a_forkserver_cells_fail_with_the_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uebench.execute.local.START_PATIENCE_S", 0.2)
    dying_forkserver(monkeypatch, refusals=10**9)
    outcome = execute(matrix(store, 2, attacks="none"))
    assert outcome.cells["status"].tolist() == ["failed", "failed"]
    assert "died 2 times (no worker process can be started: " in outcome.cells["error"][0]


LOOKS = """
import os
from uebench import Defense, defense

@defense("looks", title="Looks", source="a test")
class Looks(Defense):
    '''Sees its environment.'''
    def prepare(self, data, run):
        '''Look.'''
        assert os.environ["OMP_NUM_THREADS"] == "1", "not started as a worker"
        return data
"""


@pytest.mark.slow  # each starts a forkserver, which loads torch
@pytest.mark.parametrize("refusals", [0, 1, 4, 5])
def test_a_forkserver_that_is_being_killed_is_waited_for(
    refusals: int, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looks.py").write_text(LOOKS)
    uebench.methods.registry.load_file(tmp_path / "looks.py")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    dying_forkserver(monkeypatch, refusals)
    outcome = execute(matrix(store, 2, attacks="none", defenses="standard,looks"))
    assert outcome.cells["error"].tolist() == ["", ""]
    assert "OMP_NUM_THREADS" not in os.environ, "the driver's own stays as it was"


def test_methods_of_a_session_run_in_its_process() -> None:
    @attack("here", title="Here", source="a test")
    class Here(uebench.Attack):
        """Adds the whole budget."""

        def perturb(self, data, run):  # type: ignore[no-untyped-def]
            """Return eps everywhere."""
            return self.eps + 0 * data.pixels()

    frame = uebench.run(["here"], ["standard"], DATA, **FAST)
    assert frame["status"].tolist() == ["ok"]


RUN = """
import sys
from uebench.execute.tasks import pending
from uebench.suite.run import execute, prepare
from uebench.cells.config import make_config
from uebench.store.store import Store
fields = {fields!r}
print(execute(prepare(make_config(fields), "cpu", 2, store=Store({store!r}))).cells["key"].tolist())
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    fields = {
        "attacks": "none,lsp,ar",
        "defenses": "standard,ueraser_lite",
        "dataset": DATA,
        **FAST,
    }
    fields["set"] = {"ar.draws": 10_000}
    fields["protocol_options"] = {"epochs": 12, "batch_size": 16}
    store = Store(tmp_path / "killed")
    command = [sys.executable, "-c", RUN.format(fields=fields, store=str(store.root))]
    driver = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len(_entries(store)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            assert driver.poll() is None, "it ended before it could be killed"
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    finished = {path: path.stat().st_mtime_ns for path in _entries(store)}
    assert 2 <= len(finished) < 6
    outcome = execute(prepare(make_config(fields), "cpu", 2, store=store))
    whole = execute(prepare(make_config(fields), "cpu", 2, store=Store(tmp_path / "whole")))
    assert numbers(outcome.cells) == numbers(whole.cells)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items()), (
        "computed again"
    )


@pytest.mark.slow
def test_a_run_that_is_to_stop_after_a_while_leaves_a_table(tmp_path: Path) -> None:
    options = ["--attacks", "none", "--defenses", "standard,waits"]
    store = Store(tmp_path / "store")
    first = Driver(tmp_path, store.root, *options, "--stop-after", "0.1")
    try:
        assert first.ended() == 1
    finally:
        first.stop()
    assert "of 2 cells were not reached in 0.1 min (--stop-after)" in first.stderr_text()
    cells = pd.read_csv(tmp_path / "out" / "cells.csv")
    assert cells["status"].tolist()[-1] == "skipped"
    (tmp_path / "go").touch()
    again = Driver(tmp_path, store.root, *options, "--stop-after", "5")
    try:
        assert again.ended() == 0
    finally:
        again.stop()
    cells = pd.read_csv(tmp_path / "out" / "cells.csv")
    assert cells["status"].tolist() == ["ok", "ok"]


@pytest.mark.slow
def test_sigterm_ends_a_run_like_ctrl_c(tmp_path: Path) -> None:
    options = ["--attacks", "none", "--defenses", "standard,waits"]
    store = Store(tmp_path / "store")
    driver = Driver(tmp_path, store.root, *options)
    try:
        worker = driver.new_pid()
        driver.until(lambda: len(_entries(store)) == 1)
        driver.process.terminate()
        assert driver.ended() == 130
    finally:
        driver.stop()
    assert (
        "1 of 2 cells are finished; run the same command again to continue" in driver.stderr_text()
    )
    assert "Traceback" not in driver.stderr_text()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def _entries(store: Store) -> list[Path]:
    return sorted((store.base / "cell").glob("*/meta.json"))
