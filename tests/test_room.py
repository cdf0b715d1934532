"""A room: one encoding for everyone, a selection for those who need one, pages for the slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatproto.address import LOCAL
from chatproto.cursor import RETRY, Cursor
from chatproto.errors import StoreError
from chatproto.model import Draft, Event, Kind, Page
from chatproto.outbox import WrappedOutbox
from chatproto.protocols.linecodec import LineCodec
from chatproto.room import PAGE_EVENTS, STRETCHES, Room, Stretch
from chatproto.session import Session
from chatproto.stores import Deliver, Refused
from chatproto.stores.memory import MemoryLog
from chatproto.stores.recent import Recent
from chatproto.stores.ring import Ring
from chatproto.testing import MemoryTransport

from .conftest import LoggedErrors

HIGH_WATER = 1024


class CountingCodec(LineCodec):
    """A codec that counts how many events it has encoded."""

    def __init__(self, ending: bytes = b"\n") -> None:
        """Begin at zero."""
        super().__init__(ending)
        self.encoded = 0

    def lines(self, events: Sequence[Event]) -> list[bytes]:
        """Count and encode."""
        self.encoded += len(events)
        return super().lines(events)


class SlowLog(MemoryLog):
    """A log whose pages come when the test lets them."""

    def __init__(self, clock: Clock, now: Callable[[], float]) -> None:
        """Begin with no page asked for."""
        super().__init__(clock, now)
        self.asked: list[Deferred[Page]] = []
        self.pages = 0

    def answer(self, house: House) -> None:
        """Let all pages come that are asked for."""
        while self.asked:
            self.asked.pop().callback(Page(()))
            house.turn()

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Keep the question."""
        page: Deferred[Page] = Deferred()
        answer = super().page(room, after=after, before=before, limit=limit)
        page.addCallback(lambda _: answer)
        self.asked.append(page)
        self.pages += 1
        return page


class AheadLog(MemoryLog):
    """A log that can hold back the delivery of what it has stored."""

    def __init__(self, clock: Clock, now: Callable[[], float]) -> None:
        """Begin with delivering at once."""
        super().__init__(clock, now)
        self.is_ahead = False
        self._undelivered: list[Event] = []

    def start(self, deliver: Deliver, refused: Refused) -> int:
        """Deliver to `deliver`, now or later."""
        self._to_room = deliver
        return super().start(self._hand_over, refused)

    def deliver_rest(self) -> None:
        """Deliver what was held back."""
        self._to_room(self._undelivered)

    def _hand_over(self, events: Sequence[Event]) -> None:
        if self.is_ahead:
            self._undelivered += events
        else:
            self._to_room(events)


class House:
    """One room, its log, and its members, without hub or protocol."""

    def __init__(self, log: MemoryLog | None = None, clock: Clock | None = None) -> None:
        """Open an empty room."""
        self.clock = clock or Clock()
        self.log = log or MemoryLog(self.clock, self.clock.seconds)
        self.room = Room("lobby", self.log, self.clock.callLater, 0)
        self.log.start(self.room.deliver, lambda drafts, error: None)
        self.codec = CountingCodec()
        self.transports: dict[int, MemoryTransport] = {}
        self.hung_up: list[tuple[int, str]] = []

    def member(self, codec: LineCodec | None = None) -> Session:
        """Let somebody enter the room."""
        number = len(self.transports) + 1
        transport = MemoryTransport(IPv4Address("TCP", "127.0.0.1", number))
        outbox = WrappedOutbox(transport, HIGH_WATER, self.clock.seconds, lambda: session.drained())
        session = Session(
            number,
            codec or self.codec,
            outbox,
            lambda why: self.hung_up.append((number, why)),
            LOCAL,
            True,
            self.clock.seconds(),
        )
        self.transports[number] = transport
        session.place = self.room.enter(session)
        return session

    def slow_member(self) -> Session:
        """Let somebody enter who takes no bytes until it is told to `read_on`."""
        session = self.member()
        session.outbox.pauseProducing()
        return session

    def say(self, *texts: str, by: int = 0, sender: str = "") -> None:
        """Say something and let it be delivered."""
        self.log.append([Draft("lobby", Kind.SAID, sender, text, by) for text in texts])
        self.turn()

    def read_on(self, session: Session) -> None:
        """Let `session` take bytes again."""
        transport = self.transports[session.id]
        assert transport.producer is not None
        transport.producer.resumeProducing()
        self.turn()

    def turn(self) -> None:
        """Let turns of the reactor pass."""
        for _ in range(50):
            self.clock.advance(0)

    def read(self, session: Session) -> list[str]:
        """Return the lines that `session` has been sent since this was last asked."""
        transport = self.transports[session.id]
        lines: list[str] = transport.value().decode().splitlines()
        transport.clear()
        return lines


@pytest.fixture
def house() -> House:
    """An empty room."""
    return House()


def numbers(first: int, last: int) -> list[str]:
    """Return lines long enough that a few of them are above the high-water mark."""
    return [f"{number} {'x' * 100}" for number in range(first, last)]


def test_one_encoding_for_all(house: House) -> None:
    """A batch is encoded once, and everyone is given the same."""
    members = [house.member() for _ in range(50)]
    house.say("a", "b", "c")
    assert house.codec.encoded == 3
    assert all(house.read(member) == ["a", "b", "c"] for member in members)


def test_one_encoding_for_each_form(house: House) -> None:
    """Every wire form is encoded once, those nobody uses any more not at all."""
    crlf = CountingCodec(b"\r\n")
    one, two = house.member(), house.member(crlf)
    house.say("a")
    assert (house.codec.encoded, crlf.encoded) == (1, 1)
    assert (house.read(one), house.read(two)) == (["a"], ["a"])
    house.room.leave(two)
    house.say("b")
    assert (house.codec.encoded, crlf.encoded) == (2, 1)


def test_who_spoke_gets_the_rest(house: House) -> None:
    """Who spoke in a batch is given it without its own lines; the order is that of the others."""
    one, two, three = house.member(), house.member(), house.member()
    house.log.append(
        [Draft("lobby", Kind.SAID, "", f"{who}-{n}", who) for n in range(3) for who in (1, 2)]
    )
    house.turn()
    assert house.read(three) == ["1-0", "2-0", "1-1", "2-1", "1-2", "2-2"]
    assert house.read(one) == ["2-0", "2-1", "2-2"]
    assert house.read(two) == ["1-0", "1-1", "1-2"]
    assert one.outbox.lines_out == 3
    assert three.outbox.lines_out == 6


def test_ignored_senders(house: House) -> None:
    """Who ignores somebody is given a batch without that sender's lines, until it does not."""
    one = house.member()
    one.ignored = {"eve": None}
    house.room.choose(one)
    house.say("a", sender="Eve")
    house.say("b", sender="bob")
    assert house.read(one) == ["<bob> b"]
    one.ignored = {}
    house.room.choose(one)
    house.say("c", sender="Eve")
    assert house.read(one) == ["<Eve> c"]


def test_who_has_left_gets_nothing(house: House) -> None:
    """A session that has left is sent nothing more, and the others are."""
    one, two = house.member(), house.member()
    house.room.leave(one)
    house.say("a")
    assert (house.read(one), house.read(two)) == ([], ["a"])
    assert list(house.room.sessions) == [two]


def test_a_member_that_fails(house: House, logged_errors: LoggedErrors) -> None:
    """An error in sending to one ends that one only, is logged, and the others get the batch."""
    one, bad, three = house.member(), house.member(), house.member()
    # What a transport does that has lost its socket.
    house.transports[bad.id].io.close()
    house.say("a")
    assert house.hung_up == [(bad.id, "an error in the server")]
    assert (house.read(one), house.read(three)) == (["a"], ["a"])
    assert logged_errors.take(f"client {bad.id} failed")


def test_large_batches_are_cut(house: House) -> None:
    """What one turn brings is delivered in pieces, so that an outbox holds one of them at most."""
    slow, quick = house.slow_member(), house.member()
    texts = [f"{number} {'x' * 4000}" for number in range(500)]
    house.say(*texts)
    assert house.read(quick) == texts
    assert slow.outbox.queued < 200_000
    house.read_on(slow)
    assert house.read(slow) == texts


def test_slow_readers_share_pages(house: House) -> None:
    """Many who catch up through the same stretch cost one encoding of it."""
    slow = [house.slow_member() for _ in range(20)]
    texts = numbers(0, 2000)
    house.say(*texts[:10])
    house.say(*texts[10:])
    before = house.codec.encoded
    for member in slow:
        house.read_on(member)
    # The last page is open at its end: it is encoded again for whoever comes later.
    assert house.codec.encoded - before < 2000 + len(slow) * 256
    assert all(house.read(member) == texts for member in slow)


def test_shared_pages_meet(house: House) -> None:
    """Slow readers that fell behind at different places soon share their pages all the same."""
    slow = []
    for number in range(10):
        slow.append(house.slow_member())
        house.say(*numbers(number * 37, (number + 1) * 37))
    house.say(*numbers(370, 3000))
    before = house.codec.encoded
    for member in slow:
        house.read_on(member)
    assert house.codec.encoded - before < 3000 + len(slow) * 2 * 256
    for number, member in enumerate(slow):
        assert house.read(member) == numbers(number * 37, 3000)


def test_everything_is_lost() -> None:
    """Who reads on when the log has lost all that it missed is told the number, and is live."""
    clock = Clock()
    house = House(MemoryLog(clock, clock.seconds, recent=Recent(total_bytes=1)), clock)
    slow = house.slow_member()
    house.say(*numbers(0, 100))
    house.say(*numbers(100, 110))
    house.read_on(slow)
    lines = house.read(slow)
    missed = [line for line in lines if line.startswith("! ")]
    seen = len(lines) - len(missed)
    assert missed == [f"! {110 - seen} lines missed"]
    assert lines[:seen] == numbers(0, seen)
    house.say("live")
    assert house.read(slow) == ["live"]


def test_a_part_is_lost() -> None:
    """Who reads on when the log has lost a part is told the exact number before it goes on."""
    clock = Clock()
    recent = Recent(make_ring=lambda: Ring(max_events=100))
    house = House(MemoryLog(clock, clock.seconds, recent=recent), clock)
    slow = house.slow_member()
    for start in range(0, 1000, 10):
        house.say(*numbers(start, start + 10))
    house.read_on(slow)
    lines = house.read(slow)
    at = next(index for index, line in enumerate(lines) if line.startswith("! "))
    rest = lines[at + 1 :]
    assert lines[at] == f"! {1000 - at - len(rest)} lines missed"
    assert lines[:at] == numbers(0, at)
    assert rest == numbers(1000 - len(rest), 1000)
    assert len(rest) >= 100


def test_a_page_that_takes_its_time() -> None:
    """While a page is read, batches go on; when it comes it is sent, and nothing comes twice."""
    clock = Clock()
    log = SlowLog(clock, clock.seconds)
    house = House(log, clock)
    slow, quick = house.slow_member(), house.member()
    house.say(*numbers(0, 50))
    house.say(*numbers(50, 60))
    house.read_on(slow)
    assert len(log.asked) == 1
    house.say("meanwhile")
    assert house.read(quick)[-1] == "meanwhile"
    log.answer(house)
    assert house.read(slow) == [*numbers(0, 60), "meanwhile"]
    house.say("live")
    assert house.read(slow) == ["live"]


def test_leaving_while_a_page_is_read() -> None:
    """Who leaves while its page is being read is sent nothing of it, and nothing is logged; others
    who wait for the same page get it.
    """
    clock = Clock()
    log = SlowLog(clock, clock.seconds)
    house = House(log, clock)
    slow, other = house.slow_member(), house.slow_member()
    house.say(*numbers(0, 50))
    house.say(*numbers(50, 60))
    house.read_on(slow)
    house.read_on(other)
    house.read(slow)
    house.room.leave(slow)
    log.answer(house)
    assert house.read(slow) == []
    assert house.read(other) == numbers(0, 60)
    assert house.hung_up == []


def test_a_page_is_read_once_for_all() -> None:
    """Many who ask for the same page while it is being read cost one reading and one encoding."""
    clock = Clock()
    log = SlowLog(clock, clock.seconds)
    house = House(log, clock)
    slow = [house.slow_member() for _ in range(20)]
    house.say(*numbers(0, 50))
    house.say(*numbers(50, 60))
    before = house.codec.encoded
    for member in slow:
        house.read_on(member)
    assert len(log.asked) == 1
    log.answer(house)
    assert house.codec.encoded - before <= 10 + 50
    assert all(house.read(member) == numbers(0, 60) for member in slow)


def test_each_form_has_its_own_page() -> None:
    """Those who are sent another wire form are given the same page in that."""
    clock = Clock()
    log = SlowLog(clock, clock.seconds)
    house = House(log, clock)
    crlf = CountingCodec(b"\r\n")
    slow = [house.member(), house.member(crlf)]
    for member in slow:
        member.outbox.pauseProducing()
    house.say(*numbers(0, 50))
    house.say(*numbers(50, 60))
    for member in slow:
        house.read_on(member)
    log.answer(house)
    first, second = (house.transports[member.id].value() for member in slow)
    assert second == first.replace(b"\n", b"\r\n")
    assert [line.decode() for line in first.splitlines()] == numbers(0, 60)


def test_whoever_comes_later_reads_no_page_again() -> None:
    """The pages that one has caught up with are at hand for the next ones, but for the last."""
    clock = Clock()
    log = SlowLog(clock, clock.seconds)
    house = House(log, clock)
    slow = [house.slow_member() for _ in range(10)]
    texts = numbers(0, 2000)
    house.say(*texts[:10])
    house.say(*texts[10:])
    house.read_on(slow[0])
    log.answer(house)
    pages, encoded = log.pages, house.codec.encoded
    assert pages == 8
    for member in slow[1:]:
        house.read_on(member)
        log.answer(house)
    assert log.pages - pages == len(slow) - 1
    assert house.codec.encoded - encoded < len(slow) * PAGE_EVENTS
    assert all(house.read(member) == texts for member in slow)


def test_pages_are_kept_within_bounds() -> None:
    """However far somebody is behind, only the last pages stay at hand, and none for nobody."""
    clock = Clock()
    house = House(MemoryLog(clock, clock.seconds), clock)
    slow, other = house.slow_member(), house.slow_member()
    texts = [str(number) for number in range(PAGE_EVENTS * (STRETCHES + 4))]
    for start in range(0, len(texts), 1000):
        house.say(*texts[start : start + 1000])
    house.read_on(slow)
    house.turn()
    assert house.read(slow) == texts
    assert len(house.room._stretches) == STRETCHES
    house.read_on(other)
    house.turn()
    assert house.read(other) == texts
    assert house.room._stretches == {}


def test_what_is_stored_but_not_delivered() -> None:
    """What a page holds beyond what was delivered is left to its batch: nothing comes twice."""
    clock = Clock()
    log = AheadLog(clock, clock.seconds)
    house = House(log, clock)
    slow, quick = house.slow_member(), house.member()
    house.say(*numbers(0, 50))
    house.say(*numbers(50, 60))
    log.is_ahead = True
    house.say("stored")
    house.read_on(slow)
    assert house.read(slow) == house.read(quick) == numbers(0, 60)
    log.deliver_rest()
    assert house.read(slow) == house.read(quick) == ["stored"]


def test_a_store_that_cannot_be_read_now() -> None:
    """Who catches up while the store cannot be read waits a second, and then goes on."""
    clock = Clock()
    log = SlowLog(clock, clock.seconds)
    house = House(log, clock)
    slow = [house.slow_member(), house.slow_member()]
    house.say(*numbers(0, 50))
    house.say(*numbers(50, 60))
    for member in slow:
        house.read_on(member)
    log.asked.pop().errback(StoreError("the disk reports an error"))
    house.turn()
    assert log.asked == []
    house.clock.advance(RETRY)
    log.answer(house)
    assert house.hung_up == []
    assert all(house.read(member) == numbers(0, 60) for member in slow)


def test_a_log_that_cannot_be_read(logged_errors: LoggedErrors) -> None:
    """Who catches up when the log cannot be read is hung up on, and the error is logged."""
    clock = Clock()
    log = SlowLog(clock, clock.seconds)
    house = House(log, clock)
    slow, quick = house.slow_member(), house.member()
    house.say(*numbers(0, 50))
    house.say(*numbers(50, 60))
    house.read_on(slow)
    log.asked.pop().errback(OSError("the disk is gone"))
    assert [who for who, _ in house.hung_up] == [slow.id]
    assert logged_errors.take("the disk is gone")
    house.read(quick)
    house.say("still here")
    assert house.read(quick) == ["still here"]


def test_a_stretch_selects() -> None:
    """A stretch tells what it holds, for everyone and for who wants a part of it."""
    events = [
        Event(number, number, 0.0, "lobby", Kind.SAID, "", str(number), number, 0, "")
        for number in (1, 2, 3)
    ]
    stretch = Stretch(events, LineCodec(b"\n"))
    house = House()
    first, other = house.member(), house.member()
    house.room.leave(other)
    assert stretch.for_everyone() == (b"1\n2\n3\n", 3)
    assert stretch.for_session(first) == (b"2\n3\n", 2)
    other.id = 99  # has sent none of them
    assert stretch.for_session(other)[0] is stretch.for_everyone()[0]


def test_a_cursor_that_is_live_reads_nothing(house: House) -> None:
    """A live cursor has nothing to catch up with."""
    session = house.member()
    cursor = session.place
    assert isinstance(cursor, Cursor)
    cursor.catch_up()
    assert cursor.reading is None
