"""Measures the chat server beside a plain loop of `sendLine` and Redis Pub/Sub.

    python -m benchmarks.fanout            all cases, about ten minutes
    python -m benchmarks.fanout --quick    all cases, short: does it work, is nothing lost?

Each server runs pinned on one core and the load on another. The servers of a case take turns,
`--rounds` times, each time freshly started; the table shows medians. What counts is the server's
processor time per delivery, since it does not depend on how fast the load is, and of that only
the ratio to another server in the same run.

Where the server stores in a file, that is read afterwards: every line that was delivered has to be
in it. The time that the disk needs is measured beside, as the figures depend on it.

The exit status is 0 as long as nothing broke and no line was lost or out of order. A target that
was missed is shown and is no failure.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import BenchmarkError
from benchmarks.cases import CASES, Case, Entry
from benchmarks.contenders import RedisPubSub, redis_version
from benchmarks.disk import file_system, folder_on_disk, fsync_ms
from benchmarks.measure import Cores, choose_cores, describe_machine, pinned, raise_file_limit
from benchmarks.server import RunningServer, end_servers_on_signals
from benchmarks.table import Results, fsync_middle, longest_wait, render, verdict
from benchmarks.workloads import Figures, Plan

_IDLE_CLIENTS = 10_000
_QUICK_IDLE_CLIENTS = 1000
_SPARE_FILES = 256
"""Files that a server may need beside one per client; the chat server keeps 64 free itself."""

_DISTURBED = 0.05
"""Waiting longer than this share of a run is told: rates and latencies suffer, ratios less."""

_MOST_CLIENTS = 1000
"""More than any case but the idle one connects."""


@dataclass(frozen=True)
class Options:
    """The command line, read."""

    cases: tuple[Case, ...]
    rounds: int
    plan: Plan
    idle_lowered: bool
    """Whether the limit on open files allows fewer idle clients than we want."""
    json: Path | None


class Session:
    """One invocation: runs the cases and gathers what they give and what went wrong."""

    def __init__(self, options: Options, cores: Cores) -> None:
        self.options = options
        self.results = [Results(case) for case in options.cases]
        self.failures: list[str] = []
        self._cores = cores

    def run(self) -> None:
        """Runs every case; one that breaks does not keep the others from being run."""
        for result in self.results:
            for number in range(self.options.rounds):
                # There and back again, so that what changes slowly favours nobody.
                order = 1 if number % 2 == 0 else -1
                figures = {}
                for entry in result.case.entries[::order]:
                    measured = self._measure(result.case, entry, number)
                    if measured is not None:
                        figures[entry.label] = measured
                result.rounds.append(figures)
            self._tell(f"{result.case.name}: {_verdicts(result)}")

    def _measure(self, case: Case, entry: Entry, number: int) -> Figures | None:
        where = f"{case.name}, round {number + 1} of {self.options.rounds}, {entry.label}"
        try:
            with RunningServer(entry.contender, self._cores) as server:
                # Beside the run: what else uses the disk changes from one to the next.
                disk = fsync_ms(server.folder) if entry.contender.stores else None
                figures = entry.workload.run(server, self.options.plan)
            figures = replace(figures, fsync_ms=disk, stored=server.stored)
        except BenchmarkError as error:
            self.failures.append(f"{where}: {error}")
            self._tell(f"{where}: failed: {error}")
            return None
        if figures.lost or figures.wrong:
            self.failures.append(f"{where}: {figures.lost} lines lost, {figures.wrong} wrong.")
        if figures.stored is not None and figures.stored < (figures.said or 0):
            self.failures.append(
                f"{where}: {figures.said} lines were delivered and {figures.stored} are stored."
            )
        self._tell(f"{where}: {_short(figures)}")
        return figures

    def _tell(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit status."""
    if not sys.platform.startswith("linux"):
        print("The benchmarks need Linux: they read /proc and use epoll.", file=sys.stderr)
        return 2
    files = raise_file_limit()
    redis = redis_version()
    options = parse(arguments, files=files, redis=redis is not None)
    cores = choose_cores()
    if cores.shared:
        print("There is only one core: server and load share it.", file=sys.stderr)
    end_servers_on_signals()
    # Cycles are not made here, and a collection would show as a late line.
    gc.disable()
    session = Session(options, cores)
    with pinned(cores.load):
        try:
            session.run()
        except KeyboardInterrupt:
            print("Interrupted; the servers are ended.", file=sys.stderr)
            return 130
    machine = describe_machine(cores, redis)
    print(report(session, machine))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(session, machine), indent=2) + "\n")
    return 1 if session.failures else 0


def parse(arguments: Sequence[str] | None, *, files: int, redis: bool) -> Options:
    """Reads the command line; `files` is how many files we, and a server, may have open."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fanout",
        description="Measure the chat server beside a plain Twisted loop and Redis Pub/Sub.",
        epilog="Cases: " + "; ".join(f"{case.name}: {case.title}" for case in CASES) + ".",
    )
    parser.add_argument(
        "--cases", default=",".join(names), help="which, with commas between (default: all)"
    )
    parser.add_argument(
        "--seconds", type=_positive, help="time to measure each server (default: 3; quick: 0.4)"
    )
    parser.add_argument(
        "--rounds", type=int, help="turns of all servers in a case (default: 3; quick: 1)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short run that shows whether everything works"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all the figures there too")
    given = parser.parse_args(arguments)
    wanted = [name.strip() for name in given.cases.split(",")]
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"there is no case {unknown[0]!r}; there are {', '.join(names)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if files < _MOST_CLIENTS + _SPARE_FILES:
        parser.error(
            f"only {files} files may be open; {_MOST_CLIENTS + _SPARE_FILES} are needed "
            "(ulimit -Hn)"
        )
    wanted_idle = _QUICK_IDLE_CLIENTS if given.quick else _IDLE_CLIENTS
    idle = min(wanted_idle, files - _SPARE_FILES)
    cases = tuple(case for case in CASES if case.name in wanted)
    return Options(
        cases=cases if redis else tuple(case.without(RedisPubSub) for case in cases),
        rounds=given.rounds or (1 if given.quick else 3),
        plan=Plan(given.seconds or (0.4 if given.quick else 3.0), idle),
        idle_lowered=idle < wanted_idle,
        json=given.json,
    )


def report(session: Session, machine: dict[str, str]) -> str:
    """The table, what has to be known about it, and what went wrong."""
    plan = session.options.plan
    rounds = session.options.rounds
    notes = [
        f"{machine['processor']}, {machine['cores']} ({machine['pinning']}), "
        f"{machine['kernel']}, Python {machine['python']}, Twisted {machine['twisted']}, "
        f"Redis {machine['redis']}.",
        f"Lines of 64 bytes; {plan.seconds:g} s each, "
        + (f"medians of {rounds} rounds." if rounds > 1 else "one round."),
    ]
    if any(result.case.name == "idle" for result in session.results):
        fewer = ", since no more files may be open" if session.options.idle_lowered else ""
        notes.append(f"Idle: {plan.idle_clients:,} connections{fewer}.")
    if (disk := fsync_middle(session.results)) is not None:
        notes.append(
            f"Stores at their default durability on {file_system(folder_on_disk())}, where a "
            f"write of 4 KiB and its fsync (fdatasync) take {disk:.2f} ms, measured in the "
            f"store's folder: median of 200 writes."
        )
    if machine["redis"] == "not installed":
        notes.append("Redis Pub/Sub is left out: redis-server is not installed.")
    if (waited := longest_wait(session.results)) > _DISTURBED:
        notes.append(
            f"Other programs disturbed this run: in one of its parts a server waited for "
            f"its core {waited:.0%} of the time."
        )
    parts = [render(session.results), " ".join(notes)]
    if session.failures:
        parts.append("\n".join(["Failed:", "", *(f"- {told}" for told in session.failures)]))
    return "\n\n".join(parts)


def as_json(session: Session, machine: dict[str, str]) -> dict[str, Any]:
    """Everything that was measured, round by round."""
    return {
        "machine": machine,
        "plan": asdict(session.options.plan),
        "cases": {
            result.case.name: {
                "title": result.case.title,
                "rounds": [
                    {label: asdict(figures) for label, figures in round_.items()}
                    for round_ in result.rounds
                ],
                "targets": [
                    {
                        "kind": type(target).__name__,
                        **asdict(target),
                        "reading": reading._asdict() if reading else None,
                    }
                    for target in result.case.targets
                    for reading in [result.reading(target)]
                ],
            }
            for result in session.results
        },
        "failures": session.failures,
    }


def _verdicts(result: Results) -> str:
    told = [verdict(result, target).replace("*", "") for target in result.case.targets]
    return "; ".join(told) or "nothing to compare with"


def _short(figures: Figures) -> str:
    if figures.kib_each is not None:
        return f"{figures.kib_each:.2f} KiB each"
    return (
        f"{figures.deliveries_per_second:,.0f} deliveries/s, {figures.cpu_us:.3f} µs CPU, "
        f"p50 {figures.p50_ms:.2f} ms, p99 {figures.p99_ms:.2f} ms, "
        f"{figures.lines_together:.1f} lines at once"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 600")
    return value


if __name__ == "__main__":
    sys.exit(main())
