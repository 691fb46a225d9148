"""Time spent in blocks of code, measured without making the host wait for a GPU."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Adds up the time spent inside `with stopwatch:` without making the host wait for a GPU.

    On a GPU it only records events; `taken()` reads them when an epoch has ended, and the time of a
    block is then that of its kernels.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> None:
        if self._cuda:
            self._mark()
        else:
            self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self._mark()
        else:
            self._seconds += time.perf_counter() - self._start

    def _mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def taken(self) -> float:
        """Return the seconds since the last call; on a GPU, wait for the last block first."""
        seconds, self._seconds = self._seconds, 0.0
        if self._events:
            self._events[-1].synchronize()
            pairs = zip(self._events[::2], self._events[1::2], strict=True)
            seconds += sum(begin.elapsed_time(end) for begin, end in pairs) / 1000
            self._events.clear()
        return seconds
