"""The ports behind which everything lives: the log, the directory and the names.

A store is one object for each; the hub is given the three and knows no more of where they keep
things. What may take time answers with a Deferred, already fired where the answer is at hand, and
fails with `StoreError` where the store cannot do it now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from chatproto.errors import StoreError
from chatproto.model import Account, Draft, Event, Found, Mark, Page, Restriction

Deliver = Callable[[Sequence[Event]], None]
"""Is called with events in the order of the log, once they are as durable as the store makes
them."""

Refused = Callable[[Sequence[Draft], StoreError], None]
"""Is called with drafts that could not be stored; they will never be delivered."""


class Log(Protocol):
    """The ordered sequence of events; assigns their ids."""

    def start(self, deliver: Deliver, refused: Refused) -> int:
        """Open the log, and return the last id that it has given, 0 for none.

        From now on every draft comes back once, in order, as an event through `deliver` or through
        `refused`. Raises `StoreError`.
        """

    def append(self, drafts: Sequence[Draft]) -> None:
        """Queue `drafts` in order; none comes back before this returns."""

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Read at most `limit` events of `room`: the first ones after the id `after`, or the last
        ones before the id `before` (None: of all).
        """

    def mark(
        self,
        room: str,
        *,
        lines: int | None = None,
        since: float | None = None,
        after: int | None = None,
    ) -> Deferred[Mark]:
        """Find a place in `room`: before its last `lines` events, before those since a Unix time in
        seconds, or after an id.
        """

    def search(self, room: str, words: str, limit: int) -> Deferred[Found]:
        """Find the last `limit` events of `room` in which every one of `words` stands, in the text
        or as the sender; a word that ends with an asterisk stands for all that begin so.
        """

    def forget(self, room: str) -> None:
        """Let the events of `room` go: nobody can ever come back to it."""

    def stop(self) -> Deferred[None]:
        """Deliver what is queued, then close; fires when both are done."""


class Topic(NamedTuple):
    """What a room is about, and the nick of who said so."""

    text: str
    by: str


class Directory(Protocol):
    """What is known beside the events: of rooms, of accounts, and of who is forbidden what."""

    def topic(self, room: str) -> Deferred[Topic]:
        """Return the topic of `room`, with an empty text when it has none."""

    def set_topic(self, room: str, topic: Topic) -> Deferred[None]:
        """Keep the topic of `room`; an empty text removes it."""

    def account(self, folded_nick: str) -> Deferred[Account | None]:
        """Return the account of a nick, None when there is none."""

    def accounts(self) -> Deferred[Sequence[Account]]:
        """Return all accounts, in the order of their folded nicks."""

    def add_account(self, account: Account) -> Deferred[bool]:
        """Keep a new account; tell whether its nick had none yet."""

    def change_account(
        self,
        folded_nick: str,
        *,
        secret: str | None = None,
        is_operator: bool | None = None,
        address: str | None = None,
    ) -> Deferred[bool]:
        """Change what is given of an account, and nothing else; tell whether there is one."""

    def remove_account(self, folded_nick: str) -> Deferred[bool]:
        """Forget an account and its read positions; tell whether there was one."""

    def position(self, folded_nick: str, room: str) -> Deferred[int | None]:
        """Return the id of the last event that an account has been shown in `room`, None when it
        has never been there.
        """

    def set_position(self, folded_nick: str, room: str, position: int | None) -> Deferred[None]:
        """Keep a read position; None: the account is there now, and is shown what is delivered."""

    def restrictions(self) -> Deferred[Sequence[Restriction]]:
        """Return what operators have forbidden, in the order of the subjects."""

    def add_restriction(self, restriction: Restriction) -> Deferred[None]:
        """Keep a restriction, in place of one of the same kind and subject."""

    def remove_restriction(self, kind: str, subject: str) -> Deferred[bool]:
        """Lift a restriction; tell whether there was one."""


class Names(Protocol):
    """Who holds which nick, so that it is one client's at a time wherever it is connected."""

    def claim(self, folded_nick: str, session: int) -> Deferred[bool]:
        """Give the nick to `session` unless another session has it; tell whether it was given."""

    def release(self, folded_nick: str, session: int) -> None:
        """Free the nick if `session` has it."""


class Store(NamedTuple):
    """The three ports of one store."""

    log: Log
    directory: Directory
    names: Names
