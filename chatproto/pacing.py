"""How fast one client may send: a token bucket with the clock passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Pace(Protocol):
    """Says how long the next line has to wait."""

    def take(self) -> float:
        """Count one line and return 0, or return the seconds until there is room for it."""

    def charge(self, lines: int) -> None:
        """Count `lines` more; those that follow wait for them."""

    def is_rested(self) -> bool:
        """Tell whether a whole burst is free again."""


class TokenBucket:
    """A burst of lines at once, then an even rate.

    Slots only: every client has one.
    """

    __slots__ = ("_burst", "_rate", "_seconds", "_then", "_tokens")

    def __init__(self, burst: int, rate: float, seconds: Callable[[], float]) -> None:
        """Allow `burst` lines at once and `rate` lines a second; `seconds` tells the time."""
        self._burst = float(burst)
        self._rate = rate
        self._seconds = seconds
        self._tokens = self._burst
        self._then = seconds()

    def take(self) -> float:
        """Count one line and return 0, or return the seconds until there is room for it."""
        self._refill()
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        # Never less than a millisecond: a wait that rounds to nothing would spin.
        return max((1.0 - self._tokens) / self._rate, 0.001)

    def charge(self, lines: int) -> None:
        """Count `lines` more; those that follow wait for them."""
        self._tokens -= lines

    def is_rested(self) -> bool:
        """Tell whether a whole burst is free again."""
        self._refill()
        return self._tokens >= self._burst

    def _refill(self) -> None:
        now = self._seconds()
        # Every clock can step back: a negative pause would take tokens away.
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._then) * self._rate)
        self._then = now


class Unpaced:
    """No limit; shared by all clients."""

    __slots__ = ()

    def take(self) -> float:
        """Let every line pass."""
        return 0.0

    def charge(self, lines: int) -> None:
        """Count nothing."""

    def is_rested(self) -> bool:
        """There is nothing to recover from."""
        return True


UNPACED = Unpaced()


def pace_for(burst: int, rate: float, seconds: Callable[[], float]) -> Pace:
    """Return the pace of one client; a `rate` of 0 lines a second means none."""
    return TokenBucket(burst, rate, seconds) if rate else UNPACED
