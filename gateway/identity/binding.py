"""Binds a token to its sender: by TLS certificate (RFC 8705 section 3) or by a key that signs requests (RFC 9449)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from joserfc.util import urlsafe_b64encode

from gateway.identity.errors import ProofError, TokenError
from gateway.identity.jose import open_with_own_key
from gateway.identity.peer import SOMEWHERE, Peer

PROOF_TYPE = "dpop+jwt"
#: How far a proof's time may lie from ours, in seconds to either side (RFC 9449 section 11.1).
PROOF_SECONDS = 60
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Presented:
    """What comes with a credential: the far end, the ``DPoP`` headers, and the request they must be meant for.

    ``url`` is made of the configured issuer and the path, never of what the request says of its host.
    """

    peer: Peer = SOMEWHERE
    proofs: tuple[str, ...] = ()
    method: str = ""
    url: str = ""


NOTHING = Presented()


@dataclass(frozen=True, slots=True)
class Proof:
    """A DPoP proof that holds, as far as it can be seen without memory: it may still have been used before."""

    jkt: str
    jti: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Binding:
    """To whom a token is bound: a certificate (``x5t#S256``), a key (``jkt``), both, or nobody."""

    certificate: str | None = None
    jkt: str | None = None

    @classmethod
    def of(cls, claims: dict[str, Any]) -> Binding:
        """Read the ``cnf`` claim (RFC 7800 section 3.1); raises :class:`TokenError` for a way that we do not know."""
        if "cnf" not in claims:
            return UNBOUND
        cnf = claims["cnf"]
        # A way of binding that we cannot check must not pass for none.
        if not isinstance(cnf, dict) or not cnf or not cnf.keys() <= {"x5t#S256", "jkt"}:
            raise TokenError("binding")
        if not all(isinstance(value, str) for value in cnf.values()):
            raise TokenError("binding")
        return cls(cnf.get("x5t#S256"), cnf.get("jkt"))

    @property
    def thumbprint(self) -> str | None:
        """The one that says most of the sender: the certificate's, else the key's."""
        return self.certificate or self.jkt

    def claim(self) -> dict[str, dict[str, str]]:
        """Return the ``cnf`` claim to put into a token, nothing for an unbound one."""
        named = {"x5t#S256": self.certificate, "jkt": self.jkt}
        cnf = {name: value for name, value in named.items() if value is not None}
        return {"cnf": cnf} if cnf else {}

    def check(self, scheme: str, token: str, presented: Presented, now: datetime) -> Proof | None:
        """Hold what came with a token against its binding; return the proof that must not have been used before.

        ``scheme`` is that of the ``Authorization`` header, in lower case. Raises :class:`TokenError` (``binding``,
        ``proof-missing``) or :class:`ProofError`.
        """
        if self.certificate is not None and self.certificate != presented.peer.certificate:
            raise TokenError("binding")
        # Neither a bound token as a bearer's, nor a bearer's token under a proof (RFC 9449 section 7.2).
        if (self.jkt is None) != (scheme != "dpop"):
            raise TokenError("binding")
        if self.jkt is None:
            return None
        if not presented.proofs:
            raise TokenError("proof-missing")
        proof = check_proof(presented, now=now, token=token)
        if proof.jkt != self.jkt:
            raise TokenError("binding")
        return proof


UNBOUND = Binding()


def check_proof(presented: Presented, *, now: datetime, token: str | None) -> Proof:
    """Check the DPoP proof of a request (RFC 9449 section 4.3); with ``token`` it must name that access token.

    Raises :class:`ProofError`. Whether the proof was used before is for the caller to find out.
    """
    if len(presented.proofs) != 1:
        raise ProofError("proof-malformed")
    try:
        opened = open_with_own_key(presented.proofs[0], types=frozenset({PROOF_TYPE}))
    except TokenError as error:
        raise ProofError(f"proof-{error.reason}") from None
    claims = opened.claims
    jti, issued = claims.get("jti"), claims.get("iat")
    if not isinstance(jti, str) or not jti.isprintable() or not 1 <= len(jti) <= 256:
        raise ProofError("proof-claims")
    if not isinstance(issued, int | float) or isinstance(issued, bool):
        raise ProofError("proof-claims")
    if claims.get("htm") != presented.method:
        raise ProofError("proof-method")
    if _plain(claims.get("htu")) != _plain(presented.url):
        raise ProofError("proof-address")
    if not -PROOF_SECONDS <= issued - now.timestamp() <= PROOF_SECONDS:
        raise ProofError("proof-time")
    if token is not None and claims.get("ath") != hash_of(token):
        raise ProofError("proof-token")
    return Proof(opened.kid, jti, datetime.fromtimestamp(issued + PROOF_SECONDS, UTC))


def hash_of(token: str) -> str:
    """Return the hash by which a proof names an access token (RFC 9449 section 4.2, ``ath``)."""
    return urlsafe_b64encode(sha256(token.encode()).digest()).decode()


def _plain(url: object) -> tuple[str, str, int | None, str] | None:
    """Take an address apart, without query and fragment, alike for all its spellings (RFC 3986 section 6.2)."""
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", port or _PORTS.get(parts.scheme), parts.path or "/"
