"""The ray executor: a Ray cluster, local or at an address, with fractions of a GPU.

Ray only starts workers here. Its own retries are switched off, because they are silent and never
stop after an out-of-memory error; lost workers and nodes are handled as on every other executor.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ..store.store import Store
from .base import Executor, ExecutorError, Orders, Pool, Report, worker_environment
from .devices import remote_devices, usable_cores, usable_devices
from .notes import Notes, remote_work
from .tasks import Task, plain

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.5
"""Seconds between two looks at the notes."""
CONNECT_S = 10.0
"""Seconds within which a cluster at an address must answer."""
HIDE_GPUS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Hides all GPUs from a task that requests none; by default Ray lets it see all of them."""
QUEUE = 256
"""Number of tasks submitted to a cluster at an address at a time; Ray queues them if necessary."""


class RayCluster(Executor):
    """A Ray cluster: an existing one, or one that is started here and shut down after the run.

    The store (`UEBENCH_HOME`) and plug-in files must have the same paths on all nodes.
    """

    name: ClassVar[str] = "ray"
    title: ClassVar[str] = "a Ray cluster, started here or at an address (needs uebench[ray])"

    address: str = ""
    """Address of the cluster, such as auto or 10.0.0.1:6379; by default one is started here."""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """CPU cores per cell."""
    gpus: Annotated[float | None, Field(ge=0)] = None
    """GPUs per cell, such as 0.25; by default 1 if this machine has GPUs, else 0."""

    def check(self) -> None:
        """Check that Ray is installed."""
        if find_spec("ray") is None:
            raise ExecutorError(
                "--executor ray needs Ray, which is not installed; run pip install 'uebench[ray]'"
            )

    def share(self, asked: str = "auto") -> float:
        """Return the number of GPUs per cell; by default a cell on a GPU has it to itself."""
        if self.gpus is not None:
            return self.gpus
        return 0.0 if asked == "cpu" or usable_devices("auto") == ["cpu"] else 1.0

    def devices(self, asked: str) -> list[str]:
        """Return the device as a cell sees it; Ray hides all GPUs but the cell's own."""
        return remote_devices(asked, self.share(asked))

    def jobs(self, devices: list[str]) -> int:
        """Return how many cells fit on this machine, or the length of a cluster's queue."""
        if self.address:
            return QUEUE
        if devices == ["cpu"]:
            return max(1, int(usable_cores() / self.cpus))
        return max(1, int(len(usable_devices("auto")) / self.share()))

    def open(
        self, orders: Orders, devices: list[str], jobs: int, time_limit_s: float | None
    ) -> RayPool:
        """Connect to the cluster, or start one."""
        gpus = 0.0 if devices == ["cpu"] else self.share()
        return RayPool(self, orders, jobs, gpus)


class RayPool(Pool):
    """Runs each task as a Ray task in a worker process of its own."""

    def __init__(self, executor: RayCluster, orders: Orders, jobs: int, gpus: float) -> None:
        self.ray = _connect(executor, jobs)
        self.slots = jobs
        self.orders = orders
        self.notes = Notes(orders.store)
        self.refs: dict[Any, str] = {}
        memory = None if executor.memory_gb is None else int(executor.memory_gb * 1e9)
        resources = {"num_cpus": executor.cpus, "num_gpus": gpus, "memory": memory}
        _check_capacity(self.ray, resources, own=not executor.address)
        self.begin = self.ray.remote(
            **{name: amount for name, amount in resources.items() if amount is not None},
            max_calls=1,  # a worker ends with its task, so that no state leaks into the next one
            max_retries=0,
            runtime_env={"env_vars": {**worker_environment(), **HIDE_GPUS, **_own_settings()}},
        )(remote_work)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand tasks to Ray."""
        for task in tasks:
            note = self.notes.begin(task.key)
            self.refs[self.begin.remote(plain(task), self.orders, note)] = task.key

    def reports(self, timeout_s: float) -> list[Report]:
        """Return what the notes say, and which tasks have ended."""
        deadline = time.monotonic() + timeout_s
        while True:
            wait_s = min(LOOK_EVERY_S, max(0.0, deadline - time.monotonic()))
            ended: list[Any] = []
            if self.refs:
                ended, _ = self.ray.wait(list(self.refs), timeout=wait_s)
            else:
                time.sleep(wait_s)
            reports = [r for ref in list(self.refs) for r in self._look(ref, ref in ended)]
            if reports or time.monotonic() >= deadline:
                return reports

    def _look(self, ref: Any, ended: bool) -> list[Report]:
        """Return a task's new reports; if it has ended, the last of them says how."""
        key = self.refs[ref]
        lost = self._how_lost(ref, key) if ended else None
        reports = self.notes.news(key)
        if ended:
            del self.refs[ref]
            if not reports or reports[-1].kind not in ("done", "failed", "busy"):
                reports.append(lost or Report("died", key, text="it ended without a result"))
        return reports

    def _how_lost(self, ref: Any, key: str) -> Report | None:
        """Return how a task was lost, or None if its function returned."""
        errors = self.ray.exceptions
        try:
            self.ray.get(ref)
        except errors.OutOfMemoryError:
            how = "signal 9, sent by Ray because the node ran short of memory"
            return Report("died", key, text=how, killed=True)
        except (errors.NodeDiedError, errors.ObjectLostError, errors.OwnerDiedError):
            return Report("lost", key, text="its node died")
        except errors.WorkerCrashedError:
            return Report("died", key, text="its worker was killed")
        except errors.RayError as error:
            return Report("died", key, text=f"{type(error).__name__}: {str(error)[:200]}")
        return None

    def cancel(self, key: str) -> None:
        """Kill the worker of a task."""
        for ref in [ref for ref, known in self.refs.items() if known == key]:
            del self.refs[ref]
            self.ray.cancel(ref, force=True)

    def check(self) -> None:
        """Check that notes can be written: a worker on a full disk dies without a report."""
        Store(self.orders.store).check_writable()

    def close(self) -> None:
        """Kill what still runs and disconnect from the cluster; shut it down if it is ours."""
        for key in list(self.refs.values()):
            self.cancel(key)
        self.ray.shutdown()
        self.notes.remove()


def _connect(executor: RayCluster, jobs: int) -> Any:
    """Return the ray module, connected to the cluster.

    Raises:
        ExecutorError: no cluster can be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": True}
    if executor.address:
        options["address"] = executor.address
    else:
        options |= {"address": "local", "include_dashboard": False}
        options["num_cpus"] = math.ceil(jobs * executor.cpus)
    try:
        _check_address(executor.address)
        ray.init(**options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        why = " ".join(str(error).split())[:300]
        where = f"at {executor.address}" if executor.address else "on this machine"
        raise ExecutorError(
            f"no Ray cluster {where}: {why}; check the address, or leave it out to start one here"
        ) from error
    return ray


def _check_address(address: str) -> None:
    """Check that a program listens at an address; Ray itself would keep trying for minutes.

    Raises:
        OSError, ValueError: no program does, or the address is not HOST:PORT.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S):
            pass


def _check_capacity(ray: Any, resources: dict[str, Any], own: bool) -> None:
    """Check that some node is large enough for a task; an existing cluster may yet grow.

    Raises:
        ExecutorError: the cluster is our own and this machine is too small for a single task.
    """
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    needs = {names[key]: amount for key, amount in resources.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(key, 0) >= amount for key, amount in needs.items()) for node in nodes):
        return
    words = ", ".join(f"{amount:g} {key}" for key, amount in needs.items())
    if own:
        ray.shutdown()
        raise ExecutorError(
            f"each cell needs {words}, which this machine does not have; request less"
        )
    log.warning("no node of the Ray cluster has %s, which each cell needs; waiting for one", words)


def _own_settings() -> dict[str, str]:
    """Return the suite's own environment variables, which workers on other nodes need too."""
    names = ("UEBENCH_COMMAND", "UEBENCH_CHECKPOINT_S", "UEBENCH_MEMORY")
    return {name: os.environ[name] for name in names if name in os.environ}
