"""The tree of errors."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from chatproto import errors
from chatproto.errors import ChatError


def tree(base: type[ChatError] = ChatError) -> Iterator[type[ChatError]]:
    """Yield `base` and all errors below it."""
    yield base
    for error in base.__subclasses__():
        yield from tree(error)


ERRORS = list(tree())


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_its_sentence(error: type[ChatError]) -> None:
    """The sentence for people is the text of the error, as it was raised."""
    raised = error("the cat is out")
    assert raised.sentence == str(raised) == "the cat is out"


def test_every_code_is_one_error() -> None:
    """A program can tell the errors apart by their codes, each in lower case and dashes."""
    codes = [error.code for error in ERRORS]
    assert sorted(set(codes)) == sorted(codes)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", code) for code in codes)


def test_every_code_is_declared_by_its_error() -> None:
    """No error goes by the code of its base."""
    assert all("code" in vars(error) for error in ERRORS)


def test_the_module_shows_the_whole_tree() -> None:
    """The tree at the top of the module lists each of its errors below the one it belongs to."""
    levels: list[str] = []
    drawn: dict[str, str] = {}
    for indent, name in re.findall(r"^ {4}([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.M):
        depth = len(indent) // 4
        levels[depth:] = [name]
        if depth:
            drawn[name] = levels[depth - 1]
    assert drawn == {
        error.__name__: base.__name__
        for base in ERRORS
        for error in base.__subclasses__()
        if error.__module__ == errors.__name__
    }
