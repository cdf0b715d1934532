"""The line protocol: nc, telnet, `openssl s_client`, and whatever sends lines (docs/protocol.md).

    bytes ─► LineBuffer ─► detect (the first line) ─► pace ─► lineReceived ─► the hub, or a command

What has been read and may not be processed yet (the pace, a command that waits, a full outbox, or
simply enough for one turn) stays in the buffer, and reading pauses: the rest waits in the kernel
and then at the client. So input is bounded, in order, and never refused for coming fast.
"""

from __future__ import annotations

from inspect import iscoroutine
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from chatproto import commands
from chatproto.address import Peer
from chatproto.errors import ChatError, CommandError, LoginFailed, NameRefused, StreamError
from chatproto.pacing import pace_for
from chatproto.protocols.connection import ClientConnection, Door
from chatproto.protocols.detect import REFUSALS, Speaks, detect
from chatproto.protocols.linebuffer import LineBuffer
from chatproto.protocols.linecodec import CRLF, LF
from chatproto.text import decode

LINES_PER_TURN: Final = 8
"""Lines of one client that are processed before others get their turn. While one client sends
newlines as fast as it can, the p99 of a hundred others is 2.4 times as long as without it with 32
lines a turn, and 1.9 times with 8; a single fast sender still gets tens of thousands a second."""

LOGIN: Final = 60.0
"""Seconds to choose a nick where one is required."""

CONGESTED: Final = 4
"""High-water marks of queued bytes above which a client's input waits until it has read them: its
answers must not pile up. With the default mark, what rooms send stays below it by itself."""

LAST_WORDS: Final = 60.0
"""Seconds in which the lines of a client that is gone are still said, at its pace."""

log = Logger()


@implementer(IHalfCloseableProtocol)
class ChatProtocol(ClientConnection, LineReceiver):
    """One client that speaks lines.

    `LineReceiver` gives the interface (`lineReceived`, `sendLine`, `delimiter`). Its own splitting
    is replaced: it searches the whole buffer again for every line, and drops the connection of
    whoever sends a long one.
    """

    delimiter = b"\n"

    _undecided = True  # the first line has not come yet
    _naming = False  # a nick is required and has not been chosen
    _told_pace = False
    _asked = False  # the last line was a command
    _waiting: Deferred[None] | None = None  # the command that is being carried out
    _next_turn: IDelayedCall | None = None  # when the buffer is looked at again

    def __init__(self, door: Door, peer: Peer) -> None:
        """Serve a client that connected from `peer`."""
        super().__init__(door, peer)
        settings = door.settings
        self._input = LineBuffer(settings.max_line)
        self._pace = pace_for(settings.burst, settings.rate, door.clock.seconds)

    def connectionMade(self) -> None:
        """Begin with line ends of LF, until the client has shown another."""
        self._open(LF)

    def readConnectionLost(self) -> None:
        """The client will send no more: say its last line, answer it, and close."""
        if self._why:  # it has taken our last words
            self.transport.loseConnection()
            return
        self._last_line()
        settled = self._waiting or self._door.hub.settled()
        settled.addBoth(lambda _: self.hang_up("the client has finished"))

    def writeConnectionLost(self) -> None:
        """The end of our stream is sent, as `refuse` wanted it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing can be sent or read any more; what has been read is still said."""
        if reason.check(ConnectionDone):
            why = "closed by the client"
        else:
            why = f"lost: {reason.getErrorMessage()}"
            self._input.drop_rest()
        if self._set_lost(why) and self._waiting is None:
            self._go_on()

    # Bytes in.

    def dataReceived(self, data: bytes) -> None:
        """Take in what has come, in pieces of any size."""
        self.bytes_in += len(data)
        if self._why:
            return
        if self._told_pace and self._pace.is_rested():
            self._told_pace = False
        try:
            self._input.feed(data)
        except StreamError as error:
            self.refuse(error.sentence, self.session.codec.error(error.sentence))
            return
        if self._undecided and not self._decide():
            return
        if self._next_turn is None and self._waiting is None and not self._door.stopping:
            self._process()

    def lineReceived(self, line: bytes) -> None:
        """Say a line, or do what it asks for; the line comes without its LF."""
        self.lines_in += 1
        if line.endswith(b"\r"):
            line = line[:-1]
        session, hub = self.session, self._door.hub
        session.last_heard = hub.seconds()
        try:
            text = decode(line)
            if self._naming:
                self._name(text)
            elif self._door.settings.nicknames == "off":
                hub.say(session, text)
            elif not text.startswith("/"):
                if text[:1].isspace() and commands.is_secret(text):
                    raise CommandError("this looks like a password behind a space: not sent")
                hub.say(session, text)
            elif not text.startswith("//"):
                self._do(text)
            elif commands.is_secret(text):
                raise CommandError("this looks like a password behind two slashes: not sent")
            else:
                hub.say(session, text[1:])
        except ChatError as error:
            session.error(error.sentence)

    def sendLine(self, line: bytes) -> None:
        """Send `line` and the delimiter, in order with everything else."""
        self.session.outbox.push(line + self.delimiter, 1)

    def _begin(self) -> None:
        if self._door.motd:
            self.session.notice(self._door.motd)
        if self._door.settings.nicknames == "required":
            self._naming = True
            self._due(LOGIN, f"no nick chosen within {LOGIN:g} s")
            self.session.answer("what is your nick?")
        else:
            self._enter()

    def _enter(self) -> None:
        hub, session = self._door.hub, self.session
        hub.enter(session)
        if hub.past.concerns(session):
            self._await(Deferred.fromCoroutine(hub.show_missed(session, *session.cursors)))

    def _decide(self) -> bool:
        """Tell whether this is a client of ours; refuse it when it is not."""
        head = self._input.head
        speaks = detect(head, cut=True) if head else detect(self._input.peek())
        if speaks is None:
            return False
        if speaks is not Speaks.LINE:
            self.refuse(f"{speaks.value} is not spoken here", REFUSALS[speaks])
            return False
        self._undecided = False
        self._input.expect_lines()
        return True

    def _read_lines(self) -> None:
        """Process the lines that have come, until something says to wait."""
        self._asked = False
        for _ in range(LINES_PER_TURN):
            if not self._input.has_line():
                self._need_more()
                return
            if self._asked:  # one command in a turn: it may be much work
                break
            if self._is_held():
                return
            self._read_line()
            if self.session.effort:
                self._pace.charge(self.session.effort)
                self.session.effort = 0
            if self._waiting is not None:
                return
            if self._why and not self._lost:
                return
        self._go_on()

    def _read_line(self) -> None:
        too_long: ChatError | None = None
        try:
            line = self._input.take()
        except ChatError as error:
            too_long = error
        if not self.lines_in and self._input.crlf:
            self.delimiter = b"\r\n"
            self._door.hub.recode(self.session, CRLF)
        if too_long is None:
            self.lineReceived(line)
        else:
            self.lines_in += 1
            self.session.error(too_long.sentence)

    def _is_held(self) -> bool:
        """Tell whether the next line has to wait, and see to it that it is looked at again."""
        outbox = self.session.outbox
        if outbox.dead:
            if not self._may_have_last_words():
                self.cut("gone while its commands waited")
                return True
            if self._deadline is None:
                self._due(LAST_WORDS, f"gone for {LAST_WORDS:g} s")
        elif outbox.queued > CONGESTED * outbox.high_water:
            self._pause()  # `_drained` goes on
            return True
        wait = self._pace.take()
        if not wait:
            return False
        if not self._told_pace:
            self._told_pace = True
            settings = self._door.settings
            self.session.error(
                f"more than {settings.burst} lines at once: "
                f"the rest follows at {settings.rate:g} lines a second"
            )
        self._go_on(wait)
        return True

    def _may_have_last_words(self) -> bool:
        """Tell whether the next line of a client that is gone says something.

        Nobody is left to read an answer, and what comes after a command might be meant for another
        room or another name.
        """
        if self._door.settings.nicknames == "off":
            return True
        try:
            return not self._naming and commands.speaks(decode(self._input.peek_line()))
        except ChatError:
            return True  # it will be refused

    def _need_more(self) -> None:
        """All complete lines are processed: read on."""
        if self._lost:
            self._last_line()
            self._gone()
            return
        self._input.trim()
        self._resume()

    def _last_line(self) -> None:
        """Take a last line without an ending, unless it began something that is not ours."""
        if not self._input.has_rest():
            return
        if self._undecided and detect(self._input.peek() + b"\n") is not Speaks.LINE:
            return
        try:
            self.lineReceived(self._input.take_rest())
        except ChatError as error:
            self.session.error(error.sentence)

    def _go_on(self, wait: float = 0.0) -> None:
        """Look at the buffer again in `wait` seconds, and read nothing more until then."""
        if self._next_turn is None and (self._lost or not self._why) and not self._door.stopping:
            self._pause()
            self._next_turn = self._door.clock.callLater(wait, self._take_turn)

    def _take_turn(self) -> None:
        self._next_turn = None
        self._process()

    def _process(self) -> None:
        """Go on with the buffer; an error ends this client only."""
        try:
            self._read_lines()
        except Exception:
            log.failure("client {client} failed", client=self.session.id)
            self.cut("an error in the server")

    # Commands.

    def _do(self, line: str) -> None:
        self._asked = True
        waiting = commands.run(self._door.hub, self.session, line)
        if iscoroutine(waiting):
            self._await(Deferred.fromCoroutine(waiting))

    def _name(self, text: str) -> None:
        """Take `text` as the nick that was asked for, or as a command that needs none."""
        word = text[1:].partition(" ")[0].lower() if text.startswith("/") else ""
        if word in ("quit", "exit", "help"):
            self._do(text)
        else:
            self._await(Deferred.fromCoroutine(self._choose(text, is_login=word == "login")))

    async def _choose(self, text: str, *, is_login: bool) -> None:
        """Come in with a nick, or with an account."""
        hub, session = self._door.hub, self.session
        if is_login:
            logging_in = commands.run(hub, session, text)
            if logging_in is not None:
                await logging_in
        else:
            await hub.name(session, text.removeprefix("/nick ").strip())
        if self._why or not session.nick:
            return
        self._naming = False
        self._no_deadline()
        if session.place is None:  # else it took over from another connection, and its room
            hub.enter(session)
        here = len(hub.rooms[session.room].members)
        session.answer(f"you are {session.nick}, in {session.room} ({here} here)")
        await hub.show_missed(session, session.place)

    def _await(self, command: Deferred[None]) -> None:
        """Read no further line until `command` has finished."""

        def finished(result: Failure | None) -> None:
            self._waiting = None
            if isinstance(result, Failure):
                self._failed(result)

        self._waiting = command
        command.addBoth(finished)
        if self._waiting is not None:
            self._pause()
            command.addBoth(lambda _: self._go_on())

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, ChatError):
            log.failure("client {client} failed", failure, client=self.session.id)
            self.cut("an error in the server")
        elif self._naming and isinstance(error, NameRefused | LoginFailed):
            self.session.error(f"{error.sentence}; what is your nick?")
        else:
            self.session.error(error.sentence)

    # For `ClientConnection`.

    def _drained(self) -> None:
        self.session.drained()
        if self.paused and self._waiting is None:
            self._go_on()

    def _stop_turns(self) -> None:
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None

    def _forget_input(self) -> None:
        self._input.clear()

    def _unread(self) -> int:
        return self._input.pending()
