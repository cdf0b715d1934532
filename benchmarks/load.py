"""Keeps lines in flight and checks what comes back.

A line is in flight from the moment that a speaker hands it to the kernel until the last listener
has it. Two ways to say the next one:

- with `in_flight`, that many lines are out at any time: as soon as one is done its speaker says
  the next. That is how throughput is measured.
- with `lines_per_second`, lines are said at fixed times, whether or not earlier ones have
  arrived. That is how a stall of the server is measured: it would hide in the first way, since
  lines that are not said cannot be late.

Checked are, for all clients, the number of bytes; and for a sample of them every single line:
that it is one that was said, that it came once, that each speaker's lines are in the order in
which they were said, and that all of the sample saw the same order.

Counted are all deliveries. In the chat servers who speaks is a member of the room as well and
gets what the others say, so a line of 64 speakers to 900 listeners makes 963 deliveries; Redis
publishers do not receive, there it makes 900.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from benchmarks import BenchmarkError
from benchmarks.contenders import LINE_BYTES
from benchmarks.crowd import Crowd
from benchmarks.flood import Flood

_STALL_SECONDS = 10.0
"""No byte for so long while lines are in flight: they are lost."""

_OVERTIME_SECONDS = 60.0
"""The last lines of a run may take so long to arrive."""

_WARM_UP_SECONDS = 20.0
_MOST_OUT = 2000
"""With `lines_per_second`, a server that keeps up has far fewer lines in flight."""

_FILLING = b"hello to everyone in this room, as long as it".ljust(LINE_BYTES - 15, b".") + b"\n"


@dataclass
class Tally:
    """What came out of one run of a load; times in seconds."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited_seconds: float = 0.0
    """Time that the server could not run since another program had its core."""

    lines: int = 0
    said: int = 0
    """Lines said in this run and all the runs before, the warm-up not counted."""

    arrivals: int = 0
    """How often the last listener got something that made lines done."""

    deliveries: int = 0
    lost: int = 0
    wrong: int = 0
    latencies: list[float] = field(default_factory=list)


class Load:
    """What a crowd says to each other."""

    def __init__(self, crowd: Crowd, *, in_flight: int = 0, lines_per_second: float = 0.0) -> None:
        self._crowd = crowd
        self._contender = crowd.server.contender
        self._in_flight = in_flight
        self._interval = 1 / lines_per_second if lines_per_second else 0.0
        self._speakers = crowd.speakers
        self._next_speaker = 0
        self._said = dict.fromkeys(self._speakers, 0)
        self._size = 0

        # One run:
        self._done = 0
        self._out: dict[bytes, tuple[int, int, float]] = {}
        self._order: list[int] = []
        self._first: dict[int, int] = {}
        self._expected: dict[int, int] = {}
        self._tally = Tally()

    def warm_up(self) -> None:
        """Makes sure that everybody is in: each has received a line, and then all was quiet."""
        crowd = self._crowd
        crowd.wait_for_quiet()
        crowd.reset()
        delivered = self._contender.delivered(crowd.numbers[self._speakers[0]], self._line(0, 0))
        self._size = len(delivered.translate(None, crowd.ignored))
        listeners = list(crowd.heard)
        crowd.keep([listeners[0], listeners[-1], self._speakers[-1]])
        deadline = time.monotonic() + _WARM_UP_SECONDS
        crowd.aim(self._size)
        while crowd.waiting:
            if time.monotonic() > deadline:
                raise BenchmarkError(
                    f"{crowd.waiting} of {len(listeners)} clients of {self._contender.name} "
                    f"had received nothing after {_WARM_UP_SECONDS:.0f} s."
                )
            crowd.write(self._speakers[0], self._contender.say(self._line(0, 0)))
            again = time.monotonic() + 1.0
            while crowd.waiting and time.monotonic() < again:
                crowd.receive(0.1)
        crowd.wait_for_quiet()

    def run(self, seconds: float, flood: Flood | None = None) -> Tally:
        """Talks for that long, waits until everything has arrived, and counts."""
        crowd = self._crowd
        crowd.reset()
        self._done, self._out, self._order, self._tally = 0, {}, [], Tally()
        self._first, self._expected = dict(self._said), dict(self._said)
        crowd.aim(self._size)
        server = crowd.server
        cpu_before, waited_before = server.cpu_seconds(), server.waited_seconds()
        started = time.perf_counter()
        self._talk(started, started + seconds, flood)
        tally = self._tally
        tally.seconds = time.perf_counter() - started
        tally.cpu_seconds = server.cpu_seconds() - cpu_before
        tally.waited_seconds = max(0.0, server.waited_seconds() - waited_before)
        # Whatever arrives now is too much, or belongs to the flood.
        crowd.wait_for_quiet(0.1)
        tally.lines = self._lines()
        tally.said = sum(self._said.values())
        self._count()
        self._compare_sample()
        return tally

    def _talk(self, started: float, until: float, flood: Flood | None) -> None:
        """The loop of a run: say, receive, see what is done."""
        crowd, clock = self._crowd, time.perf_counter
        due = last = started
        for _ in range(self._in_flight):
            self._say(self._turn())
        while True:
            now = clock()
            if now < until:
                if flood is not None:
                    flood.go_on(now)
                while self._interval and due <= now:
                    if len(self._out) < _MOST_OUT:
                        self._say(self._turn())
                    due += self._interval
            elif now > until + _OVERTIME_SECONDS or self._all_have_arrived():
                return
            if self._interval and now < until:
                arrived = crowd.receive_until(due)
            else:
                arrived = crowd.receive(0.1)
            now = clock()
            if arrived:
                last = now
                if not crowd.waiting:
                    self._advance(now, go_on=now < until and not self._interval)
            elif now - last > _STALL_SECONDS and (self._out or now > until):
                return

    def _turn(self) -> int:
        """The next speaker, one after the other."""
        self._next_speaker = (self._next_speaker + 1) % len(self._speakers)
        return self._speakers[self._next_speaker]

    def _line(self, number: int, sequence: int) -> bytes:
        return b"%05d %08d %b" % (number, sequence, _FILLING)

    def _say(self, fd: int) -> None:
        sequence = self._said[fd]
        self._said[fd] = sequence + 1
        number = self._crowd.numbers[fd]
        line = self._line(number, sequence)
        delivered = self._contender.delivered(number, line)
        if self._crowd.ignored:
            delivered = delivered.translate(None, self._crowd.ignored)
        self._out[delivered] = (fd, sequence, time.perf_counter())
        self._crowd.write(fd, self._contender.say(line))

    def _advance(self, now: float, *, go_on: bool) -> None:
        """Everybody has reached the goal: books the lines that are done, and aims at the next."""
        crowd, size = self._crowd, self._size
        stream = next(iter(crowd.kept.values()))
        done = min(crowd.heard.values()) // size
        speakers = []
        for start in range(self._done * size, done * size, size):
            frame = bytes(stream[start : start + size])
            try:
                fd, sequence, said_at = self._out.pop(frame)
            except KeyError:
                raise BenchmarkError(
                    f"A client of {self._contender.name} received {frame!r}, "
                    "which nobody has said, or which it has received before."
                ) from None
            if sequence < self._expected[fd]:
                self._tally.wrong += 1
            else:
                self._expected[fd] = sequence + 1
            self._order.append(fd)
            self._tally.latencies.append(now - said_at)
            speakers.append(fd)
        self._tally.arrivals += 1
        self._done = done
        if go_on:
            for fd in speakers:
                self._say(fd)
        crowd.aim((done + 1) * size)

    def _lines(self) -> int:
        """How many lines have been said in this run."""
        return sum(self._said.values()) - sum(self._first.values())

    def _due_to_speakers(self) -> dict[int, int]:
        """Bytes that each speaker should have received: all lines but its own."""
        if not self._contender.senders_receive:
            return {}
        lines, said, first = self._lines(), self._said, self._first
        return {fd: (lines - said[fd] + first[fd]) * self._size for fd in self._speakers}

    def _all_have_arrived(self) -> bool:
        if self._out:
            return False
        heard = self._crowd.heard_by_speakers
        return all(heard[fd] >= due for fd, due in self._due_to_speakers().items())

    def _count(self) -> None:
        """Compares every client's bytes with what it should have."""
        crowd, size, tally = self._crowd, self._size, self._tally
        pairs = [(tally.lines * size, got) for got in crowd.heard.values()]
        pairs += [(due, crowd.heard_by_speakers[fd]) for fd, due in self._due_to_speakers().items()]
        for expected, got in pairs:
            tally.deliveries += got // size
            tally.lost += -(min(0, got - expected) // size)
            tally.wrong += -(min(0, expected - got) // size)

    def _compare_sample(self) -> None:
        """All of the sample saw the same order; a speaker saw it without its own lines."""
        size, streams = self._size, self._crowd.kept
        leading = next(iter(streams.values()))
        frames = [bytes(leading[i * size : (i + 1) * size]) for i in range(len(self._order))]
        for fd, stream in streams.items():
            if fd in self._said and not self._contender.senders_receive:
                continue
            expected = [frame for frame, by in zip(frames, self._order, strict=True) if by != fd]
            got = bytes(stream[: len(expected) * size])
            if got != b"".join(expected):
                self._tally.wrong += sum(
                    got[i * size : (i + 1) * size] != frame for i, frame in enumerate(expected)
                )
