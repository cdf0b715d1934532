"""What may be said, and under which names."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatproto.errors import BadName, NameReserved, NothingToSay, NotUtf8, TextError
from chatproto.model import inbox
from chatproto.text import (
    LOBBY,
    TRANSFORMS,
    check_nick,
    check_room,
    clean,
    decode,
    fold,
    shorten,
)

OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def is_safe(text: str) -> bool:
    """Tell whether nothing in `text` can control a terminal or turn the reading direction."""
    return not any(unicodedata.category(char) == "Cc" or char in OVERRIDES for char in text)


hostile = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("\x00\x07\x1b[]P\\^_X;m0 \x7f\x80\x90\x9b\x9c\x9d\u2028\u2029" + OVERRIDES),
    )
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "straße",
        "日本語",
        "e\u0301",
        "👩\u200d💻",
        "مرحبا",
        "a\u200fb",
        " two  spaces ",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    """Text of any script passes as it is, with its joiners, marks and spaces."""
    assert decode(text.encode()) == clean(text) == text


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("a\x00b", "ab"),
        ("a\rb", "ab"),
        ("a\x7fb", "ab"),
        ("a\x85b", "ab"),
        ("a\u2028b\u2029c", "abc"),
        ("ding\x07", "ding"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Htop", "top"),
        ("\x1b[?25lhidden", "hidden"),
        ("\x9b31mred", "red"),
        ("a\x1b]52;c;Y3VybA==\x07b", "ab"),
        ("a\x1b]52;c;Y3VybA==\x1b\\b", "ab"),
        ("a\x9d52;c;Y3VybA==\x9cb", "ab"),
        ("a\x1b]0;title without an end", "a"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("a\x1b_application\x1b\\b", "ab"),
        ("a\x1b^private\x1b\\b", "ab"),
        ("a\x1bXstring\x1b\\b", "ab"),
        ("a\x1bcb", "ab"),
        ("a\x1b(0b", "ab"),
        ("a\x1b", "a"),
        ("\u202eevil\u202c", "evil"),
        ("\u2066a\u2069", "a"),
    ],
)
def test_control_sequences_are_taken_out(sent: str, shown: str) -> None:
    """Escape sequences go with all their parts, other control characters and overrides alone."""
    assert decode(sent.encode()) == clean(sent) == shown


def test_a_tab_becomes_spaces() -> None:
    """A tab, the one control character that people type, keeps what it separates apart."""
    assert decode(b"a\tb") == "a    b"


@settings(deadline=None)
@given(hostile)
def test_clean_text_is_safe_and_stays(text: str) -> None:
    """Whatever comes in, nothing that controls anything comes out, and cleaning twice is once."""
    cleaned = clean(text)
    assert is_safe(cleaned)
    assert clean(cleaned) == cleaned


@settings(deadline=None)
@given(st.one_of(st.binary(), hostile.map(str.encode)))
def test_any_bytes_are_safe_text_or_refused(line: bytes) -> None:
    """A line of any bytes is safe text, or refused with an error of the text kind."""
    try:
        text = decode(line)
    except TextError:
        return
    assert is_safe(text)


@pytest.mark.parametrize(
    "line",
    [b"\xff", b"caf\xe9", b"\xc3", b"\xc3(", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"],
)
def test_what_is_not_utf8_is_refused(line: bytes) -> None:
    """Latin-1, cut, overlong and surrogate bytes are refused, never replaced or guessed."""
    with pytest.raises(NotUtf8):
        decode(line)


@pytest.mark.parametrize("line", [b"\x00", b"\x1b[2J", b"\x1b]0;title\x07", "\u202e".encode()])
def test_a_line_of_control_characters_is_refused(line: bytes) -> None:
    """A line of which nothing is left is an error, not an empty line said."""
    with pytest.raises(NothingToSay):
        decode(line)


def test_an_empty_line_is_a_text() -> None:
    """An empty line may be said."""
    assert decode(b"") == ""


@pytest.mark.parametrize(
    ("name", "said", "shown"),
    [
        ("upper", "hello", "HELLO"),
        ("upper", "straße", "STRASSE"),
        ("upper", "ÿ 日本語 7", "Ÿ 日本語 7"),
        ("none", "straße", "straße"),
    ],
)
def test_transforms(name: str, said: str, shown: str) -> None:
    """`upper` makes capitals of every script's small letters; `none` leaves the text alone."""
    assert TRANSFORMS[name](said) == shown


@settings(deadline=None)
@given(hostile, st.sampled_from(sorted(TRANSFORMS)))
def test_a_transform_makes_nothing_unsafe(text: str, name: str) -> None:
    """Safe text is safe after every transform."""
    assert is_safe(TRANSFORMS[name](clean(text)))


@pytest.mark.parametrize(
    ("text", "length", "short"),
    [("abcde", 5, "abcde"), ("abcdef", 5, "abcd…"), ("", 5, ""), ("äöüß", 3, "äö…")],
)
def test_shortening(text: str, length: int, short: str) -> None:
    """A text that is too long ends in a mark and has exactly the length asked for."""
    assert shorten(text, length) == short


@pytest.mark.parametrize("nick", ["a", "Alice", "x" * 32, "a1_-", "z-9"])
def test_good_nicks(nick: str) -> None:
    """A nick starts with a letter and has letters, digits, _ and -, at most 32."""
    assert check_nick(nick) == nick


@pytest.mark.parametrize(
    "nick",
    [
        "",
        "x" * 33,
        "1a",
        "_a",
        "-a",
        "a b",
        "a\n",
        "a\x00",
        "a\x1b[m",
        "\N{CYRILLIC SMALL LETTER A}lice",
        "\N{KELVIN SIGN}ate",
        "a\N{FULLWIDTH DIGIT ONE}",
        "café",
        "a.b",
        "a<b",
        "@a",
        "a\u200b",
    ],
)
def test_bad_nicks(nick: str) -> None:
    """Spaces, controls, look-alike letters and everything else is refused, in words."""
    with pytest.raises(BadName, match="a nick starts with a letter"):
        check_nick(nick)


@pytest.mark.parametrize("nick", ["server", "SERVER", "Admin", "you", "nickserv", "Everyone"])
def test_reserved_nicks(nick: str) -> None:
    """A name that could be taken for the server's is refused in any case of its letters."""
    with pytest.raises(NameReserved, match=nick):
        check_nick(nick)


def test_folding() -> None:
    """Two names are equal when their case folding is."""
    assert fold("Alice") == fold("aLICE") != fold("Alicia")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("lobby", "lobby"),
        ("#lobby", "lobby"),
        ("Lobby", "lobby"),
        ("2", "2"),
        ("a.b_c-d", "a.b_c-d"),
        ("x" * 50, "x" * 50),
    ],
)
def test_good_rooms(name: str, kept: str) -> None:
    """A room is known in lower case, whether or not an IRC user wrote a # before it."""
    assert check_room(name) == kept


@pytest.mark.parametrize(
    "name",
    ["", "#", "##a", "x" * 51, ".a", "-a", "a b", "a\n", "a/b", "straße", "a\x1b", "@1", inbox(7)],
)
def test_bad_rooms(name: str) -> None:
    """No room has a name that could be anything else: above all not that of an inbox."""
    with pytest.raises(BadName, match=re.escape("a room name has only")):
        check_room(name)


def test_the_lobby_is_a_room() -> None:
    """Where everyone starts has a name that one can come back to."""
    assert check_room(LOBBY) == LOBBY == "lobby"
