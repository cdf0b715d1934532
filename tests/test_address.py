"""Where a client comes from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from chatproto.address import peer


@pytest.mark.parametrize(
    ("address", "shown", "counted"),
    [
        (IPv4Address("TCP", "192.0.2.7", 4711), "192.0.2.7:4711", "192.0.2.7"),
        (IPv6Address("TCP", "2001:db8::7", 4711), "[2001:db8::7]:4711", "2001:db8::/64"),
        (IPv6Address("TCP", "::ffff:192.0.2.7", 4711), "192.0.2.7:4711", "192.0.2.7"),
        (IPv6Address("TCP", "fe80::1%eth0", 4711), "[fe80::1%eth0]:4711", "fe80::/64"),
        (IPv4Address("TCP", "somewhere", 4711), "somewhere:4711", "somewhere"),
    ],
)
def test_a_client_is_shown_and_counted(address: IAddress, shown: str, counted: str) -> None:
    """The log shows address and port; the limit counts the address, for IPv6 its /64."""
    assert peer(address)[:2] == (shown, counted)
    assert not peer(address).is_local


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (IPv4Address("TCP", "127.0.0.1", 4711), "127.0.0.1:4711"),
        (IPv4Address("TCP", "127.8.9.10", 4711), "127.8.9.10:4711"),
        (IPv6Address("TCP", "::1", 4711), "[::1]:4711"),
        (IPv6Address("TCP", "::ffff:127.0.0.1", 4711), "127.0.0.1:4711"),
        (UNIXAddress(b"/run/chat.sock"), "unix"),
        (UNIXAddress(None), "unix"),
        (None, "unix"),
    ],
)
def test_loopback_and_unix_sockets_are_exempt(address: IAddress | None, shown: str) -> None:
    """Clients on the same machine are shown but not counted, however they connect."""
    assert peer(address)[:2] == (shown, None)
    assert peer(address).is_local


def test_what_bans_are_compared_with() -> None:
    """The address itself, of IPv4 also where it is written as one of IPv6; none where there is
    none.
    """
    four = ip_address("192.0.2.7")
    assert peer(IPv4Address("TCP", "192.0.2.7", 1)).ip == four
    assert peer(IPv6Address("TCP", "::ffff:192.0.2.7", 1)).ip == four
    assert peer(IPv6Address("TCP", "2001:db8::7", 1)).ip == ip_address("2001:db8::7")
    assert peer(UNIXAddress(b"/run/chat.sock")).ip is None


def test_one_customer_is_one_address() -> None:
    """Two addresses of an IPv6 /64 count as one, those of two networks as two."""
    one, other, neighbour = (
        peer(IPv6Address("TCP", host, 1)).counted
        for host in ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::1")
    )
    assert one == other != neighbour


def test_the_two_families_are_counted_as_one() -> None:
    """An IPv4 client is the same whether it reached an IPv4 or a dual-stack port."""
    four = peer(IPv4Address("TCP", "192.0.2.7", 1))
    assert four == peer(IPv6Address("TCP", "::ffff:192.0.2.7", 1))
