"""Kill a process at each of its file operations: for tests that something is written whole."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator

OPERATIONS = (
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.utime",
    "shutil.rmtree",
    "ctypes.dlopen",
    "ctypes.dlsym",
)
"""Audit events of operations that may change a folder, and of calls of C functions."""
KILLED, BROKEN = 9, 1


def killed_at_each_operation(
    first: int = 1, step: int = 1
) -> Iterator[tuple[int, Callable[[Callable[[], object]], bool]]]:
    """Yield n, and a function that performs work in a child that dies at operation n.

    That function returns whether the work was done before there were that many operations. The
    child ends without any cleaning up, as after `kill -9`.
    """
    for n in itertools.count(first, step):
        yield n, lambda work, n=n: _performed(work, n)


def _performed(work: Callable[[], object], n: int) -> bool:
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED), f"the work itself failed, see above ({status})"
        return status == 0
    try:
        _die_at(n)
        work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    os._exit(BROKEN)


def _die_at(n: int) -> None:
    """End this process at its nth file operation: just before it, or with a file just opened."""
    counter = itertools.count(1)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in OPERATIONS:
            return
        flags = arguments[2] if event == "open" else None
        if isinstance(flags, int) and not flags & os.O_ACCMODE:
            return  # it only reads
        if next(counter) == n:
            if isinstance(flags, int) and isinstance(arguments[0], str | os.PathLike):
                os.open(arguments[0], flags)  # its content is gone, and the new one not yet written
            os._exit(KILLED)

    sys.addaudithook(hook)
