"""Where a client comes from: as the log shows it, and as the limits count it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from twisted.internet import address
from twisted.internet.interfaces import IAddress


class Peer(NamedTuple):
    """The address of a client."""

    shown: str
    """For the log: ``192.0.2.7:4711``, ``[2001:db8::7]:4711`` or ``unix``."""
    counted: str | None
    """What the limit of clients per address counts, None for a client that is exempt: from
    loopback, or through a Unix socket. For IPv6 it is the /64 that one customer has (RFC 6177)."""
    ip: IPv4Address | IPv6Address | None = None
    """What bans are compared with; None where there is none."""

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine."""
        return self.counted is None


LOCAL: Final = Peer("unix", None)
"""A client on this machine that has no address."""


def peer(of: IAddress | None) -> Peer:
    """Return the peer at a Twisted address."""
    if not isinstance(of, address.IPv4Address | address.IPv6Address):
        return LOCAL
    try:
        ip = ip_address(of.host)
    except ValueError:
        return Peer(f"{of.host}:{of.port}", of.host)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if isinstance(ip, IPv4Address):
        shown, counted = f"{ip}:{of.port}", str(ip)
    else:
        shown = f"[{ip}]:{of.port}"
        counted = str(ip_network((int(ip), 64), strict=False))
    return Peer(shown, None if ip.is_loopback else counted, ip)
