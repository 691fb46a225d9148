"""The long fault campaign: `make faults`, or `python -m tests.faults --minutes 30`.

It disturbs runs at random moments in the ways that they are disturbed in practice, and prints what
was checked, what held and what was lost. The exit status is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import scenes
from .scenes import Stage, Tally

SCENES: dict[str, Callable[[Stage], Tally]] = {
    "driver killed": lambda stage: scenes.drivers_killed(stage, 5),
    "workers killed": lambda stage: scenes.workers_killed(stage, 6),
    "forkserver killed": scenes.forkserver_killed,
    "8 drivers, one store": lambda stage: scenes.many_drivers(stage, 8),
    "clock jumps": scenes.jumping_clock,
    "out of memory": scenes.out_of_memory,
    "cell hangs": scenes.hanging,
    "loss is NaN": scenes.diverging,
    "rude method": scenes.rude_method,
}


def main() -> int:
    """Play all scenes again and again until the time is up; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--only", choices=list(SCENES), help="play one scene alone")
    options = parser.parse_args()
    chosen = {k: v for k, v in SCENES.items() if options.only in (None, k)}
    totals = {name: Tally() for name in chosen}
    rounds = dict.fromkeys(chosen, 0)
    deadline = time.monotonic() + 60 * options.minutes
    n_round = 0
    while not n_round or time.monotonic() < deadline:
        for name, scene in chosen.items():
            if n_round and time.monotonic() >= deadline:
                break
            with tempfile.TemporaryDirectory() as folder:
                os.environ["UEBENCH_HOME"] = folder
                start = time.monotonic()
                tally = scene(Stage(Path(folder), options.seed + n_round))
            rounds[name] += 1
            totals[name].tried += tally.tried
            totals[name].survived += tally.survived
            totals[name].lost += tally.lost
            result = f"{tally.survived}/{tally.tried} in {time.monotonic() - start:.0f} s"
            print(f"round {n_round + 1}, {name}: {result}", file=sys.stderr, flush=True)
        n_round += 1
    print(f"{'fault':<22}{'times':>6}{'checked':>9}{'held':>6}{'lost':>6}")
    for name, total in totals.items():
        lost = len(total.lost)
        print(f"{name:<22}{rounds[name]:>6}{total.tried:>9}{total.survived:>6}{lost:>6}")
    for name, total in totals.items():
        for why in dict.fromkeys(total.lost):
            print(f"lost: {name}: {why}")
    return int(any(total.lost for total in totals.values()))


if __name__ == "__main__":
    raise SystemExit(main())
