"""Record where a number comes from: versions, machine, source, command, seeds and content hashes.

Provenance is written into `run.json` and into the record of every cell and poison. It is not part
of any key.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .version import __version__

COMMAND = "UEBENCH_COMMAND"
"""Environment variable that gives workers the command line that was typed, as a JSON list."""

GIT_TIMEOUT_S = 5
MOVING = ("torch", "numpy", "cuda", "cudnn")
"""Libraries whose version may change the last bits of a number."""


def versions() -> dict[str, str]:
    """Return the versions of everything that may change a number."""
    return {
        "uebench": __version__,
        "torch": torch.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: _installed(name) for name in ("numpy", "kornia", "torchvision", "pillow")},
        "cuda": torch.version.cuda or "",
        "cudnn": str(torch.backends.cudnn.version() or "") if torch.version.cuda else "",
    }


def machine(device: torch.device | str) -> dict[str, Any]:
    """Return the properties of a machine that may change the last bits of a number.

    On CPUs for which they are equal, the same cell gives the same bits.
    """
    properties: dict[str, Any] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": str(torch.device(device).type),
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda":
        properties["device"] = torch.cuda.get_device_name(device)
        properties["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        properties["deterministic"] = torch.are_deterministic_algorithms_enabled()
        properties["tf32"] = torch.backends.cudnn.allow_tf32
    return properties


def provenance(device: torch.device | str, **facts: Any) -> dict[str, Any]:
    """Return versions, machine, git state, command and date, and the given facts, such as seeds."""
    return {
        "versions": versions(),
        "machine": machine(device),
        "git": git_state(),
        "command": command(),
        "date": datetime.now(UTC).date().isoformat(),
        **facts,
    }


def command() -> list[str]:
    """Return the words of the command line, or nothing if the Python API was called."""
    try:
        words = json.loads(os.environ.get(COMMAND, "[]"))
    except ValueError:
        return []
    return [str(word) for word in words] if isinstance(words, list) else []


@cache
def git_state() -> dict[str, Any] | None:
    """Return the commit and whether tracked files differ; None unless run from a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changed)}


def _git(root: Path, *words: str) -> str | None:
    """Return the output of a git command, or None if git is missing or the command fails."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # git sets these inside a hook
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
    """Return the version of an installed distribution, or an empty text."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


CPU_FACTS = ("model name", "cpu family", "model")
"""Lines that identify a processor; many virtual machines name several generations alike."""


@cache
def _cpu_model() -> str:
    """Return the processor's name, with its family and model if the kernel reports them."""
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
    """Return whether two provenances promise the same bits: equal CPUs and the same torch."""
    one, two = first.get("machine"), second.get("machine")
    versions, others = first.get("versions"), second.get("versions")
    if not isinstance(one, dict) or not isinstance(versions, dict) or not isinstance(others, dict):
        return False
    same_versions = all(versions.get(name) == others.get(name) for name in MOVING)
    return one == two and same_versions and one.get("device") == "cpu"


def origins(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the different provenances of some cells, each with the keys of its cells.

    Seeds and hashes differ from cell to cell, so they are only in the records of the cells.
    """
    groups: dict[str, dict[str, Any]] = {}
    for key, record in records.items():
        origin = record.get("provenance") or {"versions": record.get("versions")}
        shared = {k: v for k, v in origin.items() if k in ("versions", "machine", "git", "command")}
        text = json.dumps(shared, sort_keys=True, default=str)
        groups.setdefault(text, {**shared, "cells": []})["cells"].append(key)
    return list(groups.values())


def mixed_versions(pairs: Iterable[tuple[str, str]]) -> str | None:
    """Return a warning if cells come from several versions of the suite or of torch, else None.

    `pairs` holds the version of the suite and of torch of each finished cell; empty if unknown.
    """
    counted: dict[tuple[str, str], int] = {}
    for pair in pairs:
        if any(pair):
            counted[pair] = counted.get(pair, 0) + 1
    if len(counted) < 2:
        return None
    groups = [f"uebench {u} with torch {t} ({n})" for (u, t), n in sorted(counted.items())]
    return f"the cells come from several versions: {'; '.join(groups)}"
