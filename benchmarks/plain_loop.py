"""The chat server as everybody writes it first: a loop of `sendLine` over all others.

This is the baseline that the benchmarks compare with. It speaks the same lines as the chat
server does to anonymous clients (a line typed by one is uppercased and sent to everyone else)
and has none of its promises: nothing is stored, and a slow reader's buffer grows without bound.

    python -m benchmarks.plain_loop

listens on a free port of 127.0.0.1 and prints `listening on 127.0.0.1:PORT`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure


class PlainChat(LineReceiver):
    """One client; `others` is the set of all connected ones, shared by them."""

    delimiter = b"\n"

    def __init__(self, others: set[PlainChat]) -> None:
        self.others = others

    def connectionMade(self) -> None:
        # Without it Nagle's algorithm and delayed acknowledgements add 40 ms to a line.
        ITCPTransport(self.transport).setTcpNoDelay(True)
        self.others.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.others.discard(self)

    def lineReceived(self, line: bytes) -> None:
        said = line.rstrip(b"\r").upper()
        for other in self.others:
            if other is not self:
                other.sendLine(said)


class PlainChatFactory(Factory):
    """One room for all who connect."""

    noisy = False

    def __init__(self) -> None:
        self.clients: set[PlainChat] = set()

    def buildProtocol(self, addr: object) -> PlainChat:
        return PlainChat(self.clients)


async def serve(reactor: Any) -> None:
    """Listens on a free port, says which, and serves until the process is ended."""
    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1")
    listening = await endpoint.listen(PlainChatFactory())
    print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(serve(reactor)))
