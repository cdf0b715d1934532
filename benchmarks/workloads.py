"""What a crowd does to a server, from joining to the figures that come out.

- `FanOut`: few speak, many listen, a fixed number of lines is in flight.
- `Chatting`: lines at fixed times, and on demand a flood of newlines beside them.
- `Idle`: many are there and nobody says a word.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from benchmarks.crowd import QUIET_SECONDS, Crowd
from benchmarks.flood import Flood
from benchmarks.load import Load, Tally
from benchmarks.measure import percentile
from benchmarks.server import RunningServer

_RUN_IN_SECONDS = 0.2
"""Talk before measuring: the interpreter specializes its code, buffers find their size."""


@dataclass(frozen=True)
class Plan:
    """How much is measured in this invocation."""

    seconds: float
    idle_clients: int


@dataclass(frozen=True)
class Figures:
    """What one run of one server gave. What a workload does not measure is None."""

    lost: int
    """Lines that a client should have received and did not, summed over all clients."""

    wrong: int
    """Lines out of order, received twice or changed."""

    rss_mib: float
    """Memory of the server at the end, in MiB."""

    lines: int | None = None
    said: int | None = None
    """Lines said since the server was started, or fewer: how many its store has to hold."""

    stored: int | None = None
    """How many different lines the store of the server held when that had ended."""

    fsync_ms: float | None = None
    """What the disk of the store took to keep one block, just before: in milliseconds."""

    lines_per_second: float | None = None
    deliveries_per_second: float | None = None
    lines_together: float | None = None
    """How many lines are done at once, on average: what the server makes one batch of."""

    waited: float | None = None
    """Share of the time, 0 to 1, in which another program had the core that the server wanted."""

    cpu_us: float | None = None
    """Processor time of the server per delivery, in microseconds."""

    p50_ms: float | None = None
    p99_ms: float | None = None
    """Time from saying a line until the last listener has it, in milliseconds."""

    kib_each: float | None = None
    """Growth of the server's memory per idle connection, in KiB."""


class Workload(Protocol):
    """Something to do to a server that has just been started."""

    def run(self, server: RunningServer, plan: Plan) -> Figures:
        """Does it, and returns the figures."""


@dataclass(frozen=True)
class FanOut:
    """So many listeners and speakers, and always so many lines in flight."""

    listeners: int
    speakers: int
    in_flight: int

    def run(self, server: RunningServer, plan: Plan) -> Figures:
        with Crowd(server) as crowd:
            crowd.join(self.listeners)
            crowd.join(self.speakers, speaks=True)
            load = Load(crowd, in_flight=self.in_flight)
            load.warm_up()
            load.run(_RUN_IN_SECONDS)
            return _figures(load.run(plan.seconds), server)


@dataclass(frozen=True)
class Chatting:
    """So many lines a second, at fixed times; `flooded`, while another client sends newlines.

    Received newlines are not counted: whether empty lines are relayed is the server's matter.
    """

    listeners: int
    speakers: int
    lines_per_second: float
    flooded: bool = False

    def run(self, server: RunningServer, plan: Plan) -> Figures:
        with Crowd(server) as crowd:
            crowd.ignored = b"\n"
            crowd.join(self.listeners)
            crowd.join(self.speakers, speaks=True)
            load = Load(crowd, lines_per_second=self.lines_per_second)
            crowd.join(1, speaks=True)
            flood = Flood(crowd, crowd.speakers[-1]) if self.flooded else None
            load.warm_up()
            load.run(_RUN_IN_SECONDS, flood)
            return _figures(load.run(plan.seconds, flood), server)


@dataclass(frozen=True)
class Idle:
    """As many clients as the plan says; then one line proves that all of them are in."""

    def run(self, server: RunningServer, plan: Plan) -> Figures:
        files = server.open_files()
        with Crowd(server) as first:
            # What a server loads or allocates for its first clients is not what each costs.
            first.join(20)
            first.wait_for_quiet()
        # A few files more than before may be the server's own, opened for its first client.
        server.wait_for_open_files(lambda now: now < files + 10, 10.0)
        time.sleep(QUIET_SECONDS)
        with Crowd(server) as crowd:
            before = server.rss_bytes()
            crowd.join(plan.idle_clients - 1)
            crowd.join(1, speaks=True)
            crowd.wait_for_quiet()
            time.sleep(QUIET_SECONDS)
            after = server.rss_bytes()
            Load(crowd, in_flight=1).warm_up()
        return Figures(
            lost=0,
            wrong=0,
            rss_mib=after / 2**20,
            kib_each=(after - before) / 1024 / plan.idle_clients,
        )


def _figures(tally: Tally, server: RunningServer) -> Figures:
    deliveries = max(1, tally.deliveries)
    return Figures(
        lost=tally.lost,
        wrong=tally.wrong,
        rss_mib=server.rss_bytes() / 2**20,
        lines=tally.lines,
        said=tally.said,
        lines_per_second=tally.lines / tally.seconds,
        deliveries_per_second=tally.deliveries / tally.seconds,
        lines_together=tally.lines / max(1, tally.arrivals),
        waited=tally.waited_seconds / tally.seconds,
        cpu_us=tally.cpu_seconds / deliveries * 1e6,
        p50_ms=percentile(tally.latencies, 0.50) * 1e3,
        p99_ms=percentile(tally.latencies, 0.99) * 1e3,
    )
