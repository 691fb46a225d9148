"""Executors by name and options: `local`, `ray[gpus=0.25]`, `slurm[partition=gpu,gpus=1]`."""

from __future__ import annotations

import importlib
from typing import cast

from ..common.options import validated
from ..common.spec import parse_spec, unknown
from .base import Executor, ExecutorError

EXECUTORS = {"local": "Local", "ray": "RayCluster", "slurm": "Slurm"}
"""Module of this package and its class; one is loaded when it is asked for."""


def executor_class(name: str) -> type[Executor]:
    """Return the class of an executor.

    Raises:
        KeyError: no such executor, with the nearest name.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    module = importlib.import_module(f".{name}", __package__)
    return cast(type[Executor], getattr(module, EXECUTORS[name]))


def build_executor(text: str) -> Executor:
    """Return the checked executor that a spec describes.

    Raises:
        KeyError: no such executor.
        ExecutorError: bad options, all of them at once, each with what is accepted.
    """
    name, options = parse_spec(text)
    cls = executor_class(name)
    return validated(cls, options, owner=f"--executor {name}", error=ExecutorError)
