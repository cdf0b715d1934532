"""Ports are opened all or none, and named as their users know them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from chatproto import listening
from chatproto.errors import StartError
from chatproto.listening import close_now, open_ports, shown

F = TypeVar("F", bound=Callable[..., Any])

async_fixture: Callable[[F], F] = pytest_twisted.async_yield_fixture

LOCAL = "tcp:0:interface=127.0.0.1"


class Silent(Factory):
    """A factory that is never asked for anything."""

    noisy = False


Open = Callable[..., list[IListeningPort]]


@async_fixture
async def open_them() -> Any:
    """Open ports of the real reactor, and close them after the test."""
    opened: list[IListeningPort] = []

    def open_some(*ports: str) -> list[IListeningPort]:
        some = open_ports(reactor, ports, Silent())
        opened.extend(some)
        return some

    yield open_some
    for port in opened:
        await maybeDeferred(port.stopListening)


@pytest.fixture
def busy() -> Iterator[int]:
    """The number of a port of loopback that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether something listens on `port`."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.connect_ex((host, port)) == 0


def test_endpoint(open_them: Open) -> None:
    """An endpoint string is listened on as it says."""
    (port,) = open_them(LOCAL)
    number = port.getHost().port  # type: ignore[attr-defined]  # the interface has no port
    assert shown(port) == f"127.0.0.1:{number}"
    assert is_open(number)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_number(open_them: Open) -> None:
    """A number is listened on over IPv4 and IPv6."""
    (port,) = open_them("0")
    number = int(shown(port).removeprefix("[::]:"))
    assert is_open(number)
    assert is_open(number, "::1")


def test_number_without_ipv6(open_them: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no IPv6 a number is listened on over IPv4."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    (port,) = open_them("0")
    assert is_open(int(shown(port).removeprefix("0.0.0.0:")))


def test_unix(open_them: Open, tmp_path: Path) -> None:
    """A Unix socket is shown by its path."""
    path = tmp_path / "s"
    (port,) = open_them(f"unix:{path}:mode=660")
    assert shown(port) == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o660


def test_several(open_them: Open, tmp_path: Path) -> None:
    """The ports come back in the order in which they were asked for."""
    ports = open_them(LOCAL, f"unix:{tmp_path}/s", LOCAL)
    assert [shown(port).partition(":")[0] for port in ports] == ["127.0.0.1", "unix", "127.0.0.1"]


def test_unknown_place_is_shown() -> None:
    """A port of a kind that we do not know is shown in its own words."""

    class Odd:
        def getHost(self) -> str:
            return "somewhere"

    assert shown(Odd()) == "somewhere"  # type: ignore[arg-type]  # the least there is of a port


@pytest.mark.parametrize("form", ["tcp:{}:interface=127.0.0.1", "{}"])
def test_busy(busy: int, form: str, tmp_path: Path) -> None:
    """A port that is in use is named, and those that were opened before are closed again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    port = form.format(busy)
    before = [f"tcp:{number}:interface=127.0.0.1", f"unix:{tmp_path}/s"]
    with pytest.raises(StartError) as error:
        open_ports(reactor, [*before, port], Silent())
    assert error.value.sentence == f"--port {port}: the port is in use already"
    assert not is_open(number)
    assert list(tmp_path.iterdir()) == []


def test_close_now(tmp_path: Path) -> None:
    """Ports can be closed before the reactor runs, and leave no file."""
    ports = open_ports(reactor, [f"unix:{tmp_path}/s", LOCAL], Silent())
    number = int(shown(ports[1]).rpartition(":")[2])
    close_now(reactor, ports)
    assert not is_open(number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        ("nonsense:1", "Unknown endpoint type: 'nonsense'"),
        ("tcp:0:interface=192.0.2.99", "Cannot assign requested address"),
        ("unix:nowhere/s", "No such file or directory"),
        ("ssl:0:privateKey=nowhere.pem", "No such file or directory"),
        ("tcp", "port"),
    ],
)
def test_reasons(port: str, reason: str) -> None:
    """An endpoint that cannot be is named, with the reason, on one line."""
    with pytest.raises(StartError) as error:
        open_ports(reactor, [port], Silent())
    sentence = error.value.sentence
    assert sentence.startswith(f"--port {port}: ")
    assert reason in sentence
    assert "\n" not in sentence


def test_slow_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is not there at once cannot be waited for."""

    class Slow:
        def listen(self, factory: object) -> Deferred[IListeningPort]:
            return Deferred()

    monkeypatch.setattr(listening, "serverFromString", lambda reactor, port: Slow())
    with pytest.raises(StartError, match=r"^--port slow:1: .*takes its time"):
        open_ports(reactor, ["slow:1"], Silent())
