"""What a client of the line protocol reads."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from chatproto.codec import Codec
from chatproto.model import Event, Kind
from chatproto.protocols.linecodec import CRLF, LF, LineCodec

WHEN = 1_700_000_000.0
"""When everything here happened: 2023-11-14 22:13:20 UTC."""

DAY = 86_400.0


def event(kind: Kind, text: str = "", sender: str = "alice", here: int = 0, to: str = "") -> Event:
    """Return an event of that kind."""
    return Event(1, 1, WHEN, "lobby", kind, sender, text, 7, here, to)


SHOWN = [
    (event(Kind.SAID, "HELLO", sender=""), "HELLO"),
    (event(Kind.SAID, "", sender=""), ""),
    (event(Kind.SAID, "HELLO"), "<alice> HELLO"),
    (event(Kind.SAID, "GRÜSSE"), "<alice> GRÜSSE"),
    (event(Kind.ACTION, "WAVES"), "* alice WAVES"),
    (event(Kind.JOINED, here=3), "* alice joined (3 here)"),
    (event(Kind.LEFT, here=2), "* alice left (2 here)"),
    (event(Kind.LEFT, "good night", here=2), "* alice left (2 here): good night"),
    (event(Kind.RENAMED, "bob"), "* alice is now bob"),
    (event(Kind.TOPIC, "cats"), "* alice set the topic: cats"),
    (event(Kind.PRIVATE, "psst", to="bob"), "[alice] psst"),
    (event(Kind.KICKED, here=2, to="eve"), "* eve was put out by alice (2 here)"),
    (event(Kind.KICKED, "noise", here=2, to="eve"), "* eve was put out by alice (2 here): noise"),
    (event(Kind.ANNOUNCED, "tea at 5"), "* alice announces: tea at 5"),
]
"""Every kind of event, and its line."""


@pytest.fixture(params=[(LF, b"\n"), (CRLF, b"\r\n")], ids=["LF", "CRLF"])
def codec_and_ending(request: pytest.FixtureRequest) -> tuple[LineCodec, bytes]:
    """Return each codec with the ending of its lines."""
    pair: tuple[LineCodec, bytes] = request.param
    return pair


@pytest.fixture
def local_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return what moves this process to a time zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("shown", "line"), SHOWN)
def test_an_event_is_a_line(
    shown: Event, line: str, codec_and_ending: tuple[LineCodec, bytes]
) -> None:
    """Each kind of event has its form, in UTF-8, with the client's line ending."""
    codec, ending = codec_and_ending
    assert codec.lines([shown]) == [line.encode() + ending]


def test_every_kind_is_shown() -> None:
    """No kind of event lacks its form."""
    assert {shown.kind for shown, _ in SHOWN} == set(Kind)


def test_a_batch_is_a_line_for_each_event(codec_and_ending: tuple[LineCodec, bytes]) -> None:
    """The lines of a batch are the lines of its events, in order, one for each."""
    codec, ending = codec_and_ending
    assert codec.lines([shown for shown, _ in SHOWN]) == [
        line.encode() + ending for _, line in SHOWN
    ]
    assert codec.lines([]) == []


def test_a_private_message_as_its_sender_sees_it(
    codec_and_ending: tuple[LineCodec, bytes],
) -> None:
    """The sender sees to whom it went."""
    codec, ending = codec_and_ending
    assert (
        codec.sent(event(Kind.PRIVATE, "psst ü", to="bob")) == "[to bob] psst ü".encode() + ending
    )


def test_the_servers_own_words(codec_and_ending: tuple[LineCodec, bytes]) -> None:
    """Answers, errors and notices each have a mark of their own."""
    codec, ending = codec_and_ending
    assert codec.answer("you are ü") == "-> you are ü".encode() + ending
    assert codec.error("too long") == b"! too long" + ending
    assert codec.notice("the server is stopping") == b"* the server is stopping" + ending


def test_several_lines_are_each_marked(codec_and_ending: tuple[LineCodec, bytes]) -> None:
    """An answer or a notice of several lines has the mark and the ending on each of them."""
    codec, ending = codec_and_ending
    assert codec.answer("a\n\nb") == ending.join([b"-> a", b"-> ", b"-> b", b""])
    assert codec.notice("a\nb") == ending.join([b"* a", b"* b", b""])


@pytest.mark.parametrize(("shown", "line"), SHOWN)
@pytest.mark.parametrize(("zone", "clock"), [("UTC0", "22:13:20"), ("XXX-5:30", "03:43:20")])
def test_history_has_the_time_of_day(
    shown: Event, line: str, zone: str, clock: str, local_time: Callable[[str], None]
) -> None:
    """A line of history is the event's own form behind the local time of day."""
    local_time(zone)
    assert LF.past(shown, WHEN) == CRLF.past(shown, WHEN) == f"{clock} {line}"


@pytest.mark.parametrize(
    ("zone", "later", "when"),
    [
        ("UTC0", 0.0, "22:13:20"),
        ("UTC0", 6399.0, "22:13:20"),
        ("UTC0", 6400.0, "2023-11-14 22:13:20"),
        ("UTC0", 30 * DAY, "2023-11-14 22:13:20"),
        ("UTC0", 365 * DAY, "2023-11-14 22:13:20"),
        ("UTC0", -DAY, "2023-11-14 22:13:20"),
        ("XXX-5:30", 6400.0, "03:43:20"),
        ("XXX-5:30", DAY, "2023-11-15 03:43:20"),
    ],
)
def test_history_of_another_day_has_the_date(
    zone: str, later: float, when: str, local_time: Callable[[str], None]
) -> None:
    """What was not said today, where the server is, has the date as well."""
    local_time(zone)
    assert LF.past(event(Kind.SAID, "HELLO"), WHEN + later) == f"{when} <alice> HELLO"


def test_history_is_an_answer() -> None:
    """History of several events is one answer, whose every line is marked."""
    past = [LF.past(shown, WHEN) for shown, _ in SHOWN]
    lines = LF.answer("\n".join(past)).decode().splitlines()
    assert len(lines) == len(SHOWN)
    assert all(re.match(r"-> \d\d:\d\d:\d\d ", line) for line in lines)


def test_there_is_one_object_for_each_form() -> None:
    """Sessions share codecs: the two that exist are two, and are codecs as the core knows them."""
    codecs: set[Codec] = {LF, CRLF}
    assert len(codecs) == 2
    assert (LF.ending, CRLF.ending) == (b"\n", b"\r\n")
