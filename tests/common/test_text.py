"""Lists in one text are split at the commas outside brackets; durations are put into words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uebench.common.text import comma_parts, duration


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" ", []),
        ("a", ["a"]),
        ("em[eps=8/255,rounds=5], lsp", ["em[eps=8/255,rounds=5]", "lsp"]),
        ("a=1,surrogate=resnet9[width=8],x=1", ["a=1", "surrogate=resnet9[width=8]", "x=1"]),
        ("a=[b[c,d],e],f", ["a=[b[c,d],e]", "f"]),
        ("a,,b", ["a", "", "b"]),
    ],
)
def test_commas_in_brackets_do_not_separate(text: str, parts: list[str]) -> None:
    assert comma_parts(text) == parts


@given(st.lists(st.from_regex(r"[a-z]{1,4}(=[a-z]\[[a-z,]{0,5}\])?", fullmatch=True), min_size=1))
def test_what_is_joined_is_split(parts: list[str]) -> None:
    assert comma_parts(", ".join(parts)) == parts


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.46, "2.5 s"), (40, "40 s"), (720, "12 min"), (12600, "3.5 h"), (181440, "2.1 days")],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
