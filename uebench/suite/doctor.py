"""The checks of `uebench doctor`: what is available, what is broken, and what will be slow."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time

import torch
from rich.console import Console

from ..cells.plan import resolve_precision
from ..common.version import __version__
from ..execute.devices import usable_cores
from ..methods.registry import KINDS, broken, methods
from ..store.store import Store

MachineFact = dict[str, str]


def examine() -> list[MachineFact]:
    """Return one finding per check: `level` (ok, slow or bad), `what` and `text`."""
    return [
        _finding("ok", "uebench", f"{__version__}, Python {sys.version.split()[0]}"),
        _torch(),
        _torchvision(),
        _device(),
        _bf16(),
        *_methods(),
        _store(),
        _latex(),
    ]


def _finding(level: str, what: str, text: str) -> MachineFact:
    return {"level": level, "what": what, "text": text}


def _torch() -> MachineFact:
    """Return torch's version and the speed of one core, measured by multiplying matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.rand(512, 512)
    a @ a
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    speed = 10 * 2 * 512**3 / (time.perf_counter() - start) / 1e9
    torch.set_num_threads(before)
    level = "ok" if speed > 20 else "slow"
    return _finding(level, "torch", f"{torch.__version__}, {speed:.0f} GFLOP/s in fp32 on one core")


def _torchvision() -> MachineFact:
    """Return whether torchvision can be imported with this torch."""
    try:
        import torchvision
        from torchvision import datasets  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return _finding(
            "bad",
            "torchvision",
            f"cannot be imported with torch {torch.__version__} ({str(error).splitlines()[0]}); "
            "install the matching version, which cifar10, cifar100 and svhn need",
        )
    return _finding("ok", "torchvision", torchvision.__version__)


def _device() -> MachineFact:
    """Return the devices that cells will be computed on."""
    cores = usable_cores()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return _finding("ok", "devices", f"{', '.join(names)}; {cores} CPU cores")
    return _finding(
        "slow",
        "devices",
        f"no GPU; {cores} CPU cores, so {cores} cells are computed at a time. Use `--protocol "
        "quick` here; ResNet-18 under `paper` takes days",
    )


def _bf16() -> MachineFact:
    """Return whether this machine computes bf16 in hardware."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = resolve_precision("auto", device)
    has = "bf16" if precision == "bf16" else "no bf16"
    return _finding("ok", "precision", f"{has} in hardware, so precision=auto means {precision}")


def _methods() -> list[MachineFact]:
    """Return the number of methods, and each plug-in that is broken."""
    counts = ", ".join(f"{len(methods(kind))} {kind}s" for kind in KINDS)
    faults = [_finding("bad", "plug-in", f"{b.origin} is not loaded: {b.error}") for b in broken()]
    return [_finding("ok", "methods", counts), *faults]


def _store() -> MachineFact:
    """Return whether the store can be written, and how much disk space is free."""
    root = Store().root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        return _finding(
            "bad",
            "store",
            f"{root} cannot be written ({error.strerror}); set UEBENCH_HOME to another folder",
        )
    free = shutil.disk_usage(root).free / 2**30
    return _finding("ok" if free > 2 else "slow", "store", f"{root}, {free:.0f} GiB free")


def _latex() -> MachineFact:
    """Return whether LaTeX tables can be compiled here."""
    absent = "pdflatex is not installed; tables are written but not compiled"
    return _finding("ok", "latex", shutil.which("pdflatex") or absent)


def print_findings(findings: list[MachineFact]) -> None:
    """Print findings to stdout, one line each."""
    console = Console(highlight=False, soft_wrap=True)
    styles = {"ok": "green", "slow": "yellow", "bad": "red"}
    for finding in findings:
        console.print(f"[{styles[finding['level']]}]{finding['level']:<5}[/]", end="")
        console.print(f"{finding['what']:<12} {finding['text']}", markup=False)
