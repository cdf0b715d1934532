"""What the kernel tells about a process: processor time, memory, open files, cores.

Everything comes from Linux's `/proc`, so nothing has to run inside the server.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """Which cores the server and the load may use."""

    server: frozenset[int]
    load: frozenset[int]

    @property
    def shared(self) -> bool:
        """Server and load take turns on one core: rates and latencies mean little then."""
        return self.server == self.load


def choose_cores() -> Cores:
    """One core for the server and another for the load, as far apart as we may use them."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(server=frozenset(allowed[:1]), load=frozenset(allowed[-1:]))


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """This process, and the children that it starts meanwhile, run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, that all threads of the process have used.

    The scheduler's own count is exact to the nanosecond; where the kernel does not show it we
    fall back on the clock ticks (10 ms) of `/proc/PID/stat`.
    """
    try:
        return sum(ran for ran, _ in _scheduled(pid).values())
    except FileNotFoundError:
        # Counted after the command name, which is in brackets and may contain blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def waited_seconds(pid: int) -> float:
    """Time that the process wanted its core while another one had it; only differences count.

    That is what its main thread waited, less what its own other threads had run: the main thread
    may have waited for those. So it is that long, or longer.
    """
    try:
        scheduled = _scheduled(pid)
    except FileNotFoundError:
        return 0.0
    return scheduled[pid][1] - sum(ran for tid, (ran, _) in scheduled.items() if tid != pid)


def _scheduled(pid: int) -> dict[int, tuple[float, float]]:
    """By thread: seconds on a core, and seconds waiting for one."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        ran, waited, _ = (thread / "schedstat").read_text().split()
        found[int(thread.name)] = int(ran) / 1e9, int(waited) / 1e9
    return found


def rss_bytes(pid: int) -> int:
    """Memory of the process that is in RAM, in bytes.

    `smaps_rollup` counts the pages; the cheaper `statm` may be off by some hundred KiB.
    """
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, PermissionError):
        pass
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def open_files(pid: int) -> int:
    """How many file descriptors the process has open: tells when it has accepted its clients."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def raise_file_limit() -> int:
    """Lifts our limit on open files to what is allowed, for the children too, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the values does not exceed."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


def describe_machine(cores: Cores, redis_version: str | None) -> dict[str, str]:
    """What the figures depend on, without names of hosts or folders."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    try:
        twisted = version("twisted")
    except PackageNotFoundError:
        twisted = "not installed"
    count = os.cpu_count() or 1
    return {
        "processor": model,
        "cores": f"{count} core{'s' if count > 1 else ''}",
        "pinning": "server and load share one core" if cores.shared else "one core each",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "twisted": twisted,
        "redis": redis_version or "not installed",
    }
