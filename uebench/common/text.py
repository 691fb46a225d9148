"""Make foreign text harmless, split lists in a text, and replace files atomically.

Names, options and error messages come from plug-ins and from other people's `cells.csv`. This
module removes whatever a terminal would obey (ANSI sequences, control codes, marks that change
the writing direction). Escaping for LaTeX and Markdown is left to their writers.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .drafts import replaced_file

if TYPE_CHECKING:
    from rich.console import Console

CAPTION = "uebench"
"""Name of the PNG text that holds the caption of a picture, as JSON."""
_ANSI = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # operating system commands, links
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours and cursor moves
)
_TURNS_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain_text(text: str) -> str:
    """Return `text` without terminal commands and control codes, but with newlines and tabs."""
    if text.isprintable():
        return text
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    text = _with_visible_bytes(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c for c in text if c in "\n\t" or _is_harmless(c))


def one_line(text: str) -> str:
    """Return `plain_text(text)` on one line, with single spaces between its words."""
    return " ".join(plain_text(text).split())


def escaped(name: object) -> str:
    r"""Return the name of a file, a folder or a class as printable text on one line.

    Control codes, marks that change the writing direction, and bytes that are not UTF-8 become
    escapes such as \x1b, so that names which differ only in these can be distinguished.
    """
    text = _with_visible_bytes(str(name))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def comma_parts(text: str) -> list[str]:
    """Split a text at the commas outside brackets and strip the parts; an empty text has none."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part.strip() for part in parts] if text.strip() else []


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 epoch`, `8,000 images`; an irregular plural is given."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return a time in words: 2.5 s, 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def stdout_console() -> Console:
    """Return the console for text on stdout; rich uses colours on terminals alone.

    Without a terminal tables may have 160 columns, and sentences are not broken into lines, so that
    a program can search them.
    """
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    width = None if on_terminal else 160
    return Console(width=width, soft_wrap=not on_terminal, highlight=False, markup=False)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all, and create missing folders."""
    with replaced_file(path) as draft, draft.open("x", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _with_visible_bytes(text: str) -> str:
    r"""Return a text in which the bytes of a file name that are not UTF-8 are written like \xe9.

    Python keeps such a byte as a lone surrogate, U+DC00 plus the byte, which cannot be written.
    """
    return re.sub("[\udc80-\udcff]", lambda byte: rf"\x{ord(byte[0]) - 0xDC00:x}", text)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) != "Cc" and character not in _TURNS_DIRECTION


def distinct_titles(titles: Mapping[str, str]) -> dict[str, str]:
    """Return titles by name, in which those that several names share are followed by the name."""
    count = Counter(titles.values())
    return {
        name: title if count[title] == 1 else f"{title} ({name})" for name, title in titles.items()
    }


def shell_line(command: Sequence[str]) -> str:
    """Return a command as one types it; a leading ~ stays the home folder."""
    return " ".join(
        f"~/{shlex.quote(word[2:])}" if word[2:] and word.startswith("~/") else shlex.quote(word)
        for word in command
    )
