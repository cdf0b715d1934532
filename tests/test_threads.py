"""Threads of our own: work off the reactor, a bound on what waits, and a clean end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import DeferredList

from chatproto.errors import CommandError
from chatproto.threads import WAITING, NoThreads, Pool

from .stores.conftest import in_reactor


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two threads of their own, which end after the test."""
    made = Pool(reactor, 2, "work")
    yield made
    made.stop()


class Gate:
    """Work that goes on when it is let."""

    def __init__(self) -> None:
        """Hold all of it."""
        self.open = threading.Event()
        self.at_once = 0
        self._lock = threading.Lock()
        self._now = 0

    def work(self, number: int) -> int:
        """Return the number, later."""
        with self._lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        self.open.wait(20)
        with self._lock:
            self._now -= 1
        return number


@in_reactor
async def test_work_is_done_elsewhere(pool: Pool) -> None:
    """In another thread, with its arguments; the answer comes in the reactor's."""

    def work(*args: object, **kwargs: object) -> tuple[object, ...]:
        return threading.current_thread(), args, kwargs

    thread, args, kwargs = await pool.run(work, 1, two=2)
    assert thread is not threading.current_thread()
    assert (args, kwargs) == ((1,), {"two": 2})


@in_reactor
async def test_an_error_is_the_answer(pool: Pool) -> None:
    """It fails what waits for it, and the next piece of work is done."""
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert await pool.run(lambda: 1) == 1


@in_reactor
async def test_what_waits_has_a_bound(pool: Pool) -> None:
    """Beyond it work is refused in words; once there is room it is taken again."""
    gate = Gate()
    working = [pool.run(gate.work, number) for number in range(WAITING)]
    with pytest.raises(CommandError, match=r"^the server is busy with passwords: try again in a"):
        await pool.run(gate.work, -1)
    gate.open.set()
    results: Any = await DeferredList(working)
    assert [result for _, result in results] == [*range(WAITING)]
    assert gate.at_once <= 2
    assert await pool.run(gate.work, -2) == -2


@in_reactor
async def test_the_end_waits_for_what_is_being_done(pool: Pool) -> None:
    """What was begun is finished, and its answer still comes."""
    gate = Gate()
    working = pool.run(gate.work, 7)
    threading.Timer(0, gate.open.set).start()
    pool.stop()
    assert await working == 7


def test_the_end_without_any_work() -> None:
    """Nothing was started, and stopping twice does no harm."""
    pool = Pool(reactor, 2, "work")
    pool.stop()
    pool.stop()


def test_a_program_that_does_not_stop_it_ends(in_a_fresh_python: Callable[[str], str]) -> None:
    """A program that embeds us, and stops its reactor without a word to us, ends as it should."""
    code = (
        "import faulthandler; faulthandler.dump_traceback_later(20, exit=True)\n"
        "from twisted.internet import reactor\n"
        "from chatproto.threads import Pool\n"
        "pool = Pool(reactor, 2, 'work')\n"
        "def begin():\n"
        "    pool.run(lambda: 1).addCallback(lambda _: reactor.stop())\n"
        "reactor.callWhenRunning(begin)\n"
        "reactor.run()\n"
        "print('ended')\n"
    )
    assert in_a_fresh_python(code) == "ended\n"


def test_without_threads() -> None:
    """For tests: the answer is there at once, an error as well."""
    threads = NoThreads()
    done: list[object] = []
    threads.run(threading.current_thread).addCallback(done.append)
    assert done == [threading.current_thread()]
    threads.run(lambda: 1 // 0).addErrback(lambda failure: done.append(failure.type))
    assert done[1] is ZeroDivisionError
    threads.stop()
