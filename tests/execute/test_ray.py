"""The ray executor on a real cluster of two local nodes; a worker and a node are killed."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from uebench.execute.base import ExecutorError
from uebench.execute.choose import build_executor
from uebench.store.store import Store

from .driver import Driver, records

ray = pytest.importorskip("ray", reason="needs ray: pip install 'uebench[ray]'")
MATRIX = ["--attacks", "lsp", "--defenses", "standard,waits"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cluster whose head has no cores, so that cells run on nodes that can be killed."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # a killed node must be noticed within seconds
    config = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": config},
    )
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_an_interrupted_and_killed_run_gives_the_same_table(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=2)
    store = Store(tmp_path / "store")
    options = [*MATRIX, "--executor", f"ray[address={cluster.address}]"]
    driver = Driver(tmp_path, store.root, *options)
    try:
        pid = driver.new_pid()
        os.kill(pid, signal.SIGKILL)
        second = driver.new_pid(but={pid})
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        driver.new_pid(but={pid, second})
        driver.until(lambda: len(list((store.base / "cell").glob("*"))) == 1)
        progress = driver.stderr_text()
        assert driver.interrupt() == 130
        assert "1 of 2 cells are finished; run the same command again" in driver.stderr_text()
        assert list((store.root / "notes").iterdir()) == []
    finally:
        driver.stop()  # from now on no cell waits
    assert "the process died (its worker was killed); starting it again" in progress
    assert "lost (its node died); starting it again" in progress
    assert "[1/3] craft lsp" in progress, "progress comes back"

    again = Driver(tmp_path, store.root, *options)
    try:
        assert again.ended() == 0, again.stderr_text()
    finally:
        again.stop()
    assert "2 cells, 1 already computed" in again.stderr_text()
    on_ray = records(store, attacks="lsp", defenses="standard")
    assert on_ray == records(Store(tmp_path / "here"), attacks="lsp", defenses="standard")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_cluster_at_the_address_is_one_sentence(tmp_path: Path) -> None:
    options = ["--executor", "ray[address=127.0.0.1:1]"]
    driver = Driver(tmp_path, tmp_path / "store", *MATRIX, *options)
    try:
        assert driver.ended() == 1
    finally:
        driver.stop()
    assert "no Ray cluster at 127.0.0.1:1" in driver.stderr_text()
    assert "Traceback" not in driver.stderr_text()


def test_a_missing_ray_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutorError, match=r"pip install 'uebench\[ray\]'"):
        build_executor("ray").check()
