"""Who is banned or muted: by nick, or by address."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from chatproto.address import Peer
from chatproto.errors import CommandError
from chatproto.model import Restriction
from chatproto.session import Session
from chatproto.stores import Directory
from chatproto.text import check_nick, fold, shorten

BAN: Final = "ban"
MUTE: Final = "mute"

MAPPED: Final = 96
"""Bits of an IPv6 address before the IPv4 address that it may hold."""

MOST: Final = 10_000
"""Restrictions that are kept at once."""


def subject_of(text: str) -> str:
    """Return whom an operator means: a network (``192.0.2.7`` is one of one address) or a folded
    nick. Raises `CommandError`.
    """
    if text[:1].isdigit() or ":" in text:
        try:
            return str(_network(text))
        except ValueError:
            raise CommandError(f"{shorten(text, 50)} is no address, and no network") from None
    return fold(check_nick(text))


class Moderation:
    """The restrictions that are in force, in memory and in the directory."""

    def __init__(self, directory: Directory, now: Callable[[], float]) -> None:
        """Keep them in `directory`; `now` returns the Unix time in seconds."""
        self._directory = directory
        self._now = now
        self._known: dict[tuple[str, str], Restriction] = {}
        # How many networks there are of each kind, IPv6 or not, and length of prefix.
        self._lengths: Counter[tuple[str, bool, int]] = Counter()

    async def load(self) -> None:
        """Read what was kept; raises `StoreError`."""
        for restriction in await self._directory.restrictions():
            self._keep(restriction)
        await self._clear()

    def listed(self) -> Sequence[Restriction]:
        """Return those in force, in the order of their subjects."""
        return sorted(self._in_force(), key=lambda one: (one.subject, one.kind))

    def ban_of(self, peer: Peer | None = None, nick: str = "") -> Restriction | None:
        """Return what keeps an address or a nick out."""
        return self._find(BAN, peer, nick)

    def mute_of(self, peer: Peer, nick: str) -> Restriction | None:
        """Return what keeps somebody from speaking."""
        return self._find(MUTE, peer, nick)

    def concerns(self, subject: str, session: Session) -> bool:
        """Tell whether a subject of `subject_of` means this session, among others."""
        if "/" in subject:
            return session.peer.ip is not None and session.peer.ip in ip_network(subject)
        return subject == fold(session.nick)

    def is_over(self, restriction: Restriction) -> bool:
        """Tell whether its time is over."""
        return 0 < restriction.until <= self._now()

    def current(self, restriction: Restriction) -> Restriction | None:
        """Return what has become of it: None when it is over or lifted."""
        known = self._known.get((restriction.kind, restriction.subject))
        return known if known is not None and not self.is_over(known) else None

    async def add(self, kind: str, subject: str, seconds: float, by: str, why: str) -> Restriction:
        """Restrict somebody for so many `seconds`, 0 for ever; raises `CommandError` or
        `StoreError`.
        """
        await self._clear()
        if len(self._known) >= MOST and (kind, subject) not in self._known:
            raise CommandError(f"{MOST} bans and mutes are in force: lift some first")
        now = self._now()
        restriction = Restriction(kind, subject, now + seconds if seconds else 0.0, by, why, now)
        await self._directory.add_restriction(restriction)
        self._keep(restriction)
        return restriction

    async def lift(self, kind: str, subject: str) -> bool:
        """End a restriction; tell whether there was one. Raises `StoreError`."""
        was_in_force = await self._directory.remove_restriction(kind, subject)
        self._forget((kind, subject))
        return was_in_force

    async def _clear(self) -> None:
        """Let those go whose time is over."""
        for key in [key for key, one in self._known.items() if self.is_over(one)]:
            await self._directory.remove_restriction(*key)
            self._forget(key)

    def _keep(self, restriction: Restriction) -> None:
        self._forget((restriction.kind, restriction.subject))
        self._known[restriction.kind, restriction.subject] = restriction
        if "/" in restriction.subject:
            length = ip_network(restriction.subject).prefixlen
            self._lengths[restriction.kind, ":" in restriction.subject, length] += 1

    def _forget(self, key: tuple[str, str]) -> None:
        forgotten = self._known.pop(key, None)
        if forgotten is not None and "/" in forgotten.subject:
            length = ip_network(forgotten.subject).prefixlen
            self._lengths[forgotten.kind, ":" in forgotten.subject, length] -= 1
            self._lengths += Counter()  # which drops those that are 0

    def _find(self, kind: str, peer: Peer | None, nick: str) -> Restriction | None:
        by_nick = self._known.get((kind, fold(nick)))
        if by_nick is not None and not self.is_over(by_nick):
            return by_nick
        ip = peer.ip if peer is not None else None
        if ip is not None:
            # A look for each length of prefix in use, not for each network.
            for of_kind, is_six, length in self._lengths:
                if of_kind == kind and is_six == (ip.version == 6):
                    network = str(ip_network((int(ip), length), strict=False))
                    found = self._known.get((kind, network))
                    if found is not None and not self.is_over(found):
                        return found
        return None

    def _in_force(self) -> Iterator[Restriction]:
        return (one for one in self._known.values() if not self.is_over(one))


def _network(text: str) -> IPv4Network | IPv6Network:
    """Return a network; one of IPv4 addresses written as IPv6 (RFC 4291, 2.5.5.2) is of IPv4."""
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= MAPPED:
        address = network.network_address.ipv4_mapped
        if address is not None:
            return IPv4Network((int(address), network.prefixlen - MAPPED))
    return network


def in_words(restriction: Restriction) -> str:
    """Return until when and why, for whoever is concerned."""
    until = ""
    if restriction.until:
        until = time.strftime(" until %Y-%m-%d %H:%M", time.localtime(restriction.until))
    return until + (f": {restriction.why}" if restriction.why else "")
