"""Measures how a server with a million lines in its store starts, and what it remembers how fast.

    python -m benchmarks.history            a million lines, about a minute
    python -m benchmarks.history --quick    20,000 lines: does it work, are the answers right?

The store is made first, through the server's own log, in a temporary folder on a disk. Then servers
are started on it and on an empty one, in turns; and one of them is asked, again and again, by a
client that comes for one question. The answers are compared with what was put in.

The exit status is 0 as long as nothing broke and every answer was right. A target that was missed
is shown and is no failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import BenchmarkError
from benchmarks.contenders import ChatOn, redis_version
from benchmarks.disk import file_system, folder_on_disk, fsync_ms
from benchmarks.filling import Filled
from benchmarks.measure import Cores, choose_cores, describe_machine, pinned
from benchmarks.questions import Answer, Question, ask, questions
from benchmarks.server import RunningServer, end_servers_on_signals
from benchmarks.table import markdown

_LINES = 1_000_000
_QUICK_LINES = 20_000
_STARTS = 5
_TIMES = 20

_AT_MOST_MS = 100.0
"""What every answer may take, and what a long history may add to a start."""

_CHECKOUT = Path(__file__).resolve().parent.parent
_HEADINGS = ["What", "Asked", "Lines", "First ms", "Median ms", "Worst ms", "Target"]
_FIGURES = range(2, 6)


@dataclass
class Measured:
    """All that was found out."""

    filled: Filled
    store_bytes: int
    disk_ms: float
    empty_starts: list[float] = field(default_factory=list)
    full_starts: list[float] = field(default_factory=list)
    """Milliseconds from starting the process until it listens."""
    answers: dict[Question, list[Answer]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit status."""
    if not sys.platform.startswith("linux"):
        print("The benchmarks need Linux: they read /proc and use epoll.", file=sys.stderr)
        return 2
    lines, starts, times = parse(arguments)
    cores = choose_cores()
    end_servers_on_signals()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-", dir=folder_on_disk()) as folder,
            pinned(cores.load),
        ):
            measured = measure(Path(folder), cores, lines, starts, times)
    except BenchmarkError as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the servers are ended.", file=sys.stderr)
        return 130
    print(report(measured, lines, describe_machine(cores, redis_version())))
    return 1 if measured.failures else 0


def parse(arguments: Sequence[str] | None) -> tuple[int, int, int]:
    """Reads the command line: how many lines, how many starts, how often each question."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.history",
        description="Measure start-up, /history and /search of a server with many stored lines.",
    )
    parser.add_argument(
        "--lines",
        type=_enough,
        help=f"how many are stored (default: {_LINES:,}; quick: {_QUICK_LINES:,})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short run that shows whether everything works"
    )
    given = parser.parse_args(arguments)
    lines = given.lines or (_QUICK_LINES if given.quick else _LINES)
    return (lines, 1, 3) if given.quick else (lines, _STARTS, _TIMES)


def measure(folder: Path, cores: Cores, lines: int, starts: int, times: int) -> Measured:
    """Makes the store, starts servers and asks."""
    disk_ms = fsync_ms(folder)
    full, empty = folder / "full.db", folder / "empty.db"
    filled = _fill(full, lines)
    _tell(
        f"{lines:,} lines stored in {filled.adding_seconds:.1f} s, "
        f"indexed in {filled.indexing_seconds:.1f} s"
    )
    measured = Measured(filled, full.stat().st_size, disk_ms)
    _start(empty, cores)  # which makes it
    for number in range(starts):
        measured.empty_starts.append(_start(empty, cores))
        measured.full_starts.append(_start(full, cores))
        _tell(
            f"start {number + 1} of {starts}: {measured.full_starts[-1]:.0f} ms, "
            f"on an empty store {measured.empty_starts[-1]:.0f} ms"
        )
    asked = questions(lines, filled)
    with RunningServer(ChatOn(full), cores) as server:
        # One after the other, and again: what one leaves in memory does not favour the next.
        for _ in range(times):
            for question in asked:
                try:
                    answer = ask(server.port, question)
                except BenchmarkError as error:
                    measured.failures.append(str(error))
                else:
                    measured.answers.setdefault(question, []).append(answer)
    return measured


def report(measured: Measured, lines: int, machine: dict[str, str]) -> str:
    """The table, what has to be known about it, and what went wrong."""
    rows = [_HEADINGS, *_start_rows(measured, lines)]
    rows += [_answer_row(question, answers) for question, answers in measured.answers.items()]
    filled = measured.filled
    notes = [
        f"{machine['processor']}, {machine['cores']} ({machine['pinning']}), "
        f"{machine['kernel']}, Python {machine['python']}, Twisted {machine['twisted']}.",
        f"{lines:,} lines in one room, {measured.store_bytes / 2**20:,.0f} MiB with the index: "
        f"stored in {filled.adding_seconds:.1f} s, indexed in {filled.indexing_seconds:.1f} s, "
        f"before any of this.",
        f"On {file_system(folder_on_disk())}, where a write of 4 KiB and its fsync (fdatasync) "
        f"take {measured.disk_ms:.2f} ms.",
        "First: until the first line of the answer is there, a median; median and worst: until "
        "all of it is. The server shows a thousand lines of history at a time.",
    ]
    parts = [markdown(rows, right_aligned=_FIGURES), " ".join(notes)]
    if measured.failures:
        told = dict.fromkeys(measured.failures)
        parts.append("\n".join(["Failed:", "", *(f"- {failure}" for failure in told)]))
    return "\n\n".join(parts)


def _start_rows(measured: Measured, lines: int) -> list[list[str]]:
    added = median(measured.full_starts) - median(measured.empty_starts)
    target = f"{added:+.0f} ms beside an empty one (under {_AT_MOST_MS:g}): "
    target += "reached" if added < _AT_MOST_MS else "**missed**"
    return [
        ["start", about, f"{count:,}", "", f"{median(times):.0f}", f"{max(times):.0f}", told]
        for about, count, times, told in (
            ("on an empty store", 0, measured.empty_starts, ""),
            ("on the full one", lines, measured.full_starts, target),
        )
    ]


def _answer_row(question: Question, answers: Sequence[Answer]) -> list[str]:
    times = [answer.whole_ms for answer in answers]
    return [
        question.about,
        f"`{question.command}`",
        f"{len(answers[0].numbers):,}",
        f"{median(answer.first_ms for answer in answers):.1f}",
        f"{median(times):.1f}",
        f"{max(times):.1f}",
        f"under {_AT_MOST_MS:g} ms: {_verdict(times)}",
    ]


def _verdict(times: Sequence[float]) -> str:
    if max(times) < _AT_MOST_MS:
        return "reached"
    return "**missed**" + (" by the worst" if median(times) < _AT_MOST_MS else "")


def _fill(path: Path, lines: int) -> Filled:
    """Makes a store in a process of its own, which needs a reactor and much memory."""
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.filling", str(path), str(lines)],
        cwd=_CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    if made.returncode:
        raise BenchmarkError("The store could not be made.")
    return Filled(**json.loads(made.stdout))


def _start(store: Path, cores: Cores) -> float:
    with RunningServer(ChatOn(store), cores) as server:
        return server.started_in * 1e3


def _enough(text: str) -> int:
    value = int(text)
    if not 1000 <= value < 10_000_000:
        raise argparse.ArgumentTypeError("must be from 1000 to 9999999")
    return value


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
