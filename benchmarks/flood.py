"""A client that sends a lot of nothing: 64 KiB of newlines, over and over."""

from __future__ import annotations

from benchmarks.crowd import Crowd

FLOOD_BYTES = 1 << 16
FLOOD_INTERVAL = 1.5
"""Seconds from one flood to the next. A server that takes the flood in slices is busy with it for
about a second, so a 99th percentile sees mostly what others have to wait meanwhile. Closer floods
would only fill the buffers of the kernel, which then take minutes to empty."""


class Flood:
    """Floods from one client that has joined the crowd to speak, at fixed times.

    When the server has not taken the last one yet the next one waits: the server is allowed to
    slow the flood down by reading slowly.
    """

    def __init__(self, crowd: Crowd, fd: int) -> None:
        self.floods = 0

        self._crowd = crowd
        self._fd = fd
        self._rest = b""
        self._due = 0.0

    def go_on(self, now: float) -> None:
        """Sends what is due, or what is left; `now` is in seconds on any clock that only grows."""
        if not self._rest and now >= self._due:
            self._rest = b"\n" * FLOOD_BYTES
            self._due = now + FLOOD_INTERVAL
            self.floods += 1
        if self._rest:
            sent = self._crowd.write_some(self._fd, self._rest)
            self._rest = self._rest[sent:]
