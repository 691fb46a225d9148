"""Options of sbatch: those that a user may pass on, and which of them a refusal is about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from ..common.errors import UserError
from ..common.spec import printable

OPTION_OF = {
    **{name: name for name in ("partition", "account", "qos", "constraint")},
    **{"cpus-per-task": "cpus", "gpus-per-node": "gpus", "mem": "memory_gb", "time": "hours"},
}
"""Our option for each of sbatch's that the executor sets itself."""
_UNREACHED = (
    *("slurm controller", "slurmctld", "configuration source", "socket timed out", "zero bytes"),
    *("communication connection", "authentication", "munge"),
)
"""Parts of sbatch's errors about the cluster itself, which no option of a job causes."""
AFTER_A_FAULT = (
    "check with `scontrol ping` that its controller runs, or type the command on another login node"
)
SBATCH_S = 120
"""Longest wait in seconds for sbatch to test the options; it gives up on a controller itself."""
_NOT_TO_SET = ("array", "output", "error", "open-mode", "job-name", "signal", "wrap")
"""Options of sbatch that would break how jobs report."""


def without_brackets(text: str) -> str:
    """Return a text without the brackets around it that protect its commas."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def checked_sbatch(text: str) -> str:
    """Return options of sbatch, as a job takes them, or say what is wrong with them."""
    text = without_brackets(text)
    for word in sbatch_words(text):
        name = word.partition("=")[0].removeprefix("--")
        if not word.startswith("--") or not name:
            raise UserError(f"{word!r} is not an option of sbatch; write --NAME=VALUE or --NAME")
        if name in OPTION_OF:
            raise UserError(
                f"--{name} is the option {OPTION_OF[name]} of the executor; set that one"
            )
        if name in _NOT_TO_SET:
            raise UserError(f"--{name} is set by uebench, which needs it; leave it out")
    return text


def sbatch_words(text: str) -> list[str]:
    """Return the single options in a text such as `--gres=gpu:1 --exclusive`.

    Raises:
        UserError: a quotation mark is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{text!r} is not a list of options: {error}; close it") from None


def refusal_in_words(words: str, given: Mapping[str, str]) -> str:
    """Return why sbatch refuses a job, with the options of the executor that may be the cause.

    These are the options that its words mention, or else all that were given. No option is the
    cause where sbatch has not reached the cluster.

    Args:
        words: what sbatch wrote.
        given: the options that the user set, by name, as they were typed.
    """
    why = printable(" ".join(re.sub("sbatch: (error|fatal):", "", words).split()))
    if any(part in why.lower() for part in _UNREACHED):
        return f"sbatch does not reach the cluster: {why}; {AFTER_A_FAULT}"
    mentioned = [
        text for name, text in given.items() if any(part in why.lower() for part in _named_by(name))
    ]
    causes = ", ".join(mentioned or given.values()) or "the options"
    return (
        f"sbatch refuses the job: {why}; change {causes} of --executor slurm, which "
        "`uebench show executor slurm` lists"
    )


def _named_by(option: str) -> tuple[str, ...]:
    """Return the words by which sbatch's errors mean an option of the executor."""
    words = {
        "gpus": ("gpu", "gres", "generic resource"),
        "memory_gb": ("memory",),
        "cpus": ("cpu",),
        "hours": ("time",),
        "constraint": ("constraint", "feature"),
    }
    return words.get(option, (option.partition("=")[0].removeprefix("--").lower(),))
