"""Executors by name and options: `local`, `ray[gpus=0.25]`, `slurm[partition=gpu,gpus=1]`."""

from __future__ import annotations

import importlib
from typing import cast

from ..common.options import validated
from ..common.spec import parse_spec, unknown
from .base import Executor, ExecutorError

EXECUTORS = {"local": "Local", "ray": "RayCluster", "slurm": "Slurm"}
"""The class of each executor, by module name; modules are imported only when they are needed."""


def executor_class(name: str) -> type[Executor]:
    """Return the class of an executor.

    Raises:
        UnknownNameError: there is no such executor; the message names the nearest one.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    module = importlib.import_module(f".{name}", __package__)
    return cast(type[Executor], getattr(module, EXECUTORS[name]))


def build_executor(text: str) -> Executor:
    """Return the checked executor that a spec describes.

    Raises:
        UnknownNameError: there is no such executor.
        ExecutorError: some options are invalid; the message lists all of them.
    """
    name, options = parse_spec(text)
    cls = executor_class(name)
    return validated(cls, options, owner=f"--executor {name}", error=ExecutorError)
