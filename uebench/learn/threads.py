"""How many threads compute on a CPU."""

from __future__ import annotations

import torch


class one_thread:  # noqa: N801
    """Context: compute with one thread on a CPU, where two on busy cores wait for each other."""

    def __init__(self, device: str) -> None:
        self.wanted = 1 if device == "cpu" else torch.get_num_threads()

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.wanted)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
