"""Executors by name and options: `local`, `ray[gpus=0.25]`, `slurm[partition=gpu,gpus=1]`."""

from __future__ import annotations

import importlib
from typing import cast

from pydantic import ValidationError

from ..common.spec import did_you_mean, parse_spec, shorten, unknown
from ..methods.registry import accepted
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
    try:
        return cls.model_validate(options)
    except ValidationError as error:
        told = []
        for problem in error.errors():
            key = str(problem["loc"][0]) if problem["loc"] else ""
            if problem["type"] == "extra_forbidden":
                known = list(cls.model_fields)
                told.append(f"no option {key}{did_you_mean(key, known)}; it has {', '.join(known)}")
            elif key in cls.model_fields:
                words = accepted(cls.model_fields[key])
                told.append(f"{key} must be {words}, got {shorten(str(problem['input']))}")
            else:
                told.append(str(problem["msg"]).removeprefix("Value error, "))
        raise ExecutorError(f"--executor {name}: " + "; ".join(dict.fromkeys(told))) from None
