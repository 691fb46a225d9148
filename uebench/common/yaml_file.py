"""A configuration file as data: YAML's plain subset, of a bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import yaml

from .errors import UserError

MOST_YAML_BYTES = 64 * 2**10
"""Largest configuration; the suite's own are below 1 kB."""
MOST_LEVELS = 20
"""Deepest nesting that is read; a configuration has two levels."""
MOST_ALIASES = 10
"""Most uses of anchors that are read; with many, a few lines can expand to gigabytes."""


class BoundedLoader(yaml.SafeLoader):
    """A YAML loader that builds only plain values and follows only a few anchors."""

    n_aliases = 0
    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node while counting the uses of anchors and the depth of nesting."""
        if self.check_event(yaml.AliasEvent):
            self.n_aliases += 1
            if self.n_aliases > MOST_ALIASES:
                self._refuse("too many anchors are used")
        self.level += 1
        if self.level > MOST_LEVELS:
            self._refuse("it is nested too deeply")
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value at once, so that PyYAML refuses one that contains itself."""
        return super().construct_object(node, deep=True)

    def _refuse(self, why: str) -> NoReturn:
        """Raise MarkedYAMLError at the next event."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        raise yaml.MarkedYAMLError(problem=why, problem_mark=mark)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file: names, texts, numbers, lists and dicts.

    Raises:
        ValueError: it cannot be read, is too large, or contains anything else.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file; give a .yaml file or a name")
        with path.open("rb") as file:
            content = file.read(MOST_YAML_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a .yaml file or a name") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_YAML_BYTES:
        raise UserError(
            f"{path} is larger than {MOST_YAML_BYTES:,} bytes; a configuration is smaller"
        )
    try:
        return yaml.load(content.decode(), BoundedLoader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        why = getattr(error, "problem", None)
        reason = f": {why}" if isinstance(why, str) and len(why) < 100 else ""
        raise UserError(
            f"{path} is not YAML{line}{reason}; write lines like `attacks: [em, lsp]`"
        ) from None
