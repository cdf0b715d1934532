"""Slow readers: what they miss stays in the log, and they catch up with it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from chatproto.cursor import RETRY, UNKNOWN, Cursor
from chatproto.errors import StoreError
from chatproto.model import Page
from chatproto.stores import Store
from chatproto.stores.memory import LocalNames, MemoryDirectory, MemoryLog
from chatproto.stores.ring import RING_BYTES, RING_EVENTS
from chatproto.testing import Client, World

HIGH_WATER = 1024
"""Bytes of the high-water mark in these worlds."""


def small_world() -> World:
    """Return a world without pacing where little is enough to fall behind."""
    return World(rate=0, high_water=HIGH_WATER // 1024)


def talk(world: World, speaker: Client, numbers: range, size: int = 100) -> None:
    """Say so many numbered lines of about `size` bytes, each in a turn of its own."""
    for number in numbers:
        speaker.feed(b"%d %s\n" % (number, b"x" * size))
        world.turn(2)
    catch_up(world)


def take_some(client: Client) -> None:
    """Let `client` take bytes again, before the server has its next turn."""
    assert client.transport.producer is not None
    client.transport.producer.resumeProducing()


def catch_up(world: World) -> None:
    """Let everyone who reads have all there is."""
    world.turn(20)
    while any(
        cursor.reading is not None or not client.protocol.session.outbox.busy
        for client in world.clients
        if client.is_connected
        for cursor in client.protocol.session.behind
    ):
        world.turn(20)


def heard(client: Client) -> list[int]:
    """Return the numbers of the lines that `client` has been sent since this was last asked."""
    return [int(number) for number in re.findall(rb"(?m)^(?:<\w+> )?(\d+) X", client.received())]


def test_nobody_waits_for_a_slow_reader() -> None:
    """While one reads nothing, the others get every line at once."""
    world = small_world()
    speaker, slow, other = world.client(), world.client(), world.client()
    slow.stop_reading()
    for number in range(200):
        talk(world, speaker, range(number, number + 1))
        assert heard(other) == [number]
    assert heard(slow) == []


def test_memory_is_bounded() -> None:
    """However much is said, what waits for a slow reader stays the same."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    outbox = slow.protocol.session.outbox
    talk(world, speaker, range(100))
    queued = outbox.queued
    assert HIGH_WATER <= queued < 2 * HIGH_WATER
    talk(world, speaker, range(100, 2000))
    assert outbox.queued == queued
    assert slow.transport.value() == b""


@pytest.mark.parametrize("size", [1, 100, 4000])
def test_catching_up(size: int) -> None:
    """When a slow reader reads on it gets all that it missed: in order, nothing twice."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    talk(world, speaker, range(10), size)
    slow.stop_reading()
    talk(world, speaker, range(10, 700), size)
    assert heard(slow) == list(range(10))
    slow.read_on()
    catch_up(world)
    missed = heard(slow)
    assert missed == list(range(10, 700))
    talk(world, speaker, range(700, 710), 100)
    assert heard(slow) == list(range(700, 710))
    assert not slow.protocol.session.behind


def test_while_others_go_on() -> None:
    """What is said while somebody catches up comes after what it missed."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(600))
    take_some(slow)
    for number in range(600, 620):
        speaker.feed(b"%d x\n" % number)
        world.turn(1)
    catch_up(world)
    assert heard(slow) == list(range(620))


def test_pausing_again() -> None:
    """A slow reader may stop again and again on its way: nothing is lost, nothing comes twice."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    numbers: list[int] = []
    for start in range(0, 3000, 300):
        slow.stop_reading()
        talk(world, speaker, range(start, start + 300))
        take_some(slow)
        world.turn(1)
        numbers += heard(slow)
    slow.read_on()
    catch_up(world)
    assert numbers + heard(slow) == list(range(3000))


def test_own_lines_are_left_out() -> None:
    """What a slow reader itself has said is not among what it catches up with."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    for start in range(0, 400, 20):
        talk(world, speaker, range(start, start + 10))
        talk(world, slow, range(start + 10, start + 20))
    assert heard(speaker) == [number for number in range(400) if number % 20 >= 10]
    slow.read_on()
    catch_up(world)
    assert heard(slow) == [number for number in range(400) if number % 20 < 10]


def test_the_ignored_are_left_out() -> None:
    """What an ignored nick says is left out of what one catches up with."""
    world = small_world()
    alice, bob, slow = world.named("alice"), world.named("bob"), world.client()
    slow.send(b"/ignore alice\n")
    slow.received()
    slow.stop_reading()
    for start in range(0, 400, 20):
        talk(world, alice, range(start, start + 10))
        talk(world, bob, range(start + 10, start + 20))
    slow.read_on()
    catch_up(world)
    assert heard(slow) == [number for number in range(400) if number % 20 >= 10]


def test_answers_come_while_one_is_behind() -> None:
    """A slow reader's commands are answered, and it still misses nothing."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(100))
    slow.send(b"/nick slow\n")
    slow.read_on()
    catch_up(world)
    data = slow.transport.value()
    assert data.count(b"-> you are now slow\n") == 1
    assert heard(slow) == list(range(100))


def test_private_messages_wait_as_well() -> None:
    """Private messages to a slow reader are bounded and caught up with like everything else."""
    world = small_world()
    alice, slow = world.named("alice"), world.named("slow")
    slow.stop_reading()
    for number in range(300):
        alice.send(b"/msg slow %d %s\n" % (number, b"x" * 100))
    assert slow.protocol.session.outbox.queued < 2 * HIGH_WATER
    slow.read_on()
    catch_up(world)
    words = re.findall(rb"(?m)^\[alice\] (\d+) x", slow.received())
    assert [int(word) for word in words] == list(range(300))
    alice.send(b"/msg slow live\n")
    assert slow.received() == b"[alice] live\n"


def test_another_ending_while_behind() -> None:
    """Who shows its line ending while it is behind misses nothing and gets that ending."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(100))
    slow.send(b"/list\r\n")
    slow.read_on()
    catch_up(world)
    talk(world, speaker, range(100, 101))
    assert slow.transport.value().endswith(b"X\r\n")
    assert heard(slow) == list(range(101))


def test_moving_while_behind() -> None:
    """Who moves to another room while it is behind gets nothing of the old one any more."""
    world = small_world()
    speaker, slow, den = world.client(), world.client(), world.client()
    den.send(b"/join den\n")
    slow.stop_reading()
    talk(world, speaker, range(100))
    slow.send(b"/join den\n")
    talk(world, speaker, range(100, 200))
    talk(world, den, range(1000, 1200))
    slow.read_on()
    catch_up(world)
    numbers = heard(slow)
    old = [number for number in numbers if number < 1000]
    assert old == list(range(len(old)))
    assert len(old) < 100
    assert numbers[len(old) :] == list(range(1000, 1200))


def test_leaving_while_behind() -> None:
    """Who is gone while it is behind leaves nothing behind."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(100))
    slow.reset()
    talk(world, speaker, range(100, 110))
    assert len(world.factory.protocols) == 1
    speaker.send(b"/list\n")
    assert speaker.received() == b"-> in lobby: 1 without a nick\n"


@pytest.mark.parametrize("size", [4000, 5])
def test_falling_off(size: int) -> None:
    """Who is so slow that the log has lost what comes next is told how many lines it missed."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    count = 3 * RING_BYTES // size if size > 1000 else 3 * RING_EVENTS
    for number in range(count):
        speaker.feed(b"%d %s\n" % (number, b"x" * size))
        if number % 32 == 0:
            world.turn(3)
    slow.read_on()
    catch_up(world)
    data = slow.transport.value()
    numbers = heard(slow)
    missed = [int(number) for number in re.findall(rb"(?m)^! (\d+) lines missed$", data)]
    assert len(missed) == 1
    assert numbers == sorted(set(numbers))
    assert len(numbers) + missed[0] == count
    before = data[: data.index(b"! ")].count(b"\n")
    assert numbers[:before] == list(range(before))
    assert numbers[before:] == list(range(before + missed[0], count))
    talk(world, speaker, range(count, count + 3))
    assert heard(slow) == list(range(count, count + 3))


def test_it_is_logged() -> None:
    """That a client caught up is logged, with its id and how much it was."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(100))
    held = slow.protocol.session.outbox.lines_out
    with capturedLogs() as logged:
        slow.read_on()
        catch_up(world)
    client = slow.protocol.session.id
    assert [formatEvent(event) for event in logged] == [
        f"client {client} caught up with {100 - held} lines"
    ]


# Held.


def place(client: Client) -> Cursor:
    """Return the place of `client` in its room."""
    cursor = client.protocol.session.place
    assert isinstance(cursor, Cursor)
    return cursor


def test_holding() -> None:
    """A cursor that is held is given nothing; what was said meanwhile comes when it goes on."""
    world = small_world()
    speaker, other, reader = world.client(), world.client(), world.client()
    talk(world, speaker, range(2))
    cursor = place(reader)
    cursor.hold()
    assert not cursor.is_live
    talk(world, speaker, range(2, 5))
    assert heard(reader) == [0, 1]
    assert heard(other) == [0, 1, 2, 3, 4]
    cursor.resume()
    catch_up(world)
    assert cursor.is_live
    talk(world, speaker, range(5, 7))
    assert heard(reader) == [2, 3, 4, 5, 6]


def test_holding_several_times() -> None:
    """Who was held twice goes on when it was let go twice, also when it is late in between."""
    world = small_world()
    speaker, reader = world.client(), world.client()
    cursor = place(reader)
    cursor.hold()
    talk(world, speaker, range(3))
    cursor.hold()
    cursor.resume()
    talk(world, speaker, range(3, 600))
    assert heard(reader) == []
    cursor.resume()
    catch_up(world)
    assert heard(reader) == list(range(600))
    talk(world, speaker, range(600, 602))
    assert heard(reader) == [600, 601]


def test_holding_who_is_behind() -> None:
    """Who is held while it catches up goes on from where it was: nothing is lost or doubled."""
    world = small_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(1000))
    cursor = place(slow)
    cursor.hold()
    slow.read_on()
    catch_up(world)
    before = heard(slow)
    assert before == list(range(len(before)))
    assert len(before) < 100
    assert not cursor.session.behind
    cursor.resume()
    catch_up(world)
    assert before + heard(slow) == list(range(1000))


def test_leaving_while_held() -> None:
    """Who has moved to another room while it was held gets nothing of the old one."""
    world = small_world()
    speaker, reader = world.client(), world.client()
    cursor = place(reader)
    cursor.hold()
    talk(world, speaker, range(5))
    reader.send(b"/join den\n")
    cursor.resume()
    talk(world, speaker, range(5, 10))
    assert heard(reader) == []
    assert place(reader) is not cursor
    assert not reader.protocol.session.behind


def test_holding_where_nothing_is_known() -> None:
    """Who is held before anything was delivered in its room misses nothing, and is told of none."""
    world = small_world()
    early = world.client()
    talk(world, early, range(50))
    early.close()
    reader, speaker = world.client(), world.client()
    cursor = place(reader)
    assert cursor.room.seq == UNKNOWN
    cursor.hold()
    talk(world, speaker, range(50, 53))
    cursor.resume()
    catch_up(world)
    data = reader.transport.value()
    assert b"missed" not in data
    assert heard(reader) == [50, 51, 52]


def test_holding_for_nothing() -> None:
    """Who is held while nothing is said is live again at once."""
    world = small_world()
    reader, speaker = world.client(), world.client()
    cursor = place(reader)
    cursor.hold()
    cursor.resume()
    catch_up(world)
    assert cursor.is_live
    talk(world, speaker, range(1))
    assert heard(reader) == [0]


def test_the_place() -> None:
    """The place is what was given in order: the head while live, where it stands while not, and
    while the past is shown the last of that.
    """
    world = small_world()
    speaker, reader = world.client(), world.client()
    cursor = place(reader)
    moves: list[tuple[bool, int]] = []
    cursor.tell_place = lambda moved: moves.append((moved.is_live, moved.place))
    talk(world, speaker, range(2))
    assert cursor.place == cursor.room.head == 2
    cursor.hold()
    talk(world, speaker, range(2, 5))
    assert (cursor.place, cursor.room.head) == (2, 5)
    cursor.shown = 1
    assert cursor.place == 1
    cursor.shown = None
    cursor.resume()
    catch_up(world)
    assert cursor.place == 5
    assert moves == [(True, 5)]
    reader.stop_reading()
    talk(world, speaker, range(5, 50))
    assert moves[1:] == [(False, cursor.position)]
    assert 5 < cursor.place < 50
    reader.read_on()
    catch_up(world)
    assert moves[2:] == [(True, 50)]


# The store cannot be read.


class Unreadable(MemoryLog):
    """A log that cannot be read while its disk fails."""

    def __init__(self, clock: Clock, now: Callable[[], float]) -> None:
        """Begin with a disk that works."""
        super().__init__(clock, now)
        self.error: Exception | None = None
        self.asked = 0

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Fail, if the disk does."""
        self.asked += 1
        if self.error is not None:
            return fail(self.error)
        return super().page(room, after=after, before=before, limit=limit)


def unreadable_world() -> tuple[World, Unreadable]:
    """Return a small world, and its log, whose disk can fail."""
    logs: list[Unreadable] = []

    def make_store(clock: Clock, now: Callable[[], float]) -> Store:
        logs.append(Unreadable(clock, now))
        return Store(logs[0], MemoryDirectory(), LocalNames())

    return World(make_store=make_store, rate=0, high_water=HIGH_WATER // 1024), logs[0]


def test_a_store_that_cannot_be_read() -> None:
    """While the store cannot be read who is behind waits, asking once a second; nothing is lost."""
    world, log = unreadable_world()
    speaker, quick, slow = world.client(), world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(100))
    log.error = StoreError("the disk reports an error")
    slow.read_on()
    world.turn(20)
    asked = log.asked
    for _ in range(3):
        world.wait(RETRY)
    assert log.asked == asked + 3
    assert slow.is_connected
    speaker.send(b"100 x\n101 x\n")
    assert heard(quick) == list(range(102))
    log.error = None
    world.wait(RETRY)
    catch_up(world)
    assert heard(slow) == list(range(102))


def test_leaving_while_the_store_cannot_be_read() -> None:
    """For who has left while its page could not be read nobody asks any more."""
    world, log = unreadable_world()
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    talk(world, speaker, range(100))
    log.error = StoreError("the disk reports an error")
    slow.read_on()
    slow.reset()
    asked = log.asked
    world.wait(RETRY)
    world.wait(RETRY)
    assert log.asked == asked


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 2), st.sampled_from([1, 5, 40])),
        st.tuples(st.just("stop"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("read on"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("turn"), st.just(0), st.integers(1, 3)),
    ),
    min_size=5,
    max_size=40,
)


@given(steps=STEPS, size=st.sampled_from([1, 60, 900]))
def test_any_interleaving(steps: list[tuple[str, int, int]], size: int) -> None:
    """Whoever speaks, pauses and reads on in whatever order: everyone has the same order, and
    nobody misses a line, hears itself, or hears anything twice.
    """
    world = small_world()
    endings = [b"\n", b"\r\n", b"\n"]
    clients = [world.client(), world.client(), world.client()]
    clients[2].send(b"/nick third\n")
    witness = world.client()
    said: list[list[bytes]] = [[], [], []]
    for what, who, count in steps:
        client = clients[who]
        if what == "say":
            for _ in range(count):
                line = b"%d:%d:%s" % (who, len(said[who]), b"X" * size)
                said[who].append(line)
                client.feed(line + endings[who])
        elif what == "stop":
            client.stop_reading()
        elif what == "read on":
            take_some(client)
        else:
            world.turn(count)
    for client in clients:
        client.read_on()
    world.turn(len(steps) * 2)
    catch_up(world)

    def lines(client: Client) -> list[bytes]:
        return re.findall(rb"(?m)^(?:<third> )?(\d:\d+:X+)\r?$", client.received())

    order = lines(witness)
    for who, client in enumerate(clients):
        prefix = b"%d:" % who
        assert [line for line in order if line.startswith(prefix)] == said[who]
        assert lines(client) == [line for line in order if not line.startswith(prefix)]
    assert len(order) == sum(map(len, said))
