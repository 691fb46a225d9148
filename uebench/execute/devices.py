"""The devices and cores of this machine that a run may use."""

from __future__ import annotations

import os

import torch

from ..common.errors import UserError


class DeviceError(UserError):
    """The requested device does not exist or does not suit the executor."""


def usable_devices(asked: str) -> list[str]:
    """Return the devices that a run may use: `auto` takes every GPU, or else the CPU.

    Raises:
        DeviceError: this machine has no such device.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == "auto" and not n_gpus):
        return ["cpu"]
    if asked in ("auto", "cuda") and n_gpus:
        return [f"cuda:{i}" for i in range(n_gpus)]
    if asked.startswith("cuda:") and asked[5:].isdecimal() and int(asked[5:]) < n_gpus:
        return [asked]
    devices = ", ".join(["cpu", *(f"cuda:{i}" for i in range(n_gpus))])
    raise DeviceError(f"--device {asked}: this machine has {devices}; use one of these, or auto")


def remote_devices(asked: str, gpus: float) -> list[str]:
    """Return the device that cells see on another machine, given the number of GPUs per cell.

    Raises:
        DeviceError: the device contradicts the number of GPUs per cell.
    """
    if asked == "auto":
        return ["cuda:0" if gpus else "cpu"]
    if asked == "cpu" and not gpus:
        return ["cpu"]
    if asked in ("cuda", "cuda:0") and gpus:
        return ["cuda:0"]
    raise DeviceError(
        f"--device {asked} contradicts gpus={gpus:g} of the executor; leave out --device and set "
        "the executor's GPUs per cell, as in gpus=1"
    )


def usable_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1
