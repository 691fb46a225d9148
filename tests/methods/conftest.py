"""Shared by the tests of methods that are typed into a session or loaded from files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.methods.veil import forget_modules


@pytest.fixture
def clean_methods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forget the modules that a test loads."""
    path = list(sys.path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.path[:] = path
    forget_modules(tmp_path)
