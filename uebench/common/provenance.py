"""Where a number comes from: versions, machine, source, command, seeds and content hashes.

It stands in `run.json` and in the record of every cell and poison, and changes no key.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

COMMAND = "UEBENCH_COMMAND"
"""Environment variable in which workers find what was typed, as a JSON list."""

GIT_TIMEOUT_S = 5
MOVING = ("torch", "numpy", "cuda", "cudnn")
"""Versions that may move the last bits of a number."""


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    from .. import __version__

    return {
        "uebench": __version__,
        "torch": torch.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: _installed(name) for name in ("numpy", "kornia", "torchvision", "pillow")},
        "cuda": torch.version.cuda or "",
        "cudnn": str(torch.backends.cudnn.version() or "") if torch.version.cuda else "",
    }


def machine(device: torch.device | str) -> dict[str, Any]:
    """Return what a machine is as far as it moves the last bits of a number.

    On the same machine type the same cell gives the same bits, on a CPU.
    """
    found: dict[str, Any] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": str(torch.device(device).type),
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        found["deterministic"] = torch.are_deterministic_algorithms_enabled()
        found["tf32"] = torch.backends.cudnn.allow_tf32
    return found


def provenance(device: torch.device | str, **facts: Any) -> dict[str, Any]:
    """Return versions, machine, git state and command, with facts such as seeds and hashes."""
    return {
        "versions": versions(),
        "machine": machine(device),
        "git": git_state(),
        "command": command(),
        **facts,
    }


def command() -> list[str]:
    """Return what was typed, or nothing where the Python API was called."""
    try:
        words = json.loads(os.environ.get(COMMAND, "[]"))
    except ValueError:
        return []
    return [str(word) for word in words] if isinstance(words, list) else []


@cache
def git_state() -> dict[str, Any] | None:
    """Return commit and whether files were changed, where the suite runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changed)}


def _git(root: Path, *words: str) -> str | None:
    """Return what git answers, or None where it is missing or refuses."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set within a git hook
        environment.pop(name, None)
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            env=environment,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()


@cache
def _installed(name: str) -> str:
    """Return a distribution's version, or nothing where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


CPU_FACTS = ("model name", "cpu family", "model")
"""What tells one processor from another: virtual machines call many generations by one name."""


@cache
def _cpu_model() -> str:
    """Return the processor's own name, with family and model where the kernel gives them."""
    facts = dict[str, str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in CPU_FACTS:
                facts.setdefault(name.strip(), value.strip())
    except (OSError, UnicodeDecodeError):
        pass
    model, family, number = (facts.get(name, "") for name in CPU_FACTS)
    name = model or platform.processor()
    return f"{name} (family {family}, model {number})" if family and number else name


def same_machine_type(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two provenances promise the same bits: a CPU of one type, the same torch."""
    one, two = first.get("machine"), second.get("machine")
    versions, others = first.get("versions"), second.get("versions")
    if not isinstance(one, dict) or not isinstance(versions, dict) or not isinstance(others, dict):
        return False
    same_versions = all(versions.get(name) == others.get(name) for name in MOVING)
    return one == two and same_versions and one.get("device") == "cpu"


def origins(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the provenances of cells, each once with the keys of its cells.

    What differs from cell to cell, seeds and hashes, is left to the cells' own records.
    """
    groups: dict[str, dict[str, Any]] = {}
    for key, record in records.items():
        origin = record.get("provenance") or {"versions": record.get("versions")}
        shared = {k: v for k, v in origin.items() if k in ("versions", "machine", "git", "command")}
        text = json.dumps(shared, sort_keys=True, default=str)
        groups.setdefault(text, {**shared, "cells": []})["cells"].append(key)
    return list(groups.values())


def mixed_versions(pairs: Iterable[tuple[str, str]]) -> str | None:
    """Return a sentence where cells come from several versions of the suite or of torch.

    `pairs` are the versions of suite and torch of each finished cell; empty ones are unknown.
    """
    counted: dict[tuple[str, str], int] = {}
    for pair in pairs:
        if any(pair):
            counted[pair] = counted.get(pair, 0) + 1
    if len(counted) < 2:
        return None
    groups = [f"uebench {u} with torch {t} ({n})" for (u, t), n in sorted(counted.items())]
    return f"the cells come from several versions: {'; '.join(groups)}"
