"""What a search looks for: words, as the index of the SQLite store cuts them (FTS5, unicode61)."""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

_WORD = re.compile(r"[^\W_]+\*?")

_DIACRITICS: Final = range(0x300, 0x370)
"""Code points of what is written over and under Latin letters."""


class Word(NamedTuple):
    """One word of a query."""

    text: str
    """Folded: without case, and without diacritics on Latin letters."""
    is_beginning: bool
    """Whether it stands for every word that begins so."""

    def stands_for(self, word: str) -> bool:
        """Tell whether a folded word is one that is looked for."""
        return word.startswith(self.text) if self.is_beginning else word == self.text


def query(words: str) -> list[Word]:
    """Return the words of a query; none when it holds no letter and no digit."""
    return [Word(word.rstrip("*"), word.endswith("*")) for word in _WORD.findall(_folded(words))]


def matches(wanted: list[Word], text: str) -> bool:
    """Tell whether every one of the words `wanted` stands in `text`."""
    words = _WORD.findall(_folded(text).replace("*", " "))
    return all(any(want.stands_for(word) for word in words) for want in wanted)


def _folded(text: str) -> str:
    return text.lower().translate(_FOLDED)


def _without_diacritics(char: str) -> str | None:
    """Return what the index has in the place of a character in lower case."""
    if ord(char) in _DIACRITICS:
        return None
    base, *marks = [*unicodedata.normalize("NFD", char)]
    # In other scripts they make another letter, and the index keeps that: Cyrillic, Korean.
    if marks and base.isascii() and all(ord(mark) in _DIACRITICS for mark in marks):
        return base
    folded = char.casefold()
    return folded if len(folded) == 1 else char


_FOLDED: Final = {code: _without_diacritics(chr(code)) for code in range(0x80, 0x2000)}
