"""The command line. Data goes to stdout, progress and messages to stderr.

Exit status: 0 all is well; 1 some cells failed or were not reached; 2 the command was wrong, and
nothing was written.
torch is loaded by the verbs that need it, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import click

from .. import __version__
from .authoring import check, new
from .completion import completion
from .group import Verbs
from .listing import doctor, list_, show
from .poison import audit, craft, import_
from .report import plot, report
from .run import run
from .share import card, publish, validate
from .store import store_group
from .table import table
from .verify import verify


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="uebench")
def main() -> None:
    """Benchmark unlearnable-example attacks against the defenses that learn anyway.

    \b
    uebench run                                            the default matrix
    uebench run --attacks em,lsp --defenses ueraser,at     a matrix of your own
    uebench list attacks                                   what there is
    uebench show em                                        a method and its options
    """  # noqa: D301
    os.environ["UEBENCH_COMMAND"] = json.dumps(["uebench", *sys.argv[1:]])
    logging.basicConfig(format="uebench: %(message)s", level=logging.WARNING, stream=sys.stderr)


for _verb in (
    *(run, list_, show, doctor),
    *(craft, audit, import_, table, report, plot, store_group, verify),
    *(new, check, completion, publish, validate, card),
):
    main.add_command(_verb)
