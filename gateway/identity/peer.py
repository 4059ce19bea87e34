"""Who is at the other end of the connection: the address and the client certificate, believed of our own proxy only."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from ipaddress import ip_address, ip_network

from joserfc.util import urlsafe_b64encode

from gateway.identity.errors import TokenError
from gateway.identity.models import Client, Network

MAX_CERTIFICATE_CHARS = 16 * 1024


@dataclass(frozen=True, slots=True)
class Peer:
    """The far end of a connection: its address, and the thumbprint (``x5t#S256``) of the certificate it showed.

    ``forged`` when a header spoke of a certificate and nobody entitled wrote it.
    """

    address: str = ""
    certificate: str | None = None
    forged: bool = False


SOMEWHERE = Peer()


@dataclass(frozen=True, slots=True)
class Proxies:
    """The addresses of our reverse proxies; what anybody else says about certificates and addresses is not believed."""

    networks: tuple[Network, ...] = ()

    def peer(self, host: str, *, client_cert: Sequence[str], forwarded_for: Sequence[str]) -> Peer:
        """Return the far end of a request that came from ``host``.

        ``client_cert`` holds the values of ``Client-Cert`` (RFC 9440 section 2.2), ``forwarded_for`` those of
        ``X-Forwarded-For``, of which only the last address was written by our proxy.
        """
        if not within(host, self.networks):
            return Peer(host, forged=bool(client_cert))
        listed = forwarded_for[-1].rpartition(",")[2].strip() if forwarded_for else ""
        address = listed if _is_address(listed) else host
        if not client_cert:
            return Peer(address)
        # Our proxy replaces the header: twice, or unreadable, is not its doing.
        found = _thumbprint_of(client_cert[0]) if len(client_cert) == 1 else None
        return Peer(address, found, forged=found is None)


NOBODY = Proxies()


def in_force(client: Client, now: datetime) -> None:
    """Raise :class:`TokenError` (``client-disabled``, ``client-validity``) for a client that does not count now."""
    if not client.active:
        raise TokenError("client-disabled")
    if not client.valid(now):
        raise TokenError("client-validity")


def admit(client: Client, peer: Peer) -> None:
    """Raise :class:`TokenError` (``certificate-forged``, ``network``) for a client that may not come like this."""
    if peer.forged:
        raise TokenError("certificate-forged")
    if client.networks and not within(peer.address, client.networks):
        raise TokenError("network")


def within(address: str, networks: Sequence[Network]) -> bool:
    """Return whether an address lies in one of the networks; what is no address lies in none."""
    if not networks or not _is_address(address):
        return False
    parsed = ip_address(address)
    # A socket that takes both families shows IPv4 peers as ::ffff:a.b.c.d.
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)


def read_network(text: str) -> Network:
    """Read a network in CIDR form, or a single address; raises ValueError, also for bits beyond the mask."""
    return ip_network(text)


def thumbprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate as RFC 8705 section 3.1 writes it."""
    return urlsafe_b64encode(sha256(der).digest()).decode()


def _thumbprint_of(header: str) -> str | None:
    # A byte sequence of structured fields (RFC 9651 section 3.3.5): base64 between colons.
    if len(header) > MAX_CERTIFICATE_CHARS or len(header) < 3 or header[0] != ":" or header[-1] != ":":
        return None
    try:
        der = b64decode(header[1:-1], validate=True)
    except (binascii.Error, ValueError):
        return None
    # Our proxy has verified the certificate (and its time); what counts here is which one it was.
    return thumbprint(der)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
