"""Shared by the tests of methods that are typed into a session or loaded from files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.methods.veil import forget_modules
from uebench.methods import registry


@pytest.fixture
def clean_methods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forget the methods and modules that a test loads."""
    registry.load()
    path = list(sys.path)
    monkeypatch.setattr(registry, "_methods", {k: dict(v) for k, v in registry._methods.items()})
    monkeypatch.setattr(registry, "_files", [])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.path[:] = path
    forget_modules(tmp_path)
