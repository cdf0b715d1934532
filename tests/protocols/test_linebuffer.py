"""Bytes in pieces of any size, lines out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatproto.errors import LineTooLong, StreamError
from chatproto.protocols.linebuffer import LineBuffer

MAX = 16
"""The longest line of the buffers in these tests, in bytes."""

ENDLESS = 64 * 1024
"""Bytes without a line end that end a connection."""

READ = 64 * 1024
"""The most that comes from the network at once."""

NEGOTIATION = b"\xff\xfd\x03\xff\xfa\x18\x00vt100\xff\xf0\xff\xfb\x18"
"""Telnet commands of both lengths, and a subnegotiation."""

streams = st.lists(
    st.one_of(
        st.sampled_from(
            [b"\n", b"\r\n", b"\r", b"a", NEGOTIATION, "ß".encode(), b"x" * 15, b"x" * 16]
        ),
        st.sampled_from([b"x" * 17, b"x" * 18, b"x" * 40]),
        st.binary(max_size=5).map(lambda data: data.replace(b"\xff", b"")),
    ),
    max_size=30,
)
cuts = st.lists(st.integers(1, 25), max_size=60)


def pieces(stream: bytes, lengths: list[int]) -> Iterator[bytes]:
    """Yield `stream` in pieces of these lengths, and the rest."""
    for length in lengths:
        yield stream[:length]
        stream = stream[length:]
    for start in range(0, len(stream), READ):
        yield stream[start : start + READ]


def taken(buffer: LineBuffer) -> Iterator[bytes | str]:
    """Take all complete lines: each a line, or the words of an error."""
    while buffer.has_line():
        try:
            yield buffer.take()
        except LineTooLong as error:
            yield error.sentence


def new(decided: bool, max_line: int = MAX) -> LineBuffer:
    """Return a buffer of a client that is known to send lines, or not known yet."""
    buffer = LineBuffer(max_line)
    if decided:
        buffer.expect_lines()
    return buffer


def read(parts: Iterable[bytes], buffer: LineBuffer | None = None) -> list[bytes | str]:
    """Return what a client that sends these parts has said, as its server takes it."""
    if buffer is None:
        buffer = new(decided=True)
    lines: list[bytes | str] = []
    for part in parts:
        buffer.feed(part)
        lines += taken(buffer)
        buffer.trim()
    return lines


def too_long(length: int) -> str:
    """Return what a line of that many bytes is told."""
    return f"this line has {length} bytes, at most {MAX} are allowed: not sent"


def expected(stream: bytes) -> list[bytes | str]:
    """Return the lines of `stream` by the book: each up to its LF, without telnet commands."""
    *lines, _ = stream.replace(NEGOTIATION, b"").split(b"\n")
    lengths = [len(line.removesuffix(b"\r")) for line in lines]
    return [
        line if length <= MAX else too_long(length)
        for line, length in zip(lines, lengths, strict=True)
    ]


@settings(deadline=None)
@given(streams, cuts, st.booleans())
@example([b"x" * 17, b"\r\n"], [18], True)
@example([b"x" * 18, b"\r\n"], [19], True)
@example([b"x" * 16, b"\r\n"], [17], True)
@example([b"x" * 40, b"\r", b"x\r\n"], [41], True)
def test_any_pieces_give_the_same_lines(
    parts: list[bytes], lengths: list[int], decided: bool
) -> None:
    """However a stream is cut, its lines and errors are the same, byte for byte, word for word."""
    stream = b"".join(parts)
    assert read(pieces(stream, lengths), new(decided)) == expected(stream)


@settings(deadline=None)
@given(streams, cuts, st.booleans())
@example([b"x" * 17, b"\r\n"], [18], True)
def test_the_ending_is_told_in_any_pieces(
    parts: list[bytes], lengths: list[int], decided: bool
) -> None:
    """After each line one can tell whether it ended in CRLF, also when it was too long."""
    stream = b"".join(parts)
    buffer = new(decided)
    endings = []
    for piece in pieces(stream, lengths):
        buffer.feed(piece)
        for _ in taken(buffer):
            endings.append(buffer.crlf)
        buffer.trim()
    lines = stream.replace(NEGOTIATION, b"").split(b"\n")[:-1]
    assert endings == [line.endswith(b"\r") for line in lines]


@settings(deadline=None)
@given(streams, st.booleans())
def test_byte_by_byte(parts: list[bytes], decided: bool) -> None:
    """One byte in each packet gives the same lines."""
    stream = b"".join(parts)
    single = (stream[at : at + 1] for at in range(len(stream)))
    assert read(single, new(decided)) == expected(stream)


@settings(deadline=None)
@given(streams, cuts, st.lists(st.integers(0, 3), max_size=60))
def test_lines_may_be_taken_whenever(
    parts: list[bytes], lengths: list[int], counts: list[int]
) -> None:
    """A slow taker gets the same lines: what waits is kept while more comes."""
    stream = b"".join(parts)
    buffer = LineBuffer(MAX)
    lines: list[bytes | str] = []
    turns = iter(counts)
    for piece in pieces(stream, lengths):
        buffer.feed(piece)
        lines += islice(taken(buffer), next(turns, 0))
        buffer.trim()
    lines += taken(buffer)
    assert lines == expected(stream)


@settings(deadline=None)
@given(streams, cuts)
def test_pending_counts_the_lines(parts: list[bytes], lengths: list[int]) -> None:
    """What is told to wait is as many lines as then come."""
    buffer = LineBuffer(MAX)
    for piece in pieces(b"".join(parts), lengths):
        buffer.feed(piece)
        pending = buffer.pending()
        assert buffer.has_line() == (pending > 0)
        assert len([*taken(buffer)]) == pending
        assert buffer.pending() == 0


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_the_longest_line_is_a_line(ending: bytes) -> None:
    """A line of exactly the limit is taken, with either ending; one byte more is told."""
    assert read([b"x" * MAX + ending]) == [(b"x" * MAX + ending)[:-1]]
    assert read([b"x" * (MAX + 1) + ending + b"next\n"]) == [too_long(MAX + 1), b"next"]


@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("size", [MAX + 1, MAX + 2, 1000, ENDLESS - 1])
def test_after_a_long_line_the_next_is_taken(size: int, decided: bool) -> None:
    """A line above the limit costs one error with its length, and the line after it is taken."""
    stream = b"x" * size + b"\nnext\n"
    for piece in (1 if size < 2000 else 1000, 1448, READ):
        parts = (stream[at : at + piece] for at in range(0, len(stream), piece))
        assert read(parts, new(decided)) == [too_long(size), b"next"]


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=40), st.lists(st.integers(1, 30_000), max_size=10), st.booleans())
def test_a_line_without_an_end_is_an_error(
    before: bytes, lengths: list[int], decided: bool
) -> None:
    """64 KiB without a line end are given up, after whatever and in whatever pieces."""
    before = before.replace(b"\xff", b"").replace(b"\r", b"") + b"\n"
    buffer = new(decided)
    with pytest.raises(StreamError, match="without a line end"):
        read(pieces(before + b"x" * ENDLESS, lengths), buffer)


@pytest.mark.parametrize("piece", [1000, 16_384, READ])
def test_what_never_ends_takes_no_memory(piece: int) -> None:
    """What is too long to be a line is counted, not kept: a client costs one read at most."""
    buffer = new(decided=True, max_line=4096)
    tracemalloc.start()
    try:
        for _ in range((ENDLESS - 1) // piece):
            buffer.feed(b"x" * piece)
            kept, _ = tracemalloc.get_traced_memory()
            assert kept < 4096 + piece
    finally:
        tracemalloc.stop()
    assert not buffer.has_line()


def test_a_long_line_in_negotiation_is_still_long() -> None:
    """Telnet commands inside a line do not count for its length, nor do they reset it."""
    half = b"x" * (MAX // 2)
    assert read([half + NEGOTIATION + half + b"\n"]) == [half + half]
    assert read([half + NEGOTIATION, half + b"x" + NEGOTIATION + b"\n"]) == [too_long(MAX + 1)]


def test_an_endless_negotiation_is_an_error() -> None:
    """A telnet command that does not end is given up as well, here as in `Telnet`."""
    with pytest.raises(StreamError, match="telnet"):
        read([b"hello\n\xff\xfa" + b"x" * 5000])


class TestRest:
    """A last line without an ending."""

    @pytest.mark.parametrize("parts", [[b"one\ntwo"], [b"one\n", b"tw", b"o"]])
    def test_it_is_taken(self, parts: list[bytes]) -> None:
        """It is a line like others, and then nothing is left."""
        buffer = LineBuffer(MAX)
        assert read(parts, buffer) == [b"one"]
        assert buffer.has_rest()
        assert buffer.peek() == b"two"
        assert buffer.take_rest() == b"two"
        assert buffer.peek() == b""
        assert not buffer.has_rest()
        assert not buffer.has_line()

    @pytest.mark.parametrize("size", [MAX + 1, MAX + 2, MAX + 3, 1000])
    @pytest.mark.parametrize("piece", [1, READ])
    @pytest.mark.parametrize("decided", [False, True])
    def test_it_may_be_too_long(self, size: int, piece: int, decided: bool) -> None:
        """It is told like others when it is too long, however much of it was kept."""
        buffer = new(decided)
        stream = b"x" * size
        read((stream[at : at + piece] for at in range(0, size, piece)), buffer)
        assert buffer.has_rest()
        with pytest.raises(LineTooLong) as caught:
            buffer.take_rest()
        assert caught.value.sentence == too_long(size)

    def test_it_may_be_empty(self) -> None:
        """After a complete line nothing is left."""
        buffer = LineBuffer(MAX)
        assert read([b"one\n"], buffer) == [b"one"]
        assert not buffer.has_rest()
        assert buffer.take_rest() == b""

    @pytest.mark.parametrize("take", [0, 1, 2])
    def test_it_can_be_dropped(self, take: int) -> None:
        """What a broken connection cut off is forgotten; the complete lines before it are not."""
        buffer = LineBuffer(MAX)
        buffer.feed(b"one\ntwo\nthr")
        lines = [*islice(taken(buffer), take)]
        buffer.drop_rest()
        assert [*lines, *taken(buffer)] == [b"one", b"two"]
        assert buffer.peek() == b""

    def test_of_nothing_it_can_be_dropped(self) -> None:
        """Where no line is complete, nothing is left."""
        buffer = LineBuffer(MAX)
        buffer.feed(b"thr")
        buffer.drop_rest()
        assert buffer.peek() == b""


def test_peeking_takes_nothing() -> None:
    """What is there can be looked at, and is taken afterwards all the same."""
    buffer = LineBuffer(MAX)
    buffer.feed(b"one\ntwo\n")
    assert buffer.peek() == b"one\ntwo\n"
    assert buffer.take() == b"one"
    assert buffer.peek() == b"two\n"
    assert buffer.take() == b"two"


def test_clearing_forgets_everything() -> None:
    """What is forgotten does not come back, and what comes later is taken."""
    buffer = LineBuffer(MAX)
    buffer.feed(b"one\ntwo")
    buffer.clear()
    assert (buffer.peek(), buffer.has_line(), buffer.pending()) == (b"", False, 0)
    assert read([b"three\n"], buffer) == [b"three"]


def test_what_was_cut_off_does_not_count_for_the_next() -> None:
    """After a long line was forgotten in its middle, a new one starts from nothing."""
    for forget in (LineBuffer.clear, LineBuffer.drop_rest):
        buffer = new(decided=True)
        buffer.feed(b"x" * (MAX + 5))
        forget(buffer)
        assert not buffer.has_rest()
        assert read([b"hello\n"], buffer) == [b"hello"]


@pytest.mark.parametrize("max_line", [MAX, 4096, ENDLESS])
@pytest.mark.parametrize("piece", [1, 1448, READ])
def test_the_beginning_of_the_first_line_can_be_looked_at(piece: int, max_line: int) -> None:
    """To tell what a client speaks, the beginning of its first line is kept, however long it is."""
    buffer = new(decided=False, max_line=max_line)
    first = b"POST /" + b"x" * 8000
    for at in range(0, len(first), piece):
        buffer.feed(first[at : at + piece])
        seen = buffer.head or buffer.peek()
        assert first.startswith(seen)
        assert len(seen) >= min(at + piece, len(first), 4096)


def test_the_beginning_is_forgotten_with_its_line() -> None:
    """What was kept of a long line does not stand in for the next one."""
    buffer = new(decided=True)
    buffer.feed(b"x" * 5000)
    assert buffer.head
    buffer.feed(b"\n")
    assert [*taken(buffer)] == [too_long(5000)]
    assert not buffer.head
