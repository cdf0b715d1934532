"""Passwords: what may be one, and what is kept of it."""

from __future__ import annotations

import re

import pytest
from argon2 import PasswordHasher

from chatproto.errors import CommandError
from chatproto.passwords import MAX_BYTES, MIN_LENGTH, BadPassword, Hasher, check_password

GOOD = "correct-horse"

CHEAP = Hasher(time_cost=1, memory_cost=8)


@pytest.mark.parametrize(
    "text",
    [
        "x" * MIN_LENGTH,
        "x" * MAX_BYTES,
        "é" * MIN_LENGTH,
        "/quit/now",
        "日本語のパスワード",
        "%s{}'\";--",
    ],
)
def test_what_may_be_a_password(text: str) -> None:
    """Anything that can be typed in one word, long enough, is a password as it stands."""
    assert check_password(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "at least 8 characters"),
        ("x" * (MIN_LENGTH - 1), "at least 8 characters"),
        ("é" * (MIN_LENGTH - 1), "at least 8 characters"),
        ("x" * (MAX_BYTES + 1), "at most 1024 bytes"),
        ("é" * (MAX_BYTES // 2 + 1), "at most 1024 bytes"),
        ("correct horse", "no spaces"),
        ("correct\thorse", "no spaces"),
        ("correct\N{NO-BREAK SPACE}horse", "no spaces"),
        (" correct-horse", "no spaces"),
        ("correct-horse\n", "no spaces"),
        ("correct\0horse", "no control characters"),
        ("correct\x1b[31mhorse", "no control characters"),
        ("correct\udce9horse", "not UTF-8"),
    ],
)
def test_what_may_not(text: str, why: str) -> None:
    """The others get a sentence that tells what a password must be, and does not repeat it."""
    with pytest.raises(BadPassword, match=why) as caught:
        check_password(text)
    assert isinstance(caught.value, CommandError)
    assert caught.value.code == "bad-password"
    assert not text or text not in caught.value.sentence


def test_right_and_wrong() -> None:
    """A secret tells its own password from every other."""
    secret = CHEAP.hash(GOOD)
    assert CHEAP.verify(secret, GOOD)
    for wrong in ("", "Correct-horse", GOOD + "x", GOOD[:-1], "\udce9", "x" * 100_000):
        assert not CHEAP.verify(secret, wrong)


def test_what_is_kept() -> None:
    """A secret is Argon2id with a salt of its own, in ASCII, and not the password."""
    first, second = CHEAP.hash(GOOD), CHEAP.hash(GOOD)
    assert first != second
    assert re.fullmatch(r"\$argon2id\$v=19\$m=8,t=1,p=1\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+", first)
    assert GOOD not in first


def test_the_default_costs() -> None:
    """By default a secret costs what OWASP recommends at least."""
    assert Hasher().hash(GOOD).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_an_accent_is_an_accent() -> None:
    """However a keyboard composes a letter, it is the same password."""
    secret = CHEAP.hash("caf\N{LATIN SMALL LETTER E WITH ACUTE}-creme")
    assert CHEAP.verify(secret, "cafe\N{COMBINING ACUTE ACCENT}-creme")


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "x",
        "\0",
        "ünsinn",
        GOOD,
        "$argon2id$",
        "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ",
        "$argon2id$v=19$m=0,t=0,p=0$c2FsdHNhbHQ$c2FsdHNhbHQ",
        "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234",
    ],
)
def test_a_secret_that_is_none(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account, one without a password, or a damaged one: wrong, after as much work as any."""
    hasher = Hasher(time_cost=1, memory_cost=8)
    tried: list[str | bytes] = []
    verify = PasswordHasher.verify

    def watched(self: PasswordHasher, secret: str | bytes, password: str | bytes) -> bool:
        tried.append(secret)
        return verify(self, secret, password)

    monkeypatch.setattr(PasswordHasher, "verify", watched)
    assert not hasher.verify(secret, GOOD)
    assert not hasher.verify(secret, "")
    first, nobodys, again, same = tried
    assert first == again == secret
    assert nobodys == same
    assert str(nobodys).startswith("$argon2id$v=19$m=8,t=1,p=1$")

    tried.clear()
    assert not hasher.verify(hasher.hash(GOOD), "wrong")
    assert len(tried) == 1  # a wrong password is worked on once, too


def test_outdated() -> None:
    """A secret with other costs than now still works, and is told apart."""
    old, new = Hasher(time_cost=1, memory_cost=8), Hasher(time_cost=2, memory_cost=16)
    secret = old.hash(GOOD)
    assert new.verify(secret, GOOD)
    assert new.is_outdated(secret)
    assert not old.is_outdated(secret)
    assert not new.is_outdated(new.hash(GOOD))


@pytest.mark.parametrize("secret", ["", "x", "$argon2id$"])
def test_what_is_no_secret_is_not_outdated(secret: str) -> None:
    """There is nothing to make anew where no password was right."""
    assert not CHEAP.is_outdated(secret)
