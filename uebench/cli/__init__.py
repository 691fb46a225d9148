"""The command line: the group `main`, and the verbs that it collects.

Data goes to stdout; progress and messages go to stderr. The exit status is 0 if all went well, 1 if
cells failed or were not reached or a method broke, and 2 if the command itself was wrong (then
nothing was written), the store cannot be used, or memory ran out. torch is loaded only by the verbs
that need it: `--help` must not wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import click

from ..common.text import plain_text
from ..common.version import __version__
from .authoring import check, new
from .completion import completion
from .detect import detect_verb
from .group import Verbs
from .listing import doctor, list_, show
from .poison import audit_verb, craft_verb, import_
from .report import plot_verb, report
from .run import run_verb
from .share import card_verb, merge_verb, publish_verb, validate_verb
from .site import site_verb
from .store import store_group
from .table import table
from .verify import verify_verb


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(__version__, prog_name="uebench")
def main() -> None:
    """Benchmark unlearnable-example attacks against defenses.

    \b
    uebench run                                          run the default matrix
    uebench run --attacks em,lsp --defenses ueraser,at   run a matrix of your own
    uebench list attacks                                 list the attacks
    uebench show em                                      describe one of them
    """  # noqa: D301
    # Recorded with every result; workers inherit it, whatever their own command line is.
    os.environ["UEBENCH_COMMAND"] = json.dumps(["uebench", *sys.argv[1:]])
    messages = logging.StreamHandler()
    messages.setFormatter(_PlainFormatter("uebench: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[messages])


class _PlainFormatter(logging.Formatter):
    """Messages quote names from disk, in which there must be nothing that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return plain_text(super().format(record))


for _verb in (
    *(run_verb, list_, show, doctor),
    *(craft_verb, audit_verb, detect_verb, import_, table, report, plot_verb),
    *(store_group, verify_verb),
    *(new, check, completion, publish_verb, validate_verb, merge_verb, card_verb, site_verb),
):
    main.add_command(_verb)
