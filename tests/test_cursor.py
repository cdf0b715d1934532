"""Slow readers: what they miss stays in the log, and they catch up with it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

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
