"""What is compared with what, and which figures are to be reached.

A case is a list of entries, each a server under a workload, that are run in turns. Its targets
speak about the entries of the same case, so that a case says something even when it is run alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.contenders import (
    Chat,
    Contender,
    NamedChat,
    PlainLoop,
    RedisPubSub,
    SqliteChat,
    TlsChat,
)
from benchmarks.targets import Added, AtLeast, AtMost, Ratio, Target
from benchmarks.workloads import Chatting, FanOut, Idle, Workload


@dataclass(frozen=True)
class Entry:
    """A row of the table: one server under one workload."""

    contender: Contender
    workload: Workload
    remark: str = ""

    @property
    def label(self) -> str:
        """What the row is called; different for all the entries of a case."""
        return f"{self.contender.name}, {self.remark}" if self.remark else self.contender.name


@dataclass(frozen=True)
class Case:
    """One question."""

    name: str
    title: str
    entries: tuple[Entry, ...]
    targets: tuple[Target, ...]

    def without(self, contender: type[Contender]) -> Case:
        """The same case where that server is not installed."""
        gone = {entry.label for entry in self.entries if isinstance(entry.contender, contender)}
        return replace(
            self,
            entries=tuple(entry for entry in self.entries if entry.label not in gone),
            targets=tuple(target for target in self.targets if not target.entries & gone),
        )


_CHAT, _NAMED, _TLS, _SQLITE = Chat(), NamedChat(), TlsChat(), SqliteChat()
_PLAIN, _REDIS = PlainLoop(), RedisPubSub()

_CROWDED = FanOut(listeners=900, speakers=64, in_flight=64)
_SINGLE = FanOut(listeners=900, speakers=1, in_flight=1)
_SMALL = FanOut(listeners=10, speakers=4, in_flight=8)
_MANY_LINES = FanOut(listeners=10, speakers=64, in_flight=64)
_QUIET = Chatting(listeners=90, speakers=10, lines_per_second=500)
_FLOODED = replace(_QUIET, flooded=True)


def _all_three(workload: Workload) -> tuple[Entry, ...]:
    return tuple(Entry(contender, workload) for contender in (_CHAT, _REDIS, _PLAIN))


CASES = (
    Case(
        "anonymous",
        "900 receivers, 64 senders, 64 lines in flight",
        _all_three(_CROWDED),
        (
            Ratio(_CHAT.name, "cpu_us", 0.65, against=_REDIS.name),
            Ratio(_CHAT.name, "cpu_us", 0.15, against=_PLAIN.name),
        ),
    ),
    Case(
        "named",
        "the same, every client named",
        (Entry(_NAMED, _CROWDED), Entry(_CHAT, _CROWDED)),
        (Ratio(_NAMED.name, "cpu_us", 1.15, against=_CHAT.name),),
    ),
    Case(
        "single",
        "900 receivers, 1 line in flight",
        _all_three(_SINGLE),
        (Ratio(_CHAT.name, "cpu_us", 1.3, against=_REDIS.name),),
    ),
    Case(
        "small",
        "10 receivers, 4 senders, 8 lines in flight",
        _all_three(_SMALL),
        (Ratio(_CHAT.name, "cpu_us", 1.0, against=_REDIS.name),),
    ),
    Case(
        "tls",
        "900 receivers over TLS, 64 senders, 64 lines in flight",
        (Entry(_TLS, _CROWDED), Entry(_CHAT, _CROWDED)),
        (Ratio(_TLS.name, "cpu_us", 4.0, against=_CHAT.name),),
    ),
    Case(
        "idle",
        "idle connections",
        _all_three(Idle()),
        (AtMost(_CHAT.name, "kib_each", 3.0),),
    ),
    Case(
        "newlines",
        "100 clients chatting, 500 lines a second; another sends 64 KiB of newlines every 1.5 s",
        (Entry(_CHAT, _QUIET, "undisturbed"), Entry(_CHAT, _FLOODED, "flooded")),
        (Ratio(f"{_CHAT.name}, flooded", "p99_ms", 2.0, against=f"{_CHAT.name}, undisturbed"),),
    ),
    Case(
        "stored",
        "900 receivers, 64 senders, 64 lines in flight, stored before delivered",
        tuple(Entry(contender, _CROWDED) for contender in (_SQLITE, _REDIS, _CHAT)),
        (Ratio(_SQLITE.name, "cpu_us", 1.3, against=_REDIS.name),),
    ),
    Case(
        "stored-single",
        "900 receivers, 1 line in flight, stored before delivered",
        (Entry(_SQLITE, _SINGLE), Entry(_CHAT, _SINGLE)),
        (Added(_SQLITE.name, "p50_ms", 2.0, against=_CHAT.name),),
    ),
    Case(
        "stored-small",
        "10 receivers, 64 senders, 64 lines in flight, stored before delivered",
        (Entry(_SQLITE, _MANY_LINES), Entry(_CHAT, _MANY_LINES)),
        (AtLeast(_SQLITE.name, "lines_per_second", 25_000),),
    ),
)
