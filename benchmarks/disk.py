"""The disk that a store is on: which folder has one, and how long it takes to keep something."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import BenchmarkError

BLOCK_BYTES = 4096
"""What is written at a time: a page of SQLite."""

_WRITES = 200
_MOST_SECONDS = 3.0
"""On a very slow disk fewer writes have to do."""

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_ESCAPED = re.compile(r"\\([0-7]{3})")


def folder_on_disk() -> Path:
    """A folder for temporary files that is not kept in memory: the usual one, if that is so."""
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()]
    for folder in candidates:
        if os.access(folder, os.W_OK) and file_system(folder) not in _IN_MEMORY:
            return folder
    told = ", ".join(map(str, candidates))
    raise BenchmarkError(f"No folder for a store is on a disk (looked at {told}): set TMPDIR.")


def file_system(folder: Path) -> str:
    """The type of the file system that the folder is on, as the kernel calls it."""
    folder = folder.resolve()
    deepest, kind = -1, "unknown"
    for mount in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, device = mount.partition(" - ")
        point = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), place.split()[4]))
        # Of two mounts at one place the later one is on top.
        if folder.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, kind = len(point.parts), device.split()[0]
    return kind


def fsync_ms(folder: Path) -> float:
    """How long the disk takes to keep one block: the median of many writes, each with fdatasync.

    The file has its size already, as the write-ahead log of a store that has run for a while: a
    file that grows costs more.
    """
    block = os.urandom(BLOCK_BYTES)
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(block * _WRITES)
        os.fsync(file.fileno())
        started = time.perf_counter()
        for number in range(_WRITES):
            before = time.perf_counter()
            os.pwrite(file.fileno(), block, number * BLOCK_BYTES)
            os.fdatasync(file.fileno())
            now = time.perf_counter()
            times.append(now - before)
            if now - started > _MOST_SECONDS:
                break
    return median(times) * 1e3
