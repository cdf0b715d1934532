"""Makes a store with many lines: `python -m benchmarks.filling FILE LINES`.

A program of its own, which `history` runs: the lines go through the server's own log, and that
needs a reactor. It prints a `Filled` as JSON. The clock is ours, so the lines lie in the past, at
even distances up to now.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from chatproto.errors import StoreError
from chatproto.model import Draft, Event, Kind
from chatproto.stores.sqlite import sqlite_store
from chatproto.stores.sqlite.file import StoreFile
from chatproto.stores.sqlite.retention import Keep

ROOM: Final = "lobby"

SECONDS_APART: Final = 2.0
"""From a line to the next: a million are 23 days, and two hours are 3,600."""

RARE: Final = "QUINCE"
"""In three lines only, which hold the pair `SELDOM` as well."""

COMMON: Final = ("HELLO", "WORLD")
"""In every second line, and in every third: together in every sixth."""

SELDOM: Final = ("HEADS", "TAILS")
"""The one in all even lines, the other in all odd ones: seldom together. What is hardest to find is
two long lists that hardly meet."""

_BATCH = 100
"""Lines that are stored at once, at one time."""

_VOCABULARY = 20_000
_WORDS = 6
_SYLLABLES = ("BA", "DO", "FI", "GU", "KE", "LA", "MO", "NI", "PU", "RE", "SA", "TO", "VI", "ZU")
_NICKS = tuple(f"nick{number:02d}" for number in range(50))


@dataclass(frozen=True)
class Filled:
    """What has been made."""

    adding_seconds: float
    indexing_seconds: float
    middle_id: int
    """The id of the line in the middle, which is number `lines // 2` of them, from 0."""


def label(number: int) -> str:
    """What the line with this number, from 0, begins with, and no other line has."""
    return f"N{number:07d}"


def rare_lines(lines: int) -> list[int]:
    """The numbers of the lines with `RARE`."""
    return [lines // 4, lines // 2, lines * 3 // 4]


def texts(lines: int) -> Iterator[str]:
    """What is said, the same in every run: words as unevenly frequent as those of a language."""
    chance = random.Random(3)
    vocabulary = ["".join(chance.choices(_SYLLABLES, k=3)) for _ in range(_VOCABULARY)]
    rare = set(rare_lines(lines))
    for number in range(lines):
        words = [label(number)]
        words += [vocabulary[int(_VOCABULARY ** chance.random()) - 1] for _ in range(_WORDS)]
        words += [word for word, every in zip(COMMON, (2, 3), strict=True) if number % every == 0]
        words.append(SELDOM[number % 2])
        if number in rare:
            words += [RARE, *SELDOM]
        yield " ".join(words)


async def fill(reactor: Any, path: str, lines: int) -> Filled:
    """Stores and indexes the lines in a new file."""
    now = time.time() - lines * SECONDS_APART
    # The disk need not have every batch before the next: the file is closed before it is used.
    file = StoreFile(path, durability="normal")
    log = sqlite_store(reactor, lambda: now, file, keep=Keep()).log
    ids: list[int] = []
    stored: Deferred[None] = Deferred()

    def deliver(events: Sequence[Event]) -> None:
        ids.extend(event.id for event in events)
        stored.callback(None)

    def refused(drafts: Sequence[Draft], error: StoreError) -> None:
        stored.errback(error)

    log.start(deliver, refused)
    began = time.perf_counter()
    said = texts(lines)
    for start in range(0, lines, _BATCH):
        now += _BATCH * SECONDS_APART
        stored = Deferred()
        log.append(
            [
                Draft(ROOM, Kind.SAID, _NICKS[number % len(_NICKS)], next(said), 1)
                for number in range(start, min(start + _BATCH, lines))
            ]
        )
        await stored
    added = time.perf_counter()
    while (await log.search(ROOM, RARE, 1)).unsearched:
        pass  # each search indexes a little
    indexed = time.perf_counter()
    await log.stop()
    return Filled(added - began, indexed - added, ids[lines // 2])


async def main(reactor: Any, path: str, lines: str) -> None:
    """Fills the file and prints what has been made."""
    print(json.dumps(asdict(await fill(reactor, path, int(lines)))))


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
