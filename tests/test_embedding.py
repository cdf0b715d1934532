"""The chat inside another Twisted application, over real sockets."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import formatEvent
from twisted.python.failure import Failure

import chatproto
from chatproto import ChatFactory, Settings
from chatproto.errors import StoreError
from chatproto.model import Draft
from chatproto.stores import Store
from chatproto.stores.memory import LocalNames, MemoryDirectory, MemoryLog
from chatproto.stores.sqlite.file import StoreFile

from .conftest import LoggedErrors

F = TypeVar("F", bound=Callable[..., Any])

in_reactor: Callable[[F], F] = pytest_twisted.ensureDeferred
async_fixture: Callable[[F], F] = pytest_twisted.async_yield_fixture

SECONDS = 12
"""How long anything may take before the test has failed; nothing waits for it."""


LONGEST = 8192
"""No pattern is longer than this."""


class Talker(Protocol):
    """A client that keeps what it reads; a test waits for bytes, or for the end."""

    transport: Any

    def __init__(self) -> None:
        """Begin with nothing read."""
        self.data = b""
        self.lost: Deferred[None] = Deferred()
        self._waiting: tuple[re.Pattern[bytes], Deferred[re.Match[bytes]]] | None = None

    def dataReceived(self, data: bytes) -> None:
        """Keep `data`."""
        start = max(0, len(self.data) - LONGEST)
        self.data += data
        self._look(start)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.lost.callback(None)

    def say(self, data: bytes) -> None:
        """Send `data`."""
        self.transport.write(data)

    def reads(self, pattern: bytes) -> Deferred[re.Match[bytes]]:
        """Wait until `pattern` is in what was read, and forget what was read up to its end."""
        found: Deferred[re.Match[bytes]] = Deferred()
        self._waiting = re.compile(pattern), found
        self._look()
        return found.addTimeout(SECONDS, reactor)

    def ends(self) -> Deferred[None]:
        """Wait until the connection is gone."""
        return self.lost.addTimeout(SECONDS, reactor)

    def _look(self, start: int = 0) -> None:
        if self._waiting is not None:
            pattern, found = self._waiting
            match = pattern.search(self.data, start)
            if match is not None:
                self._waiting = None
                self.data = self.data[match.end() :]
                found.callback(match)


class Application:
    """Another Twisted application, which listens with factories and is stopped at the end."""

    def __init__(self) -> None:
        """Begin without any port."""
        self._ports: list[IListeningPort] = []
        self._talkers: list[Talker] = []
        self._chats: list[ChatFactory] = []

    async def listen(self, factory: Factory) -> int:
        """Listen with `factory` on a free port of 127.0.0.1, and return its number."""
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(factory)
        self._ports.append(port)
        if isinstance(factory, ChatFactory) and factory not in self._chats:
            self._chats.append(factory)
        return int(port.getHost().port)

    async def talker(self, port: int) -> Talker:
        """Connect a client."""
        talker = Talker()
        self._talkers.append(talker)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talker)
        return talker

    async def stop(self) -> None:
        """Close everything; something else may begin afterwards."""
        while self._ports:
            await Deferred.fromCoroutine(_stop(self._ports.pop()))
        while self._chats:
            await self._chats.pop().drain().addTimeout(SECONDS, reactor)
        while self._talkers:
            talker = self._talkers.pop()
            talker.transport.abortConnection()
            await talker.ends()


async def _stop(port: IListeningPort) -> None:
    closing = port.stopListening()
    if closing is not None:
        await closing


@async_fixture
async def application() -> AsyncIterator[Application]:
    """An application that is stopped after the test."""
    running = Application()
    yield running
    await running.stop()


def test_the_public_face() -> None:
    """What the package offers is small."""
    assert sorted(chatproto.__all__) == ["ChatFactory", "Settings", "__version__"]


@in_reactor
async def test_five_lines() -> None:
    """A chat is put into an application with five lines."""
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    chat = ChatFactory(Settings(nicknames="required", store="memory"))
    port = await endpoint.listen(chat)

    alice, bob = Talker(), Talker()
    for talker in (alice, bob):
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), talker)
        await talker.reads(rb"^-> what is your nick\?\n$")
    alice.say(b"alice\n")
    await alice.reads(rb"^-> you are alice, in lobby \(1 here\)\n$")
    bob.say(b"bob\nhello\n")
    await alice.reads(rb"^\* bob joined \(2 here\)\n<bob> HELLO\n$")
    assert len(chat.protocols) == 2

    await _stop(port)
    await chat.drain()
    await alice.reads(rb"^\* the server is stopping\n$")
    for talker in (alice, bob):
        await talker.ends()
    assert chat.protocols == set()


@in_reactor
async def test_beside_something_else(application: Application) -> None:
    """What else the application does goes on beside the chat, and two chats are two worlds."""

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data)

    echo = await application.talker(await application.listen(Factory.forProtocol(Echo)))
    first_port = await application.listen(ChatFactory(Settings(store="memory")))
    second_port = await application.listen(ChatFactory(Settings(transform="none", store="memory")))
    one, two = await application.talker(first_port), await application.talker(first_port)
    other, another = await application.talker(second_port), await application.talker(second_port)
    echo.say(b"hello")
    await echo.reads(b"^hello$")
    one.say(b"/list\n")
    await one.reads(rb"^-> in lobby: \d without a nick\n")
    one.say(b"hello\n")
    other.say(b"goodbye\n")
    await two.reads(b"^HELLO\n$")
    await another.reads(b"^goodbye\n$")
    assert one.data == other.data == b""


@in_reactor
async def test_one_factory_on_two_ports(application: Application) -> None:
    """One factory can listen on several ports: whoever comes in anywhere is in one room."""
    chat = ChatFactory(Settings(store="memory"))
    one = await application.talker(await application.listen(chat))
    two = await application.talker(await application.listen(chat))
    one.say(b"hello\n")
    await two.reads(b"^HELLO\n$")
    two.say("straße\n".encode())
    await one.reads(b"^STRASSE\n$")


@in_reactor
async def test_a_slow_reader(application: Application) -> None:
    """Over a real socket too a slow reader delays nobody, and catches up in order."""
    port = await application.listen(ChatFactory(Settings(rate=0, store="memory")))
    speaker, quick, slow = [await application.talker(port) for _ in range(3)]
    for talker in (quick, slow):
        talker.say(b"/list\n")
        await talker.reads(b"^-> in lobby: .*\n")
    slow.transport.pauseProducing()
    count = 4000
    speaker.say(b"".join(b"%d %s\n" % (number, b"x" * 2000) for number in range(count)))
    await quick.reads(b"\n%d X+\n" % (count - 1))
    slow.transport.resumeProducing()
    match = await slow.reads(b"\n%d X+\n" % (count - 1))
    numbers = [int(number) for number in re.findall(rb"(?m)^(\d+) X", match.string)]
    missed = [int(number) for number in re.findall(rb"(?m)^! (\d+) lines missed", match.string)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + sum(missed) == count


@in_reactor
async def test_a_stranger_reads_why(application: Application) -> None:
    """A browser that sends more than was read still receives the refusal, and nothing is said."""
    port = await application.listen(ChatFactory(Settings(store="memory")))
    reader, browser = await application.talker(port), await application.talker(port)
    reader.say(b"/list\n")
    await reader.reads(b"^-> in lobby: .*\n")
    browser.say(b"POST / HTTP/1.1\r\nHost: chat\r\n\r\n" + b"spam\n" * 50_000)
    await browser.reads(rb"^HTTP/1.1 \d{3} ")
    await browser.ends()
    other = await application.talker(port)
    other.say(b"after\n")
    await reader.reads(b"^AFTER\n$")


class BrokenLog(MemoryLog):
    """A log that raises for one text."""

    def append(self, drafts: Sequence[Draft]) -> None:
        """Raise for what is broken."""
        if any(draft.text == "BROKEN" for draft in drafts):
            raise OSError("the log is broken")
        super().append(drafts)


@in_reactor
async def test_an_error(application: Application, logged_errors: LoggedErrors) -> None:
    """An error in handling one client ends that client only, and is logged with its traceback."""
    clock: Any = reactor
    store = Store(BrokenLog(clock, clock.seconds), MemoryDirectory(), LocalNames())
    port = await application.listen(ChatFactory(store=store))
    one, two, bad = [await application.talker(port) for _ in range(3)]
    for talker in (one, two, bad):
        talker.say(b"/list\n")
        await talker.reads(b"^-> in lobby: .*\n")
    bad.say(b"/nick bad\nbroken\nafter\n")
    await bad.ends()
    event = logged_errors.take("the log is broken")
    assert formatEvent(event) == "client 3 failed"
    match = await one.reads(rb"\* bad left \(2 here\)\n$")
    assert match.string == b"* bad joined (3 here)\n* bad left (2 here)\n"
    two.say(b"still here\n")
    await one.reads(b"^STILL HERE\n$")


@in_reactor
async def test_a_store_in_a_file(application: Application, tmp_path: Path) -> None:
    """The store that the settings name is opened, used, and closed when everyone is let go."""
    path = tmp_path / "rooms.db"
    settings = Settings(store=str(path))
    threads = threading.active_count()
    first = ChatFactory(settings)
    assert not path.exists()
    port = await application.listen(first)
    one, two = await application.talker(port), await application.talker(port)
    one.say(b"/nick one\nhello\n")
    await two.reads(b"<one> HELLO\n$")
    await application.stop()
    assert threading.active_count() == threads
    other = StoreFile(str(path))
    other.lock()
    other.unlock()

    again = await application.talker(await application.listen(ChatFactory(settings)))
    again.say(b"/history 2\n")
    await again.reads(rb"^-> \S+ \* one joined \(2 here\)\n-> \S+ <one> HELLO\n$")


@in_reactor
async def test_two_chats_with_one_store(tmp_path: Path) -> None:
    """A store serves one chat at a time: who opens it for another one is told."""
    settings = Settings(store=str(tmp_path / "rooms.db"))
    first, second = ChatFactory(settings), ChatFactory(settings)
    first.open()
    with pytest.raises(StoreError, match="another server is using it"):
        second.open()
    await first.drain()
    second.open()
    await second.drain()


@in_reactor
async def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """Who opens the store before listening learns that it cannot be; all is let go as ever."""
    chat = ChatFactory(Settings(store=str(tmp_path / "nowhere" / "rooms.db")))
    with pytest.raises(StoreError, match="No such file or directory"):
        chat.open()
    await chat.drain()


@in_reactor
async def test_opened_once(application: Application, tmp_path: Path) -> None:
    """A chat that was opened before it listens, on however many ports, is not opened again."""
    chat = ChatFactory(Settings(store=str(tmp_path / "rooms.db")))
    chat.open()
    chat.open()
    one = await application.talker(await application.listen(chat))
    two = await application.talker(await application.listen(chat))
    one.say(b"hello\n")
    await two.reads(b"^HELLO\n$")


@pytest.mark.parametrize("data", [b"", b"/nick x\nhalf a li"])
@in_reactor
async def test_connect_and_reset(application: Application, data: bytes) -> None:
    """Clients that come and break their connections leave nothing behind."""
    chat = ChatFactory(Settings(store="memory"))
    port = await application.listen(chat)
    witness = await application.talker(port)
    for _ in range(50):
        talker = await application.talker(port)
        talker.say(data)
        talker.transport.abortConnection()
        await talker.ends()
    witness.say(b"/list\n")
    while (await witness.reads(rb"(?m)^-> in lobby: (.*)\n")).group(1) != b"1 without a nick":
        witness.say(b"/list\n")
    assert len(chat.protocols) == len(chat.hub.sessions) == 1
