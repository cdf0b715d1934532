"""Which figures are to be reached: what a target compares, and how the table tells it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from benchmarks.workloads import Figures

Figure = Literal["cpu_us", "p50_ms", "p99_ms", "kib_each", "lines_per_second"]
"""The figures that targets speak about: names of attributes of `Figures`."""

_ABOUT = {"cpu_us": "CPU ", "p50_ms": "p50 ", "p99_ms": "p99 "}
_UNITS = {
    "cpu_us": "µs",
    "p50_ms": "ms",
    "p99_ms": "ms",
    "kib_each": "KiB each",
    "lines_per_second": "lines/s",
}


class Reading(NamedTuple):
    """What a target finds: in one round, or as the median of several."""

    value: float
    allowed: float
    """The limit; the same in every round, unless it depends on the disk."""


@dataclass(frozen=True)
class Target(ABC):
    """A figure of one entry that has a limit."""

    entry: str
    figure: Figure
    limit: float

    @property
    def entries(self) -> frozenset[str]:
        """The labels of all the entries that it needs."""
        return frozenset([self.entry])

    @abstractmethod
    def reading(self, round_: Mapping[str, Figures]) -> Reading | None:
        """What one round gives, or None when an entry is missing from it."""

    def is_reached(self, reading: Reading) -> bool:
        """Whether that is good enough."""
        return reading.value <= reading.allowed

    @abstractmethod
    def in_words(self, reading: Reading) -> str:
        """What was found and what was to be reached."""

    def _figure(self, round_: Mapping[str, Figures], label: str) -> float | None:
        return getattr(round_.get(label), self.figure, None)


class AtMost(Target):
    """The figure itself is to be at most so large."""

    def reading(self, round_: Mapping[str, Figures]) -> Reading | None:
        own = self._figure(round_, self.entry)
        return None if own is None else Reading(own, self.limit)

    def in_words(self, reading: Reading) -> str:
        return f"{reading.value:.2f} {_UNITS[self.figure]} (at most {reading.allowed:g})"


class AtLeast(AtMost):
    """The figure itself is to be at least so large."""

    def is_reached(self, reading: Reading) -> bool:
        return reading.value >= reading.allowed

    def in_words(self, reading: Reading) -> str:
        return f"{reading.value:,.0f} {_UNITS[self.figure]} (at least {reading.allowed:,.0f})"


@dataclass(frozen=True)
class Ratio(Target):
    """The figure is to be at most so many times that of another entry."""

    against: str

    @property
    def entries(self) -> frozenset[str]:
        return frozenset([self.entry, self.against])

    def reading(self, round_: Mapping[str, Figures]) -> Reading | None:
        own, other = self._figure(round_, self.entry), self._figure(round_, self.against)
        return Reading(own / other, self.limit) if own is not None and other else None

    def in_words(self, reading: Reading) -> str:
        about = _ABOUT[self.figure]
        return f"{about}{reading.value:.2f} x {self.against} (at most {reading.allowed:g})"


@dataclass(frozen=True)
class Added(Ratio):
    """The figure, in ms, is to be at most that of another entry and so much more.

    The limit is meant for a disk whose fsync takes a millisecond; a slower one has more time in
    proportion, a faster one has the same.
    """

    def reading(self, round_: Mapping[str, Figures]) -> Reading | None:
        own, other = self._figure(round_, self.entry), self._figure(round_, self.against)
        if own is None or other is None:
            return None
        return Reading(own - other, self.limit * max(1.0, round_[self.entry].fsync_ms or 0.0))

    def in_words(self, reading: Reading) -> str:
        about, unit = _ABOUT[self.figure], _UNITS[self.figure]
        return (
            f"{about}{reading.value:+.2f} {unit} beside {self.against} "
            f"(at most +{reading.allowed:.3g})"
        )
