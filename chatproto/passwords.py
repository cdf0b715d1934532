"""Passwords: what may be one, and the hash that is kept in its place.

Everything here takes long on purpose, and is meant to be called in a thread: the hash is computed
without Python's lock.
"""

from __future__ import annotations

import secrets
import unicodedata
from contextlib import suppress
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from chatproto.errors import CommandError
from chatproto.text import clean

MIN_LENGTH: Final = 8
"""Characters, as NIST SP 800-63B, section 5.1.1.1 has it for passwords that people choose."""

MAX_BYTES: Final = 1024
"""Bytes in UTF-8: more than any password, less than a line."""


class BadPassword(CommandError):
    """A text that cannot be a password."""

    code = "bad-password"


def check_password(text: str) -> str:
    """Return `text` if it can be a new password; raise `BadPassword`.

    Spaces end a word of a command, and control characters are taken out of every line: with either
    its owner could set a password, but never log in with it.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadPassword("this password is not UTF-8") from None
    if size > MAX_BYTES:
        raise BadPassword(f"a password has at most {MAX_BYTES} bytes")
    if clean(text) != text or any(character.isspace() for character in text):
        raise BadPassword("a password has no spaces and no control characters")
    if len(text) < MIN_LENGTH:
        raise BadPassword(f"a password has at least {MIN_LENGTH} characters")
    return text


class Hasher:
    """Makes and checks Argon2id hashes (RFC 9106).

    The costs are the first ones that the OWASP Password Storage Cheat Sheet recommends: 19 MiB,
    two passes, one lane, about 30 ms. RFC 9106's own second choice, 64 MiB, would be ten times the
    memory that the rest of a small server takes.
    """

    def __init__(
        self, *, time_cost: int = 2, memory_cost: int = 19456, parallelism: int = 1
    ) -> None:
        """Use these costs for new hashes: passes, KiB, lanes. Makes one hash at once."""
        self._argon2 = PasswordHasher(
            time_cost=time_cost, memory_cost=memory_cost, parallelism=parallelism, type=Type.ID
        )
        self._nobodys = self._argon2.hash(secrets.token_bytes())

    def hash(self, password: str) -> str:
        """Return what to keep of `password`: the hash with its salt and costs, in ASCII."""
        return self._argon2.hash(_bytes(password))

    def verify(self, secret: str, password: str) -> bool:
        """Tell whether `secret` was made from `password`.

        An empty secret, as for an account that does not exist, and a damaged one take as long as
        any other, and are nobody's. Only a secret that `is_outdated` takes another time.
        """
        given = _bytes(password)
        try:
            return self._argon2.verify(secret, given)
        except VerifyMismatchError:
            return False
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            with suppress(VerificationError):  # nothing was computed yet
                self._argon2.verify(self._nobodys, given)
            return False

    def is_outdated(self, secret: str) -> bool:
        """Tell whether `secret`, which was just verified, was made with other costs than now."""
        try:
            return self._argon2.check_needs_rehash(secret)
        except InvalidHashError:
            return False


def _bytes(password: str) -> bytes:
    """Return what is hashed: the same for all the ways to write an accented letter (RFC 8265,
    section 4.2.2), and for a text that is no UTF-8 something that no password is.
    """
    return unicodedata.normalize("NFC", password).encode(errors="surrogatepass")
