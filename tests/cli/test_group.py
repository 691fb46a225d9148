"""The help of all verbs, and `--debug`, which each of them takes."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from uebench.cli import main


def verbs(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every verb, and of every verb below one."""
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))


VERBS = list(verbs())


def command_of(words: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


@pytest.mark.parametrize("words", [(), ("store",)], ids=" ".join)
def test_no_line_of_the_help_is_cut(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=80)
    assert result.exit_code == 0
    usage, *lines = result.stdout.splitlines()
    assert usage.startswith("Usage: ")  # its "[ARGS]..." means that there may be several
    assert not [line for line in lines if line.endswith("...")]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_summary_is_a_whole_sentence(words: tuple[str, ...]) -> None:
    command = command_of(words)
    summary = command.get_short_help_str(limit=1000)
    assert summary.endswith(".")
    assert summary == (command.help or "").splitlines()[0], "the first line is the summary"


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_option_says_what_it_is_for(words: tuple[str, ...]) -> None:
    for option in command_of(words).params:
        if isinstance(option, click.Option) and option.name != "help":
            assert option.help, option.name
            assert option.help.endswith("."), option.help


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_takes_debug(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UEBENCH_DEBUG", "")

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(command_of(words), "invoke", broken)
    arguments = [
        "x" if not isinstance(parameter.type, click.Choice) else str(parameter.type.choices[0])
        for parameter in command_of(words).params
        if isinstance(parameter, click.Argument) and parameter.required
    ]
    for option in command_of(words).params:
        if isinstance(option, click.Option) and option.required:
            choice = option.type.choices[0] if isinstance(option.type, click.Choice) else "x"
            arguments += [option.opts[0], str(choice)]
    if isinstance(command_of(words), click.Group):
        arguments.append(next(iter(command_of(words).commands)))  # type: ignore[attr-defined]
    quiet = CliRunner().invoke(main, [*words, *arguments])
    assert quiet.exit_code == 1
    assert "Traceback" not in quiet.stderr
    loud = CliRunner().invoke(main, [*words, "--debug", *arguments])
    assert loud.exit_code == 1
    assert "Traceback (most recent call last)" in loud.stderr
    assert "ZeroDivisionError: by nothing" in loud.stderr


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_no_usage_line_is_broken_inside_a_word(words: tuple[str, ...]) -> None:
    printed = CliRunner().invoke(main, [*words, "--help"], terminal_width=80).stdout
    usage = printed.partition("\n\n")[0].splitlines()
    assert max(map(len, usage)) <= 80
    assert all(line.count("[") == line.count("]") for line in usage), usage


def test_ctrl_c_ends_any_verb_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("uebench.suite.listing.catalog", interrupted)
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 130
    assert result.stderr == "stopped: run the same command again\n"
