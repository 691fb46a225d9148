"""Methods that misbehave, as a plug-in file; each leaves a mark each time it is run."""

import os
import random
import signal
import time
import uuid
from pathlib import Path

import numpy as np
import torch

from uebench import Defense, Run, Split, defense

MARKS = Path(os.environ.get("UEBENCH_TEST_MARKS", "."))


def mark(name: str) -> None:
    """Leave a file that counts this call."""
    (MARKS / f"{name}-{uuid.uuid4().hex}").touch()


@defense("greedy", title="Greedy", source="a test")
class Greedy(Defense):
    """Asks for 40 GB."""

    def prepare(self, data: Split, run: Run) -> Split:
        """Take memory until there is none."""
        mark("greedy")
        torch.ones(10 * 10**9)
        return data


@defense("hangs", title="Hangs", source="a test")
class Hangs(Defense):
    """Never ends, and ignores SIGTERM."""

    def prepare(self, data: Split, run: Run) -> Split:
        """Sleep, and have a child that sleeps too."""
        mark("hangs")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = os.fork()
        (MARKS / f"sleeper-{os.getpid()}").touch()
        while True:
            time.sleep(0.1 if child else 0.2)


@defense("explodes", title="Explodes", source="a test")
class Explodes(Defense):
    """Trains to NaN."""

    def prepare(self, data: Split, run: Run) -> Split:
        """Only leave a mark."""
        mark("explodes")
        return data

    def loss(self, model, images, labels, run):  # type: ignore[no-untyped-def]
        """Return NaN."""
        return super().loss(model, images, labels, run) * float("nan")


@defense("rude", title="Rude", source="a test")
class Rude(Defense):
    """Trains as `standard`, after doing to its process all that a method should not do."""

    def prepare(self, data: Split, run: Run) -> Split:
        """Print, reseed, move, fork and let the child run on."""
        mark("rude")
        print("a method that prints to stdout")
        seed = time.time_ns() % 2**32
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        os.environ["UEBENCH_HOME"] = "elsewhere"
        os.chdir("/")
        os.fork()
        return data


@defense("counted", title="Counted", source="a test")
class Counted(Defense):
    """Trains as `standard` and counts how often."""

    def prepare(self, data: Split, run: Run) -> Split:
        """Only leave a mark."""
        mark("counted")
        return data
