"""Shared by the command line's tests: a procedural data set is drawn once per process."""

from __future__ import annotations

import functools

import pytest

from uebench.data.synthetic import make_synthetic

_drawn_once = functools.cache(make_synthetic)


@pytest.fixture(autouse=True)
def _data_sets_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each command the second that the default data set takes; nothing changes its arrays."""
    monkeypatch.setattr("uebench.data.sources.make_synthetic", _drawn_once)
