"""The ray executor: a cluster of Ray's, local or at an address, with fractions of a GPU.

Ray only starts workers here. It would retry by itself, without end where memory ran out, and says
nothing; so its own retries are off and a lost worker or node is dealt with as everywhere.
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
from .notes import Notes
from .tasks import Task, plain

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.5
"""Seconds between two looks at the notes."""
KNOCK_S = 10.0
"""Seconds that a cluster at an address may take to answer."""
HIDE_GPUS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""A task on no GPU shall see none, where Ray by default lets it see all."""
QUEUE = 256
"""Tasks that a cluster at an address is given at a time; Ray queues what has no place."""


class RayCluster(Executor):
    """A cluster of Ray's: one that is started on this machine and ended with the run, or another's.

    The store (`UEBENCH_HOME`) must lie at the same path on all nodes, as must plug-in files.
    """

    name: ClassVar[str] = "ray"
    title: ClassVar[str] = "a Ray cluster, started here or at an address (needs uebench[ray])"

    address: str = ""
    """Where the cluster is, such as auto or 10.0.0.1:6379; none: one is started on this machine."""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """CPU cores that a cell is given."""
    gpus: Annotated[float | None, Field(ge=0)] = None
    """GPUs that a cell is given, such as 0.25; none: 1 where this machine has GPUs, else 0."""

    def check(self) -> None:
        """See that Ray is installed."""
        if find_spec("ray") is None:
            raise ExecutorError(
                "--executor ray needs Ray, which is not installed; type pip install 'uebench[ray]'"
            )

    def share(self, asked: str = "auto") -> float:
        """Return the GPUs that a cell is given; without a word a cell on a GPU has it alone."""
        if self.gpus is not None:
            return self.gpus
        return 0.0 if asked == "cpu" or usable_devices("auto") == ["cpu"] else 1.0

    def devices(self, asked: str) -> list[str]:
        """Return the device as a cell sees it: Ray hides all GPUs but its own."""
        return remote_devices(asked, self.share(asked))

    def jobs(self, devices: list[str]) -> int:
        """Return as many as this machine has room for; a cluster's own queue knows better."""
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
    """Tasks of Ray's, each in a worker process of its own."""

    def __init__(self, executor: RayCluster, orders: Orders, jobs: int, gpus: float) -> None:
        self.ray = _connect(executor, jobs)
        self.slots = jobs
        self.orders = orders
        self.notes = Notes(orders.store)
        self.refs: dict[Any, str] = {}
        memory = None if executor.memory_gb is None else int(executor.memory_gb * 1e9)
        wanted = {"num_cpus": executor.cpus, "num_gpus": gpus, "memory": memory}
        _see_room(self.ray, wanted, own=not executor.address)
        from .remote import remote_work

        # a worker ends with its task, so that nothing of a method leaks into the next one
        self.begin = self.ray.remote(
            **{name: amount for name, amount in wanted.items() if amount is not None},
            max_calls=1,
            max_retries=0,
            runtime_env={"env_vars": {**worker_environment(), **HIDE_GPUS, **_handed_on()}},
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
            said = [report for ref in list(self.refs) for report in self._look(ref, ref in ended)]
            if said or time.monotonic() >= deadline:
                return said

    def _look(self, ref: Any, ended: bool) -> list[Report]:
        """Return a task's news; where it has ended, the last of them says how."""
        key = self.refs[ref]
        lost = self._how_lost(ref, key) if ended else None
        said = self.notes.news(key)
        if ended:
            del self.refs[ref]
            told = said and said[-1].kind in ("done", "failed", "busy")
            if not told:
                said.append(lost or Report("died", key, text="it ended without a word"))
        return said

    def _how_lost(self, ref: Any, key: str) -> Report | None:
        """Return how a task was lost that did not come to its end, or None."""
        errors = self.ray.exceptions
        try:
            self.ray.get(ref)
        except errors.OutOfMemoryError:
            how = "signal 9 by Ray, whose node is short of memory"
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
        """See that notes can be written: a worker on a full disk dies without a word."""
        Store(self.orders.store).check_writable()

    def close(self) -> None:
        """Kill what still runs and leave the cluster; end it if it is ours."""
        for key in list(self.refs.values()):
            self.cancel(key)
        self.ray.shutdown()
        self.notes.remove()


def _connect(executor: RayCluster, jobs: int) -> Any:
    """Return the ray module, connected.

    Raises:
        ExecutorError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    told: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": True}
    if executor.address:
        told["address"] = executor.address
    else:
        told |= {"address": "local", "include_dashboard": False}
        told["num_cpus"] = math.ceil(jobs * executor.cpus)
    try:
        _knock(executor.address)
        ray.init(**told)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        why = " ".join(str(error).split())[:300]
        where = f"at {executor.address}" if executor.address else "on this machine"
        raise ExecutorError(
            f"no Ray cluster {where}: {why}; check the address, or leave it out to start one here"
        ) from error
    return ray


def _knock(address: str) -> None:
    """See that somebody listens at an address; Ray itself would go on trying for minutes.

    Raises:
        OSError, ValueError: nobody does, or it is no HOST:PORT.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S):
            pass


def _see_room(ray: Any, wanted: dict[str, Any], own: bool) -> None:
    """See that some node has room for a task; a cluster of somebody else's may yet grow.

    Raises:
        ExecutorError: this machine has no room for a single task.
    """
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    asked = {names[key]: amount for key, amount in wanted.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(key, 0) >= amount for key, amount in asked.items()) for node in nodes):
        return
    words = ", ".join(f"{amount:g} {key}" for key, amount in asked.items())
    if own:
        ray.shutdown()
        raise ExecutorError(
            f"a cell is to be given {words}, which this machine lacks; ask for less"
        )
    log.warning("no node of the Ray cluster has %s, which a cell is given; waiting for one", words)


def _handed_on() -> dict[str, str]:
    """Return the suite's own settings of this process, which a worker elsewhere needs too."""
    names = ("UEBENCH_COMMAND", "UEBENCH_CHECKPOINT_S", "UEBENCH_MEMORY")
    return {name: os.environ[name] for name in names if name in os.environ}
