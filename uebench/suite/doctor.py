"""What this machine has, what will be slow on it, and whether torch and torchvision fit."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time

import torch
from rich.console import Console

from .. import __version__
from ..cells.plan import resolve_precision
from ..execute.devices import usable_cores
from ..methods.registry import broken, methods
from ..store.store import Store

Finding = dict[str, str]


def examine() -> list[Finding]:
    """Return findings: `level` is ok, slow or bad; `what` and `text` say the rest."""
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


def _finding(level: str, what: str, text: str) -> Finding:
    return {"level": level, "what": what, "text": text}


def _torch() -> Finding:
    """Return torch's version and how fast one core multiplies."""
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


def _torchvision() -> Finding:
    """Return whether torchvision loads beside this torch."""
    try:
        import torchvision
        from torchvision import datasets  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return _finding(
            "bad",
            "torchvision",
            f"does not load beside torch {torch.__version__} ({str(error).splitlines()[0]}); "
            "install the version that belongs to it. cifar10, cifar100 and svhn need it",
        )
    return _finding("ok", "torchvision", torchvision.__version__)


def _device() -> Finding:
    """Return what will compute."""
    cores = usable_cores()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return _finding("ok", "devices", f"{', '.join(names)}; {cores} CPU cores")
    return _finding(
        "slow",
        "devices",
        f"no GPU; {cores} CPU cores, so {cores} cells at a time. `--protocol quick` is made for "
        "this; ResNet-18 under `paper` takes days",
    )


def _bf16() -> Finding:
    """Return whether bf16 is computed or emulated here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if resolve_precision("auto", device) == "bf16":
        return _finding("ok", "precision", "bf16 in hardware: precision=auto takes bf16")
    return _finding("ok", "precision", "no bf16 in hardware: precision=auto takes fp32")


def _methods() -> list[Finding]:
    """Return how many methods there are, and the plug-ins that are broken."""
    counts = f"{len(methods('attack'))} attacks, {len(methods('defense'))} defenses"
    told = [_finding("bad", "plug-in", f"{b.origin} breaks: {b.error}") for b in broken()]
    return [_finding("ok", "methods", counts), *told]


def _store() -> Finding:
    """Return whether the store can be written, and how much room there is."""
    root = Store().root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        return _finding(
            "bad", "store", f"{root} cannot be written ({error.strerror}); set UEBENCH_HOME"
        )
    free = shutil.disk_usage(root).free / 2**30
    return _finding("ok" if free > 2 else "slow", "store", f"{root}, {free:.0f} GiB free")


def _latex() -> Finding:
    """Return whether tables can be compiled here."""
    there = shutil.which("pdflatex", path=os.environ.get("PATH"))
    text = there or "no pdflatex; leaderboard.tex is written all the same"
    return _finding("ok", "latex", text)


def print_findings(findings: list[Finding]) -> None:
    """Print findings to stdout, a line each."""
    console = Console(highlight=False, soft_wrap=True)
    styles = {"ok": "green", "slow": "yellow", "bad": "red"}
    for found in findings:
        console.print(f"[{styles[found['level']]}]{found['level']:<5}[/]", end="")
        console.print(f"{found['what']:<12} {found['text']}", markup=False)
