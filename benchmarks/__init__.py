"""Programs that measure the chat server and print ratios against baselines of the same run.

`python -m benchmarks.fanout` is the one to start; `python -m benchmarks.history` asks a server
with a million lines for some of them. The way through the package:

- `cases` says what is compared, and `targets` what is to be reached;
- `contenders` knows how each server is started and spoken to;
- `server` runs one of them as a child process on its own core;
- `crowd` holds the connected clients and reads what they receive;
- `workloads` makes the crowd talk, be idle or be flooded, and `load` keeps lines in flight;
- `measure` reads the processor time and the memory of the server, `disk` finds and times a disk;
- `filling` makes a store with many lines, and `questions` asks for them;
- `table` turns the figures into Markdown.

Only ratios within one run say something: the absolute numbers belong to the machine.
"""

from __future__ import annotations

__all__ = ["BenchmarkError"]


class BenchmarkError(Exception):
    """Something broke that makes a figure worthless; the text is one sentence for people."""
