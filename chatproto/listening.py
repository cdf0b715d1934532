"""The ports: opened while the flags are read, so that a busy one is an answer to the command.

See docs/decisions/0003-ports-before-the-daemon.md.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from chatproto.errors import StartError

BACKLOG: Final = 1024
"""Connections that the kernel holds until they are accepted; Linux cuts it to somaxconn."""

_UNIX_PATH: Final = re.compile(r"(?<=^unix:)(?!/|\w+=)[^:]+|(?<=^unix:address=)(?!/)[^:]+")
"""The relative path in an endpoint string of a Unix socket."""

_IN_USE: Final = "the port is in use already"


def open_ports(
    reactor: Any, ports: Sequence[str], factory: IProtocolFactory
) -> list[IListeningPort]:
    """Listen on each of `ports`, a number or an endpoint string, with `factory`.

    Raises `StartError`, and then leaves none of them open.
    """
    opened: list[IListeningPort] = []
    for port in ports:
        try:
            opened.append(_open(reactor, port, factory))
        except Exception as error:
            close_now(reactor, opened)
            raise StartError(f"--port {port}: {_reason(port, error)}") from None
    return opened


def take_locks(ports: Sequence[IListeningPort]) -> None:
    """Put this process's id into the lock files of Unix sockets, after it has become a daemon.

    Without that the lock would name a process that has ended, and would not be removed.
    """
    for port in ports:
        lock = getattr(port, "lockFile", None)
        if lock is not None and os.path.lexists(lock.name):
            os.unlink(lock.name)
            lock.lock()


def close_now(reactor: Any, ports: Sequence[IListeningPort]) -> None:
    """Close `ports` of a reactor that does not run yet, and remove the files of Unix sockets."""
    for port in ports:
        port.stopListening()
    reactor.iterate()


def shown(port: IListeningPort) -> str:
    """Return where `port` listens: ``127.0.0.1:12345``, ``[::]:12345`` or ``unix:PATH``."""
    host = port.getHost()
    if isinstance(host, IPv6Address):
        return f"[{host.host}]:{host.port}"
    if isinstance(host, IPv4Address):
        return f"{host.host}:{host.port}"
    if isinstance(host, UNIXAddress) and host.name is not None:
        return f"unix:{os.fsdecode(host.name)}"
    return str(host)


def _open(reactor: Any, port: str, factory: IProtocolFactory) -> IListeningPort:
    if port.isdigit():
        return _open_number(reactor, int(port), factory)
    results: list[IListeningPort | Failure] = []
    # Absolute, as a daemon may change its folder before it removes the socket.
    port = _UNIX_PATH.sub(lambda path: os.path.join(os.getcwd(), path[0]), port)
    serverFromString(reactor, port).listen(factory).addBoth(results.append)
    if not results:
        raise ValueError("this kind of endpoint takes its time to listen; it cannot be used here")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def _open_number(reactor: Any, number: int, factory: IProtocolFactory) -> IListeningPort:
    """Listen on one port with IPv4 and IPv6, or with IPv4 where there is no IPv6."""
    if socket.has_dualstack_ipv6():
        family, host, dual = socket.AF_INET6, "::", True
    else:
        family, host, dual = socket.AF_INET, "", False
    with socket.create_server(
        (host, number), family=family, backlog=BACKLOG, dualstack_ipv6=dual
    ) as listener:
        listener.setblocking(False)
        port: IListeningPort = reactor.adoptStreamPort(listener.fileno(), family, factory)
    return port


def _reason(port: str, error: Exception) -> str:
    if isinstance(error, CannotListenError):
        error = error.socketError
    if isinstance(error, TypeError) and "argument" in str(error):  # of the endpoint's parser
        return "this kind of endpoint needs other arguments"
    if str(error) == "Cannot acquire lock":  # a Unix socket's; Twisted has no type for it
        return _IN_USE
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return _IN_USE
    if isinstance(error, OSError) and error.strerror:
        # Some errors name a file that the user has never heard of, such as a lock.
        named = error.filename
        return f"{named}: {error.strerror}" if named and str(named) in port else error.strerror
    return str(error).replace("\n", " ") or type(error).__name__
