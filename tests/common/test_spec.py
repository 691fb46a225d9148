"""Specs are read and written back, and bad ones are told in one sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uebench.common.spec import (
    did_you_mean,
    format_spec,
    format_value,
    parse_number,
    parse_spec,
    split_path,
    split_specs,
)

names = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
values = st.text("abcdefgh0123456789/.+", min_size=1, max_size=8)


@given(names, st.dictionaries(names, values, max_size=4))
def test_a_spec_reads_back_as_written(name: str, options: dict[str, str]) -> None:
    assert parse_spec(format_spec(name, options)) == (name, options)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        parse_spec(text)
    except ValueError as error:
        assert str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text", ["em[eps", "em[eps]", "[eps=1]", "em[eps=]", "1em", "em[a=1,a=2]", ""]
)
def test_bad_specs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like|give it once"):
        parse_spec(text)


def test_dashes_are_read_as_underscores() -> None:
    assert parse_spec("ueraser-lite[clip-norm=1]") == ("ueraser_lite", {"clip_norm": "1"})


def test_commas_in_brackets_do_not_separate() -> None:
    assert split_specs("em[eps=8/255,rounds=5], lsp") == ["em[eps=8/255,rounds=5]", "lsp"]


@pytest.mark.parametrize(
    ("text", "number"), [("8/255", 8 / 255), ("1/2", 0.5), (" 3 / 4 ", 0.75), (2, 2), ("x", "x")]
)
def test_fractions_become_numbers(text: object, number: object) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["8/0", "a/b", "1/2/3", "/"])
def test_bad_fractions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="8/255"):
        parse_number(text)


@given(st.integers(1, 254))
def test_levels_are_written_as_fractions(levels: int) -> None:
    assert format_value(levels / 255) == f"{levels}/255"


def test_the_nearest_name_is_offered() -> None:
    assert did_you_mean("ueraser_light", ["ueraser_lite", "at"]) == " (did you mean ueraser_lite?)"
    assert did_you_mean("zzz", ["ueraser_lite"]) == ""
    assert did_you_mean("lps", ["ops", "lsp"]) == did_you_mean("lps", ["lsp", "ops"])
    assert did_you_mean("resnet81", ["resnet18", "resnet8"]) == " (did you mean resnet8?)"
    assert did_you_mean("lps", ["ops", "lsp"]) == " (did you mean lsp?)"


@pytest.mark.parametrize("text", ["1e99999999/2", "1/0", "1/2/3", "a/b", "nan/2", "/2", "1//2"])
def test_what_is_no_fraction_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="is not a fraction; write it like 8"):
        parse_number(text)


def test_fractions_are_exact_and_may_have_decimals() -> None:
    assert parse_number("8/255") == 8 / 255
    assert parse_number(" 1.6 / 255 ") == 1.6 / 255


@pytest.mark.parametrize(
    ("text", "path", "options"),
    [
        ("a/b.npz", "a/b.npz", ""),
        ("a/b.npz[n_train=5]", "a/b.npz", "[n_train=5]"),
        ("a[b]/c[n_train=5,n_test=2]", "a[b]/c", "[n_train=5,n_test=2]"),
        ("odd[name]", "odd[name]", ""),
        ("odd[2J<u>", "odd[2J<u>", ""),
    ],
)
def test_a_path_may_contain_brackets_itself(text: str, path: str, options: str) -> None:
    assert split_path(text) == (path, options)
