"""Start `uebench run` as a user would, in its own process and with a method that waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uebench.cells.config import make_config
from uebench.store.store import Store
from uebench.suite.run import execute, prepare

DATA = "synthetic[n_train=40,n_test=20,n_classes=2,size=16]"
FIELDS: dict[str, Any] = {
    "dataset": DATA,
    "arch": "resnet9[width=2]",
    "protocol_options": {"epochs": 2, "batch_size": 16},
}
PATIENCE_S = 240
SAME = ["test_acc", "test_acc_best", "train_acc", "confusion", "poison_sha256", "recipe"]
WAITS = '''
import os, time
from pathlib import Path
from uebench import Defense, defense

@defense("waits", title="Waits", source="a test")
class Waits(Defense):
    """Leaves its process number and waits for a file named `go`."""
    def prepare(self, data, run):
        """Wait."""
        folder = Path({folder!r})
        (folder / f"pid-{{os.getpid()}}").touch()
        while not (folder / "go").exists():
            time.sleep(0.05)
        return data
'''


class Driver:
    """A running `uebench run` whose workers can be found and killed."""

    def __init__(self, folder: Path, store: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        (folder / "waits.py").write_text(WAITS.format(folder=str(folder)))
        self.before = self.pids()
        options = ["--dataset", DATA, "--arch", FIELDS["arch"], "--device", "cpu"]
        options += ["--epochs", "2", "--set", "protocol.batch_size=16"]
        options += ["--plugin", str(folder / "waits.py"), "--out", str(folder / "out")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uebench", "run", *options, *arguments],
            env={**os.environ, "UEBENCH_HOME": str(store), **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            # a shell makes its background processes ignore Ctrl-C, and children inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line)

    def pids(self) -> set[int]:
        """Return the processes in which a waiting cell has run."""
        return {int(path.name[4:]) for path in self.folder.glob("pid-*")}

    def new_pid(self, but: set[int] = frozenset()) -> int:  # type: ignore[assignment]
        """Wait for a new process with a waiting cell; return its number."""
        self.until(lambda: bool(self.pids() - self.before - set(but)))
        return next(iter(self.pids() - self.before - set(but)))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, f"the driver ended: {self.stderr_text()}"
            assert time.monotonic() < deadline, f"waited too long: {self.stderr_text()}"
            time.sleep(0.1)

    def stderr_text(self) -> str:
        """Return what the driver has printed to stderr so far."""
        return "".join(self.lines)

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
        """Wait until the driver has ended; return its exit status."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join(30)
        return status

    def stop(self) -> None:
        """End the driver and everything that it has started."""
        (self.folder / "go").touch()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(30)


def records(store: Store, *folders: Path, **fields: Any) -> list[dict[str, Any]]:
    """Compute the cells of a matrix that the store lacks; return the results of all."""
    given = {"attacks": "none,lsp", "defenses": "standard,ueraser_lite", **FIELDS, **fields}
    matrix = prepare(make_config(given), "cpu", 2, store=store)
    execute(matrix)
    return results(matrix.cells, store)


def results(cells: list[Any], store: Store) -> list[dict[str, Any]]:
    """Return the stored results of cells, with losses to the last bit."""
    results = []
    for cell in cells:
        entry = store.read("cell", cell.key)
        assert entry is not None, f"{cell.describe()} is missing"
        record = entry[1]
        results.append(
            {name: record[name] for name in SAME}
            | {"losses": [row["loss"].hex() for row in record["curve"]], "key": cell.key}
        )
    return results
