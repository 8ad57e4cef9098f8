"""The threads of a program: whoever runs the pass, and helpers that join while there is work."""

import threading
from dataclasses import dataclass, field

import numpy as np

from apps.serve.engine.cpu import program

PATIENCE = 30_000
"""Looks of a helper without work before it sleeps, some 1 ms: longer than between two steps."""


@dataclass(slots=True, eq=False)
class Team:
    """Runs `phases` on `num_threads` threads; `batch` and `phases` are as program.py says."""

    phases: np.ndarray
    batch: np.ndarray
    scores_shape: tuple[int, int]
    """What a thread needs to attend: [heads, most keys]"""
    num_threads: int
    _board: np.ndarray = field(default_factory=lambda: np.zeros(16, np.int64))
    _wake: list[threading.Event] = field(default_factory=list)
    _closed: threading.Event = field(default_factory=threading.Event)
    _scores: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._scores = np.empty(self.scores_shape, np.float32)
        self._board[0] = len(self.phases) << 40
        for _ in range(self.num_threads - 1):
            self._wake.append(threading.Event())
            threading.Thread(target=self._help, args=(self._wake[-1],), daemon=True).start()

    def run(self) -> None:
        """One pass over `batch`, by the calling thread and whichever helpers are awake."""
        program.start(self._board, self.phases, self.batch)
        for wake in self._wake:
            wake.set()
        program.work(self._board, self.phases, self.batch, self._scores, 0)

    def close(self) -> None:
        self._closed.set()
        for wake in self._wake:
            wake.set()

    def _help(self, wake: threading.Event) -> None:
        scores = np.empty(self.scores_shape, np.float32)
        while wake.wait() and not self._closed.is_set():
            wake.clear()
            program.work(self._board, self.phases, self.batch, scores, PATIENCE)
