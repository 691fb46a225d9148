"""The number of threads that compute on a CPU."""

from __future__ import annotations

import torch


class one_thread:  # noqa: N801
    """Context in which a CPU computes with one thread, and a GPU's threads stay as they are.

    Workers occupy all cores, and threads that share a busy core would wait for each other.
    """

    def __init__(self, device: str) -> None:
        self.n_threads = 1 if device == "cpu" else torch.get_num_threads()

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.n_threads)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
