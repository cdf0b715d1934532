"""A few threads of our own, for work that would keep the reactor from the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from chatproto.errors import CommandError

WAITING: Final = 64
"""Pieces of work that may wait; more are refused."""

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Protocol):
    """Does work where it disturbs nobody."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Do `work`; fails with `CommandError` when too much of it waits already."""

    def stop(self) -> None:
        """Begin nothing any more."""


class Pool:
    """At most `size` threads, which start when they are first needed."""

    def __init__(self, reactor: Any, size: int, name: str) -> None:
        """Answer in the thread of `reactor`."""
        self._reactor = reactor
        self._size = size
        self._name = name
        self._pool: ThreadPool | None = None
        self._trigger: Any = None
        self._waiting = 0
        self._is_stopped = False

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Do `work` in one of the threads."""
        if self._is_stopped:
            return fail(CommandError("the server is stopping"))
        if self._waiting >= WAITING:
            return fail(CommandError("the server is busy with passwords: try again in a moment"))
        if self._pool is None:
            self._pool = ThreadPool(0, self._size, self._name)
            self._pool.start()
            # Or a program that ends without asking us would never end.
            self._trigger = self._reactor.addSystemEventTrigger(
                "after", "shutdown", self._pool.stop
            )
        self._waiting += 1

        def done(result: Any) -> Any:
            self._waiting -= 1
            return result

        working: Deferred[T] = deferToThreadPool(self._reactor, self._pool, work, *args, **kwargs)
        return working.addBoth(done)

    def stop(self) -> None:
        """Wait for what is being done, and let the threads go."""
        self._is_stopped = True
        if self._pool is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._pool.stop()
            self._pool = None


class NoThreads:
    """Does all work at once: for tests whose time stands still."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Do `work` now."""
        return maybeDeferred(work, *args, **kwargs)

    def stop(self) -> None:
        """There is nothing to stop."""
