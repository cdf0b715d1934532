"""Words to look for, cut and folded as the SQLite store's index does."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatproto.stores.words import Word, matches, query


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Hello", [Word("hello", False)]),
        ("hel* world", [Word("hel", True), Word("world", False)]),
        ("a-b_c", [Word("a", False), Word("b", False), Word("c", False)]),
        ("*x y**z", [Word("x", False), Word("y", True), Word("z", False)]),
        ("CRÈME cre\u0300me", [Word("creme", False)] * 2),
        ("Ёлка й", [Word("ёлка", False), Word("й", False)]),
        ("한국", [Word("한국", False)]),
        ("ΔΡΟΜΟΣ δρόμος", [Word("δρομοσ", False), Word("δρόμοσ", False)]),
        ("² ½ 42", [Word("²", False), Word("½", False), Word("42", False)]),
        ("", []),
        ("* ** _ !? \u0301", []),
    ],
)
def test_a_query_is_cut_into_words(words: str, expected: list[Word]) -> None:
    """Letters and digits make words; an asterisk right after one makes it a beginning."""
    assert query(words) == expected


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ("b a", "A, b!", True),
        ("a b", "a", False),
        ("a a", "a", True),
        ("app", "apple", False),
        ("app*", "apple", True),
        ("app*", "app", True),
        ("app*", "pineapple", False),
        ("app", "app* ...", True),
        ("und", "Grüße_und mehr", True),
        ("creme", "Crème", True),
        ("e", "日本e", False),
    ],
)
def test_every_word_must_stand_in_the_text(words: str, text: str, expected: bool) -> None:
    """A word is a whole one, a beginning the beginning of one; the order is of no matter."""
    assert matches(query(words), text) is expected


LETTERS = st.sampled_from("aAbzéÉüßøłñÅ09²½ дДйЙёЁ Σςσόώ 東가한がガ שع ก .,-_*'\"\u0301\u0308")


@settings(deadline=None, max_examples=300)
@given(st.text(LETTERS, max_size=12), st.text(LETTERS, max_size=12))
@example("aஔb", "aஔb")
@example("İstanbul", "istanbul")
@example("ẞ Ǆ ﬁ", "ß ǆ ﬁ")
def test_memory_finds_what_the_index_finds(text: str, words: str) -> None:
    """A text is found in memory if and only if SQLite's index finds it."""
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE VIRTUAL TABLE words USING fts5 (text, content = '', detail = 'column', "
        "tokenize = 'unicode61 remove_diacritics 2')"
    )
    connection.execute("INSERT INTO words (rowid, text) VALUES (1, ?)", (text,))
    for looked_for in (words, text, text[:3] + "*", words[:1] + "* " + text[-2:]):
        wanted = query(looked_for)
        if wanted:
            match = " AND ".join(f'"{one.text}"{"*" if one.is_beginning else ""}' for one in wanted)
            found = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (match,))
            assert matches(wanted, text) == bool(found.fetchall())
    connection.close()


@settings(deadline=None)
@given(st.text())
def test_a_text_is_found_by_its_own_words(text: str) -> None:
    """Whatever a text is made of, its own words stand in it."""
    assert matches(query(text.replace("*", " ")), text)
