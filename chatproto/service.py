"""The running server: its ports, its signals, and its end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from chatproto.errors import ChatError, StartError, StoreError
from chatproto.factory import ChatFactory
from chatproto.listening import shown, take_locks
from chatproto.logs import Logging

SWITCH: Final = 0.0005
"""Seconds that one of Python's threads may keep another waiting. With the default, ten times that,
a busy reactor would keep the store's thread waiting for 5 ms at each of the statements that make a
transaction; the reactor itself loses nothing, as that thread works without Python's lock mostly."""

log = Logger()


class ChatService(Service):
    """Serves a chat on open ports until it is stopped.

    SIGHUP reopens the log file and reads the message of the day again; SIGUSR1 puts the log file
    aside. The signal that stops the process lets everyone go within the drain time; a second one
    ends it at once.
    """

    def __init__(
        self,
        reactor: Any,
        factory: ChatFactory,
        ports: Sequence[IListeningPort],
        logging: Logging | None,
    ) -> None:
        """Serve `factory` on `ports`, which are open.

        `logging` is the log of the process, None where that is somebody else's.
        """
        self.setName("chat")
        self.factory = factory
        self._reactor = reactor
        self._ports = ports
        self._logging = logging

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join an application, and give it our log."""
        if self._logging is not None and isinstance(parent, Componentized):
            # twistd asks the application for an observer before it makes one of its own.
            parent.setComponent(ILogObserver, self._logging.observer())
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Make the ports' files our own: since they were opened we may have become a daemon."""
        super().privilegedStartService()
        take_locks(self._ports)

    def startService(self) -> None:
        """Open the store, say where we listen, and listen to signals."""
        super().startService()
        sys.setswitchinterval(SWITCH)
        try:
            self.factory.open()
        except StoreError as error:
            # It could be opened before the process became a daemon, or another user.
            store = self.factory.settings.store
            raise StartError(f"--store {store}: {error.sentence}") from None
        for port in self._ports:
            log.info("listening on {place}", event="listening", place=shown(port))
        wanted, capacity = self.factory.settings.max_clients, self.factory.capacity
        if capacity < wanted:
            log.warn(
                "the limit of open files allows {capacity} clients, not {wanted}: "
                "raise it (ulimit -n, LimitNOFILE=) or lower --max-clients",
                event="few-files",
                capacity=capacity,
                wanted=wanted,
            )
        self._on_signal("SIGHUP", self.reload)
        if self._logging is not None:
            self._on_signal("SIGUSR1", partial(self._change_log, self._logging.rotate))

    def stopService(self) -> Deferred[Any]:
        """Take no new clients and let everyone go; fires when they are gone."""
        super().stopService()
        log.info(
            "stopping: {count} clients connected, at most {seconds:g} s to send what is queued",
            event="stopping",
            count=len(self.factory.protocols),
            seconds=self.factory.settings.drain,
        )
        for name in ("SIGTERM", "SIGINT"):
            self._on_signal(name, self.factory.end_now)
        closed = [Deferred.fromCoroutine(_close(port)) for port in self._ports]
        return DeferredList([*closed, self.factory.drain()])

    def reload(self) -> None:
        """Reopen the log file and read the message of the day again."""
        if self._logging is not None:
            self._change_log(self._logging.reopen)
        try:
            self.factory.reload()
        except ChatError as error:
            log.error("kept the old message of the day: {reason}", reason=error.sentence)
        log.info("reloaded", event="reloaded")

    def _change_log(self, change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as error:
            log.error("the log file cannot be reopened: {reason}", reason=error.strerror)

    def _on_signal(self, name: str, action: Callable[[], object]) -> None:
        """Call `action` in the reactor when the signal comes."""
        signal.signal(
            getattr(signal, name), lambda number, frame: self._reactor.callFromThread(action)
        )


async def _close(port: IListeningPort) -> None:
    """Close `port`; one that will not must not keep the server from ending."""
    try:
        closing = port.stopListening()
        if closing is not None:
            await closing
    except Exception:
        log.failure("a port cannot be closed")
