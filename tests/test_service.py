"""The running server, in this process: its ports, its signals and its end."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.application.service import Application, IService, MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from chatproto import ChatFactory, Settings
from chatproto.listening import open_ports
from chatproto.logs import Logging
from chatproto.service import ChatService
from chatproto.stores.sqlite.file import StoreFile

if TYPE_CHECKING:
    from tests.conftest import LoggedErrors

F = TypeVar("F", bound=Callable[..., Any])

in_reactor: Callable[[F], F] = pytest_twisted.ensureDeferred
async_fixture: Callable[[F], F] = pytest_twisted.async_yield_fixture

SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class Client(Protocol):
    """A client that keeps what it is sent."""

    transport: Any

    def __init__(self) -> None:
        """Start with nothing."""
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()
        self._waiting: list[tuple[bytes, Deferred[None]]] = []

    def until(self, end: bytes) -> Deferred[None]:
        """Return what fires when `end` has come."""
        arrived: Deferred[None] = Deferred()
        self._waiting.append((end, arrived))
        self.dataReceived(b"")
        return arrived

    def dataReceived(self, data: bytes) -> None:
        """Keep `data`."""
        self.received += data
        for end, arrived in list(self._waiting):
            if end in self.received:
                self._waiting.remove((end, arrived))
                arrived.callback(None)

    def connectionLost(self, reason: object = None) -> None:
        """Tell that this is all."""
        self.ended.callback(self.received)


class Logged(list[str]):
    """The messages logged, and those who wait for one."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self._waiting: list[tuple[str, Deferred[str]]] = []

    def __call__(self, event: LogEvent) -> None:
        """Take in an event."""
        message = formatEvent(event)
        self.append(message)
        for words, heard in list(self._waiting):
            if words in message:
                self._waiting.remove((words, heard))
                reactor.callLater(0, heard.callback, message)

    def wait_for(self, words: str) -> Deferred[str]:
        """Return what fires with the next message that has `words` in it."""
        heard: Deferred[str] = Deferred()
        self._waiting.append((words, heard))
        return heard


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What is logged during a test."""
    messages = Logged()
    observer = cast(ILogObserver, messages)
    globalLogPublisher.addObserver(observer)
    yield messages
    globalLogPublisher.removeObserver(observer)


@pytest.fixture
def log_to() -> Iterator[Callable[[Path], Logging]]:
    """Make logs in a file, and close that after the test as the end of a process does."""
    made: list[Logging] = []

    def make(path: Path) -> Logging:
        made.append(Logging(str(path), "text"))
        return made[-1]

    yield make
    for logging in made:
        assert logging.file is not None
        logging.file._file.close()


@pytest.fixture
def _signals() -> Iterator[None]:
    """Put back the handlers of the signals that a service takes."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Serving:
    """A service, and how to reach it."""

    def __init__(self, settings: Settings, logging: Logging | None) -> None:
        """Open its ports; it is not started."""
        self.factory = ChatFactory(settings)
        ports = open_ports(reactor, settings.port, self.factory)
        self.number: int = ports[0].getHost().port  # type: ignore[attr-defined]
        self.service = ChatService(reactor, self.factory, ports, logging)
        self.clients: list[Client] = []

    async def client(self) -> Client:
        """Return a new client, which is in the room."""
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{self.number}")
        client = Client()
        self.clients.append(client)
        await connectProtocol(endpoint, client)
        client.transport.write(b"/rooms\n")
        await client.until(b"-> rooms: ")
        client.received = b""
        return client

    async def stop(self) -> None:
        """Stop it, unless it is stopped."""
        if self.service.running:
            stopped = self.service.stopService()
            self.factory.end_now()
            await stopped
        for client in self.clients:
            if not client.ended.called:
                client.transport.abortConnection()
                await client.ended


Serve = Callable[..., Serving]
LogTo = Callable[[Path], Logging]


@async_fixture
async def serve(_signals: None) -> Any:
    """Start services, and stop them after the test."""
    servings: list[Serving] = []

    def start(*, logging: Logging | None = None, **settings: Any) -> Serving:
        settings.setdefault("port", ["tcp:0:interface=127.0.0.1"])
        settings.setdefault("store", "memory")
        serving = Serving(Settings(**settings), logging)
        servings.append(serving)
        serving.service.startService()
        return serving

    yield start
    for serving in servings:
        await serving.stop()


@in_reactor
async def test_serves(serve: Serve, logged: Logged) -> None:
    """It says where it listens, and its clients talk to each other."""
    serving = serve(port=["tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1"])
    assert f"listening on 127.0.0.1:{serving.number}" in logged
    assert len([message for message in logged if message.startswith("listening on ")]) == 2
    alice, bob = await serving.client(), await serving.client()
    alice.transport.write(b"hello\n")
    await bob.until(b"HELLO\n")


def test_few_files(serve: Serve, logged: Logged) -> None:
    """When the limit of open files allows fewer clients than wanted, the log says how many."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    serve(max_clients=max(1, files - 64))
    assert not [message for message in logged if "open files" in message]
    serve(max_clients=files)
    assert [message for message in logged if f"allows {files - 64} clients, not {files}" in message]


@in_reactor
async def test_stop(serve: Serve, logged: Logged) -> None:
    """Stopping closes the ports, tells everyone, and is done when all are gone."""
    serving = serve()
    alice, bob = await serving.client(), await serving.client()
    await serving.service.stopService()
    assert not serving.factory.protocols
    assert await alice.ended == await bob.ended == b"* the server is stopping\n"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", serving.number)) != 0
    assert "stopping: 2 clients connected, at most 10 s to send what is queued" in logged
    assert len([message for message in logged if "closed after" in message]) == 2


@in_reactor
async def test_stop_with_a_store_in_a_file(serve: Serve, tmp_path: Path) -> None:
    """What was said before the end is in the store, which is then free for the next service."""
    path = str(tmp_path / "rooms.db")
    serving = serve(store=path)
    alice, bob = await serving.client(), await serving.client()
    alice.transport.write(b"last words\n/rooms\n")
    await alice.until(b"-> rooms: ")
    await serving.service.stopService()
    assert await bob.ended == b"LAST WORDS\n* the server is stopping\n"
    again = serve(store=path)
    carol = await again.client()
    carol.transport.write(b"/history\n")
    await carol.until(b" LAST WORDS\n")


@in_reactor
async def test_stop_before_anyone_came(serve: Serve, tmp_path: Path) -> None:
    """A service that is stopped in the turn in which it was started ends as well."""
    path = str(tmp_path / "rooms.db")
    for _ in range(2):
        serving = serve(store=path)
        await serving.service.stopService()
    other = StoreFile(path)
    other.lock()
    other.unlock()


async def fill(serving: Serving) -> Client:
    """Return a client that does not read, and for which more is queued than sockets hold."""
    lazy, speaker = await serving.client(), await serving.client()
    lazy.transport.pauseProducing()
    for protocol in serving.factory.protocols:
        protocol.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    speaker.transport.write(b"".join(b"%d " % n + b"x" * 4000 + b"\n" for n in range(2000)))
    speaker.transport.write(b"/rooms\n")
    await speaker.until(b"-> rooms: ")
    return lazy


@in_reactor
async def test_drain_deadline(serve: Serve, logged: Logged) -> None:
    """A client that does not read is cut when the drain time is over."""
    serving = serve(rate=0, drain=0.1)
    lazy = await fill(serving)
    await serving.service.stopService()
    assert "cutting off 1 clients" in logged
    lazy.transport.resumeProducing()
    assert b"stopping" not in await lazy.ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@in_reactor
async def test_second_signal(serve: Serve, logged: Logged, number: signal.Signals) -> None:
    """A signal while it is stopping ends everything at once."""
    serving = serve(rate=0, drain=3600)
    await fill(serving)
    stopped = serving.service.stopService()
    os.kill(os.getpid(), number)
    await stopped
    assert "cutting off 2 clients" in logged or "cutting off 1 clients" in logged
    assert not serving.factory.protocols


@in_reactor
async def test_hangup(serve: Serve, logged: Logged, log_to: LogTo, tmp_path: Path) -> None:
    """SIGHUP opens the log file anew and reads the message of the day again."""
    motd, path = tmp_path / "motd.txt", tmp_path / "chat.log"
    motd.write_text("one\n")
    serving = serve(motd=f"@{motd}", logging=log_to(path))
    motd.write_text("two\n")
    path.rename(tmp_path / "old.log")
    reloaded = logged.wait_for("reloaded")
    os.kill(os.getpid(), signal.SIGHUP)
    await reloaded
    assert serving.factory.motd == "two"
    assert path.exists()


@in_reactor
async def test_hangup_without_files(
    serve: Serve, logged: Logged, logged_errors: LoggedErrors, log_to: LogTo, tmp_path: Path
) -> None:
    """What cannot be read or opened on SIGHUP is logged, and stays as it was."""
    motd, logs = tmp_path / "motd.txt", tmp_path / "logs"
    motd.write_text("one\n")
    logs.mkdir()
    serving = serve(motd=f"@{motd}", logging=log_to(logs / "chat.log"))
    motd.unlink()
    logs.rename(tmp_path / "old")
    reloaded = logged.wait_for("reloaded")
    os.kill(os.getpid(), signal.SIGHUP)
    await reloaded
    logged_errors.take("the log file cannot be reopened: No such file or directory")
    logged_errors.take("kept the old message of the day: --motd: cannot read")
    assert serving.factory.motd == "one"


@in_reactor
async def test_hangup_without_log(serve: Serve, logged: Logged) -> None:
    """SIGHUP does no harm where the log is somebody else's, and SIGUSR1 stays theirs."""
    theirs = signal.getsignal(signal.SIGUSR1)
    serve()
    reloaded = logged.wait_for("reloaded")
    os.kill(os.getpid(), signal.SIGHUP)
    await reloaded
    assert signal.getsignal(signal.SIGUSR1) is theirs


@in_reactor
async def test_rotate(serve: Serve, log_to: LogTo, tmp_path: Path) -> None:
    """SIGUSR1 puts the log file aside."""
    serve(logging=log_to(tmp_path / "chat.log"))
    rotated: Deferred[None] = Deferred()
    os.kill(os.getpid(), signal.SIGUSR1)
    # Signals are handled in the order of their arrival, in a turn of the reactor.
    reactor.callFromThread(rotated.callback, None)  # type: ignore[attr-defined]
    await rotated
    assert len(list(tmp_path.iterdir())) == 2


@in_reactor
async def test_port_that_cannot_be_closed(
    serve: Serve, logged: Logged, logged_errors: LoggedErrors
) -> None:
    """A port that fails to close does not keep the clients from being let go in order."""
    serving = serve()
    alice = await serving.client()
    (port,) = serving.service._ports

    class Stuck:
        def stopListening(self) -> Deferred[None]:
            failed: Deferred[None] = Deferred()
            reactor.callLater(0, failed.errback, Failure(OSError("stuck")))
            return failed

    serving.service._ports = [port, Stuck()]  # type: ignore[list-item]
    await serving.service.stopService()
    assert not serving.factory.protocols
    assert await alice.ended == b"* the server is stopping\n"
    logged_errors.take("stuck")


def test_log_of_the_application(log_to: LogTo, tmp_path: Path) -> None:
    """An application that it joins gets its log; anything else is left alone."""
    logging = log_to(tmp_path / "chat.log")
    factory = ChatFactory(Settings(store="memory"))
    application = Application("chat")
    ChatService(reactor, factory, [], logging).setServiceParent(application)
    assert application.getComponent(ILogObserver) is not None

    other = Application("other")
    ChatService(reactor, factory, [], None).setServiceParent(other)
    assert other.getComponent(ILogObserver) is None

    parent = MultiService()
    service = ChatService(reactor, factory, [], logging)
    service.setServiceParent(parent)
    assert IService(service.parent) is parent
