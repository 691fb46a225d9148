"""Executors start processes; the store alone says that something is done."""

from .base import Executor, ExecutorError, Orders
from .choose import EXECUTORS, build_executor
from .devices import DeviceError, usable_devices
from .drive import run_tasks

__all__ = [
    "EXECUTORS",
    "DeviceError",
    "Executor",
    "ExecutorError",
    "Orders",
    "build_executor",
    "run_tasks",
    "usable_devices",
]
