"""The values that travel."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatproto.model import Draft, Event, Kind, Page, inbox, is_inbox
from chatproto.text import LOBBY

DRAFT = Draft("lobby", Kind.SAID, "alice", "HI", 7, here=3, to="bob")


@pytest.mark.parametrize(
    ("value", "field"),
    [(DRAFT, "text"), (Event(1, 1, 0.0, *DRAFT), "id"), (Page(()), "events")],
)
def test_values_are_frozen(value: Any, field: str) -> None:
    """What travels cannot be changed on the way."""
    with pytest.raises(AttributeError):
        setattr(value, field, "other")


def test_an_event_is_a_draft_in_its_place() -> None:
    """An event has every field of its draft, and its id, number and time before them."""
    event = Event(5, 2, 1.5, *DRAFT)
    assert event._asdict() == {"id": 5, "seq": 2, "time": 1.5, **DRAFT._asdict()}


@given(st.integers(min_value=1), st.integers(min_value=1))
def test_every_owner_has_an_inbox_of_its_own(one: int, other: int) -> None:
    """Two owners never share an inbox, and every inbox is known by its name."""
    assert (inbox(one) == inbox(other)) == (one == other)
    assert is_inbox(inbox(one))


def test_a_room_is_no_inbox() -> None:
    """A public room is not taken for an inbox."""
    assert not is_inbox(LOBBY)
