"""What takes long is left to `make test-slow`."""

from __future__ import annotations

import pytest

from uebench.testing.conformance import ConformanceTest
from uebench.testing.data import LARGE


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is promised of large images as slow."""
    for item in items:
        parametrized = getattr(item, "callspec", None)
        check = parametrized.params.get("check") if parametrized else None
        if isinstance(check, ConformanceTest) and check.case in LARGE:
            item.add_marker(pytest.mark.slow)
